//! Looks into compiled code, an ELF file, for what a host takes apart when it loads the code: the description of the
//! component. A component of 500 bytes that is nested can have a description of 45 MB, which takes ten times as much in
//! memory.

use wasmtime::component::Component;

/// The section with the description.
const DESCRIPTION: &[u8] = b".wasmtime.info\0";

/// Length that a description may have, beside a half of the component's. Those of real components have up to 8 % of it.
const DESCRIPTION_BYTES_MAX: usize = 1 << 20;

/// Refuses a component whose description is out of all proportion.
pub(super) fn bounded(component: &Component, component_bytes: usize) -> wasmtime::Result<()> {
    let image = component.serialize()?;
    let bytes = description(&image).ok_or_else(|| wasmtime::Error::msg("its own code cannot be read"))?;
    let bytes_max = DESCRIPTION_BYTES_MAX + component_bytes / 2;
    if bytes > bytes_max {
        let text = format!(
            "the description of its parts takes {bytes} bytes, and may take {bytes_max}: it is nested too much"
        );
        return Err(wasmtime::Error::msg(text));
    }
    Ok(())
}

/// Length of the description in a file of 64 bits and the order of bytes of this machine.
fn description(image: &[u8]) -> Option<usize> {
    let number = |at: usize, length: usize| -> Option<usize> {
        let mut bytes = image.get(at..at.checked_add(length)?)?.to_vec();
        if cfg!(target_endian = "big") {
            bytes.reverse();
        }
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    let (sections, length, count, names) = (number(40, 8)?, number(58, 2)?, number(60, 2)?, number(62, 2)?);
    let section = |index: usize| sections.checked_add(index * length);
    let names = number(section(names)? + 24, 8)?;
    (0..count).filter_map(section).find_map(|section| {
        let name = names.checked_add(number(section, 4)?)?;
        image.get(name..)?.starts_with(DESCRIPTION).then_some(number(section + 32, 8)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_out_of_proportion_is_refused() {
        let engine = wasmtime::Engine::default();
        let nested = |levels: usize| {
            let twice =
                |inner: String, _| format!("(component {inner} (instance (instantiate 0)) (instance (instantiate 0)))");
            let text = (0..levels).fold("(component (core module) (core instance (instantiate 0)))".to_owned(), twice);
            wat::parse_str(text).unwrap()
        };
        let judged = |bytes: &[u8]| bounded(&Component::from_binary(&engine, bytes).unwrap(), bytes.len());
        judged(&nested(4)).unwrap();
        let error = judged(&nested(18)).unwrap_err().to_string();
        assert!(error.contains("nested too much"), "{error}");
    }

    #[test]
    fn what_is_no_code_has_no_description() {
        for image in [&b""[..], b"\x7fELF", &[0xff; 200], &[0; 200]] {
            assert_eq!(description(image), None);
        }
    }
}
