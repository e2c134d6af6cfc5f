//! What is read of replies, and what is refused.

use super::*;

const REPLY: &[u8] = b"*3\r\n$2\r\na\r\r\n*2\r\n:-7\r\n$-1\r\n*-1\r\n+OK\r\n";

#[test]
fn heads_are_read_in_order() {
    let mut cursor = Cursor::new(REPLY, 0);
    let mut heads = Vec::new();
    while let Some(head) = cursor.head().unwrap() {
        heads.push(head);
    }
    use Head::{Array, Bulk, Line, Nil};
    assert_eq!(heads, [Array(3), Bulk(b"a\r"), Array(2), Line(b":-7"), Nil, Nil, Line(b"+OK")]);
    assert_eq!(cursor.at(), REPLY.len());
}

#[test]
fn a_value_is_skipped_as_far_as_it_has_arrived() {
    let end = REPLY.len() - "+OK\r\n".len();
    for arrived in 0..REPLY.len() {
        let mut replies = Replies::expected(1);
        let is_there = (arrived >= end).then_some(end);
        assert_eq!(replies.end(&REPLY[..arrived]).unwrap(), is_there, "{arrived}");
        // It continues where it stopped.
        assert_eq!(replies.end(REPLY).unwrap(), Some(end));
    }
}

#[test]
fn what_is_no_resp_is_an_error() {
    for wrong in [&b"?\r\n"[..], b"\r\n", b"*x\r\n", b"$\r\n", b"*-2\r\n", b"$99999999999999999999999\r\n", b"_\r\n"] {
        assert!(Cursor::new(wrong, 0).head().is_err(), "{wrong:?}");
    }
    for wrong in [&b"+OK\rx"[..], b"$1\r\nabc", b"$1\r\na\rb"] {
        assert!(Cursor::new(wrong, 0).head().is_err(), "{wrong:?}");
    }
}

#[test]
fn nothing_is_taken_beyond_the_bounds() {
    let text = |length: usize| [b"+", vec![b'x'; length].as_slice()].concat();
    let nested = |depth: usize| "*1\r\n".repeat(depth).into_bytes();
    let refused: [Vec<u8>; 9] = [
        format!("${}\r\nx", usize::MAX).into(),
        format!("${}\r\n", BULK_BYTES_MAX + 1).into(),
        format!("*{}\r\n", VALUES_MAX + 1).into(),
        text(TEXT_LINE_MAX),
        [text(TEXT_LINE_MAX).as_slice(), b"\r\n"].concat(),
        format!("${}", "0".repeat(NUMBER_LINE_MAX)).into(),
        format!(":{}", "1".repeat(NUMBER_LINE_MAX)).into(),
        nested(DEPTH_MAX + 1),
        nested(1_000_000),
    ];
    for bytes in refused {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(20)]).into_owned();
        let error = Replies::expected(1).end(&bytes).expect_err(&shown).to_string();
        assert!(error.contains("exceeds a bound") || error.contains("not what the protocol says"), "{error}");
    }
    let awaited: [Vec<u8>; 4] = [
        format!("${BULK_BYTES_MAX}\r\n").into(),
        format!("*{VALUES_MAX}\r\n").into(),
        text(TEXT_LINE_MAX - 2),
        nested(DEPTH_MAX),
    ];
    for bytes in awaited {
        assert_eq!(Replies::expected(1).end(&bytes).unwrap(), None);
    }
}

#[test]
fn the_beginning_of_a_line_is_searched_once() {
    let (bytes, mut cursor) = (b"*2\r\n+abcdefgh", Cursor::new(b"", 0));
    for arrived in 5..bytes.len() {
        cursor = Cursor::resuming(&bytes[..arrived], 4, cursor.partial());
        assert_eq!(cursor.head().unwrap(), None);
        assert_eq!(cursor.partial().searched, arrived);
        // What has been searched is taken to have no end: it is not looked at.
        let other = [&b"*2\r\n+"[..], &vec![b'\r'; arrived - 5], b"i\r\n"].concat();
        let read = Cursor::resuming(&other, 4, cursor.partial()).head().unwrap();
        assert!(matches!(read, Some(Head::Line(line)) if line.ends_with(b"i")), "{arrived}");
    }
}

#[test]
fn an_error_keeps_its_code() {
    let error = Cursor::new(b"-NOSCRIPT No matching script.\r\n", 0).value().unwrap_err();
    assert_eq!(error.code(), Some("NOSCRIPT"));
    let error = Cursor::new(b"-WEIRD thing\r\n", 0).array().unwrap_err();
    assert_eq!(error.code(), Some("WEIRD"));
}

#[test]
fn a_command_is_an_array_of_strings() {
    let mut commands = Commands::default();
    commands.command(&[&b"GET"[..], b"", b"\r\n"]);
    commands.begin(1);
    commands.number(42);
    assert_eq!(commands.len(), 2);
    assert_eq!(commands.bytes(), b"*3\r\n$3\r\nGET\r\n$0\r\n\r\n$2\r\n\r\n\r\n*1\r\n$2\r\n42\r\n");
}
