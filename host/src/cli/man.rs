//! `host man`: prints the man page.

use super::{Failure, Flags, command, print, refuse};

pub(super) fn execute(flags: &Flags) -> Result<(), Failure> {
    refuse(flags, "man")?;
    let mut page = Vec::new();
    clap_mangen::Man::new(command()).render(&mut page)?;
    print(&page)
}
