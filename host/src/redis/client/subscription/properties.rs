//! Whatever arrives on a subscription, and in which pieces, the same is taken from it.

use proptest::prelude::*;

use super::*;
use crate::arbitrary::{almost_a_reply, cases};

/// Everything in these bytes as far as they make sense, when they arrive in two pieces; and whether they make sense to their end.
fn taken(bytes: &[u8], first: usize) -> (Vec<Vec<u8>>, bool) {
    let (mut taken, mut from, mut partial) = (Vec::new(), 0, Partial::default());
    for end in [first, bytes.len()] {
        let arrived = &bytes[from..end];
        let mut cursor = Cursor::resuming(arrived, 0, partial);
        let Ok(items) = complete(&mut cursor, b"messages:published", b"marks") else { return (taken, false) };
        for item in items {
            match item {
                Item::Message(range) | Item::Mark(range) => taken.push(arrived[range].to_vec()),
                Item::End => taken.push(b"end".to_vec()),
            }
        }
        partial = if cursor.at() > 0 { Partial::default() } else { cursor.partial() };
        from += cursor.at();
    }
    (taken, true)
}

proptest! {
    #![proptest_config(cases(6_000))]

    #[test]
    fn pieces_make_the_same_as_the_whole(bytes in almost_a_reply(), first in any::<prop::sample::Index>()) {
        let (whole, makes_sense) = taken(&bytes, bytes.len());
        let (pieces, is_same) = taken(&bytes, first.index(bytes.len() + 1));
        prop_assert_eq!(is_same, makes_sense);
        // Of bytes that make no sense in the end nothing is used beyond what was there in time.
        let is_right = if makes_sense { pieces == whole } else { pieces.starts_with(&whole) };
        prop_assert!(is_right, "{pieces:?} instead of {whole:?}");
    }
}
