//! No server makes the client panic, and it does not matter in which pieces replies arrive. Real replies are changed at random.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::arbitrary::{REPLIES, almost_a_reply, cases};

/// Where this number of replies ends; an error of any kind is the same.
fn end(replies: &mut Replies, arrived: &[u8]) -> Result<Option<usize>, ()> {
    replies.end(arrived).map_err(drop)
}

/// Reads the replies value by value, as the files of the keys do, and returns the number of values.
fn walk(bytes: &[u8]) -> usize {
    let (mut cursor, mut count) = (Cursor::new(bytes, 0), 0);
    while cursor.at() < bytes.len() {
        let mut other = cursor;
        let _ = (other.array(), other.bulk(), other.value().and_then(Head::number));
        match cursor.value() {
            Ok(_) => {}
            // An error of the server is a value, too.
            Err(error) if error.code().is_some() && cursor.at() > 0 => {}
            Err(_) => break,
        }
        count += 1;
    }
    count
}

#[test]
fn a_real_reply_is_read_to_its_end() {
    for reply in REPLIES {
        let (mut cursor, mut values) = (Cursor::new(reply, 0), 0);
        while cursor.at() < reply.len() {
            assert!(Replies::expected(1).step_over(&mut cursor).unwrap());
            values += 1;
        }
        assert_eq!(end(&mut Replies::expected(values), reply), Ok(Some(reply.len())));
        assert_eq!(end(&mut Replies::expected(values + 1), reply), Ok(None));
        assert!(walk(reply) >= values, "{}", String::from_utf8_lossy(reply));
    }
}

proptest! {
    #![proptest_config(cases(6_000))]

    #[test]
    fn pieces_of_a_reply_make_the_same_as_the_whole(
        bytes in almost_a_reply(),
        commands in 0_usize..10,
        mut arrived in vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let whole = end(&mut Replies::expected(commands), &bytes);
        arrived.sort_by_key(|arrived| arrived.index(bytes.len() + 1));
        let lengths = arrived.into_iter().map(|arrived| arrived.index(bytes.len() + 1)).chain([bytes.len()]);
        let mut replies = Replies::expected(commands);
        let pieces = lengths.map(|length| end(&mut replies, &bytes[..length])).find(|end| *end != Ok(None));
        prop_assert_eq!(pieces.unwrap_or(Ok(None)), whole);
    }

    #[test]
    fn no_reply_makes_a_reader_panic(bytes in almost_a_reply()) {
        walk(&bytes);
        let _ = server_error(&bytes);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in vec(any::<u8>(), 0..60)) {
        walk(&bytes);
        let _ = (server_error(&bytes), end(&mut Replies::expected(1), &bytes));
    }
}
