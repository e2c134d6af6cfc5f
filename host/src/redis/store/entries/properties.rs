//! Written entries are read back unchanged, whatever is dropped in between.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::arbitrary::cases;
use crate::redis::client::resp::Cursor;

/// An operation on a builder.
#[derive(Clone, Debug)]
enum Step {
    Field(String, Vec<u8>),
    Finish,
    /// Keeps this share of the finished entries, of 256.
    Truncate(u8),
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (".{0,6}", vec(any::<u8>(), 0..12)).prop_map(|(name, value)| Step::Field(name, value)),
        3 => Just(Step::Finish),
        1 => any::<u8>().prop_map(Step::Truncate),
        1 => Just(Step::Clear),
    ]
}

/// Reads the arguments of a script: the number of entries, then for each entry the number of values and the values.
fn sent(entries: &Entries) -> Vec<Vec<Vec<u8>>> {
    let mut commands = Commands::default();
    commands.begin(entries.arguments());
    entries.write_to(&mut commands);
    let mut command = Cursor::new(commands.bytes(), 0);
    let mut arguments = (0..command.array().unwrap()).map(|_| command.bulk().unwrap().to_vec());
    let number = |arguments: &mut dyn Iterator<Item = Vec<u8>>| -> usize {
        String::from_utf8(arguments.next().unwrap()).unwrap().parse().unwrap()
    };
    let count = number(&mut arguments);
    let read = (0..count)
        .map(|_| {
            let values = number(&mut arguments);
            (0..values).map(|_| arguments.next().unwrap()).collect()
        })
        .collect();
    assert_eq!(arguments.next(), None, "nothing follows the last entry");
    read
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn entries_hold_what_a_list_of_lists_holds(steps in vec(step(), 0..40)) {
        let (mut entries, mut finished, mut open) = (Entries::default(), Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Field(name, value) => {
                    entries.field(&name, &value);
                    open.extend([name.into_bytes(), value]);
                }
                Step::Finish => {
                    entries.finish();
                    finished.push(std::mem::take(&mut open));
                }
                Step::Truncate(share) => {
                    let kept = finished.len() * usize::from(share) / 255;
                    entries.truncate(kept);
                    finished.truncate(kept);
                    open.clear();
                }
                Step::Clear => {
                    entries.clear();
                    finished.clear();
                    open.clear();
                }
            }
            let held: Vec<Vec<Vec<u8>>> = entries.iter().map(|values| values.map(<[u8]>::to_vec).collect()).collect();
            prop_assert_eq!(&held, &finished);
            prop_assert_eq!((entries.len(), entries.is_empty()), (finished.len(), finished.is_empty()));
            prop_assert!(entries.iter_sizes().eq(finished.iter().map(Vec::len)));
        }
        prop_assert_eq!(sent(&entries), finished);
    }
}
