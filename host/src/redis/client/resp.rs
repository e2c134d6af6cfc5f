//! Redis's protocol (RESP2) in a buffer: replies are read in place, and nothing is copied. This file knows no commands.

use redis::{ErrorKind, RedisError};

/// The head of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::redis) enum Head<'a> {
    /// An array with this number of values.
    Array(usize),
    /// A string.
    Bulk(&'a [u8]),
    /// A null string or a null array.
    Nil,
    /// A status, a number or an error, with its leading sign.
    Line(&'a [u8]),
}

impl Head<'_> {
    /// The value as a number.
    ///
    /// # Errors
    /// When the value is not a number, or is negative.
    pub(in crate::redis) fn number(self) -> Result<usize, RedisError> {
        match self {
            Head::Line([b':', digits @ ..]) => number(digits),
            _ => Err(malformed()),
        }
    }
}

/// Steps over values in a buffer. Copy the cursor to look ahead.
#[derive(Clone, Copy, Debug)]
pub(in crate::redis) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(in crate::redis) fn new(bytes: &'a [u8], at: usize) -> Cursor<'a> {
        Cursor { bytes, at }
    }

    /// Position in bytes from the beginning of the buffer.
    pub(in crate::redis) fn at(&self) -> usize {
        self.at
    }

    /// The head of the next value. `None` when the head has not arrived completely; then the cursor does not move.
    ///
    /// # Errors
    /// When the bytes are not RESP2.
    pub(in crate::redis) fn head(&mut self) -> Result<Option<Head<'a>>, RedisError> {
        let rest = &self.bytes[self.at..];
        let Some(length) = rest.iter().position(|byte| *byte == b'\r') else { return Ok(None) };
        let (line, end) = (&rest[..length], length + 2);
        if rest.len() < end {
            return Ok(None);
        }
        let head = match line.first() {
            Some(b'+' | b'-' | b':') => Head::Line(line),
            Some(b'*' | b'$') if &line[1..] == b"-1" => Head::Nil,
            Some(b'*') => Head::Array(number(&line[1..])?),
            Some(b'$') => {
                let text_end = end.checked_add(number(&line[1..])?).ok_or_else(malformed)?;
                let Some(text) = rest.get(end..text_end).filter(|_| rest.len() >= text_end + 2) else {
                    return Ok(None);
                };
                self.at += text_end + 2;
                return Ok(Some(Head::Bulk(text)));
            }
            _ => return Err(malformed()),
        };
        self.at += end;
        Ok(Some(head))
    }

    /// Steps over `pending` values and their contents, as far as they have arrived. `pending` becomes the number of
    /// missing values.
    ///
    /// # Errors
    /// When the bytes are not RESP2.
    pub(in crate::redis) fn skip(&mut self, pending: &mut usize) -> Result<(), RedisError> {
        while *pending > 0 {
            let Some(head) = self.head()? else { return Ok(()) };
            let inside = if let Head::Array(length) = head { length } else { 0 };
            *pending = (*pending - 1).checked_add(inside).ok_or_else(malformed)?;
        }
        Ok(())
    }

    /// The head of the next value of a complete reply.
    ///
    /// # Errors
    /// When the value is an error of the server, or is missing.
    pub(in crate::redis) fn value(&mut self) -> Result<Head<'a>, RedisError> {
        match self.head()? {
            Some(Head::Line(line)) if line.starts_with(b"-") => Err(server_error(line)),
            Some(head) => Ok(head),
            None => Err(malformed()),
        }
    }

    /// The length of the next value, an array.
    ///
    /// # Errors
    /// When the next value is not an array.
    pub(in crate::redis) fn array(&mut self) -> Result<usize, RedisError> {
        match self.value()? {
            Head::Array(length) => Ok(length),
            _ => Err(malformed()),
        }
    }

    /// The next value, a string.
    ///
    /// # Errors
    /// When the next value is not a string.
    pub(in crate::redis) fn bulk(&mut self) -> Result<&'a [u8], RedisError> {
        match self.value()? {
            Head::Bulk(text) => Ok(text),
            _ => Err(malformed()),
        }
    }
}

/// Encoded commands, one after the other in one buffer.
#[derive(Debug, Default)]
pub struct Commands {
    bytes: Vec<u8>,
    count: usize,
}

impl Commands {
    /// Begins a command with this number of words.
    pub(in crate::redis) fn begin(&mut self, words: usize) {
        self.count += 1;
        self.length(b'*', words);
    }

    /// Adds a word to the command.
    pub(in crate::redis) fn word(&mut self, word: impl AsRef<[u8]>) {
        let word = word.as_ref();
        self.length(b'$', word.len());
        self.bytes.extend_from_slice(word);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Adds a word that begins with `prefix`.
    pub(in crate::redis) fn prefixed(&mut self, prefix: &str, rest: impl AsRef<[u8]>) {
        let rest = rest.as_ref();
        self.length(b'$', prefix.len() + rest.len());
        self.bytes.extend_from_slice(prefix.as_bytes());
        self.bytes.extend_from_slice(rest);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Adds a number as a word.
    pub(in crate::redis) fn number(&mut self, number: u64) {
        self.word(itoa::Buffer::new().format(number));
    }

    /// Adds a whole command.
    pub(in crate::redis) fn command(&mut self, words: &[&[u8]]) {
        self.begin(words.len());
        for word in words {
            self.word(word);
        }
    }

    /// Adds other commands behind these.
    pub(in crate::redis) fn append(&mut self, others: &Commands) {
        self.bytes.extend_from_slice(&others.bytes);
        self.count += others.count;
    }

    /// Number of commands.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are no commands.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The bytes to send.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn length(&mut self, sign: u8, length: usize) {
        self.bytes.push(sign);
        self.bytes.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
    }
}

/// The error in this line of a reply. Errors are rare, and the client library knows their kinds.
pub(in crate::redis) fn server_error(line: &[u8]) -> RedisError {
    let reply = [line, b"\r\n"].concat();
    match redis::parse_redis_value(&reply).and_then(redis::Value::extract_error) {
        Err(error) => error,
        Ok(_) => malformed(),
    }
}

/// A length, which is not negative.
fn number(digits: &[u8]) -> Result<usize, RedisError> {
    if digits.is_empty() {
        return Err(malformed());
    }
    digits.iter().try_fold(0_usize, |number, digit| match digit {
        b'0'..=b'9' => number
            .checked_mul(10)
            .and_then(|number| number.checked_add(usize::from(digit - b'0')))
            .ok_or_else(malformed),
        _ => Err(malformed()),
    })
}

/// The error for bytes that cannot be understood. The connection cannot be used any more.
pub(in crate::redis) fn malformed() -> RedisError {
    (ErrorKind::Parse, "the server's reply is not what the protocol says").into()
}

#[cfg(test)]
mod tests {
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
            let (mut cursor, mut pending) = (Cursor::new(&REPLY[..arrived], 0), 1);
            cursor.skip(&mut pending).unwrap();
            assert_eq!(pending == 0, arrived >= end, "{arrived}");
            // The cursor continues where it stopped.
            let mut cursor = Cursor::new(REPLY, cursor.at());
            cursor.skip(&mut pending).unwrap();
            assert_eq!((cursor.at(), pending), (end, 0));
        }
    }

    #[test]
    fn what_is_no_resp_is_an_error() {
        for wrong in
            [&b"?\r\n"[..], b"\r\n", b"*x\r\n", b"$\r\n", b"*-2\r\n", b"$99999999999999999999999\r\n", b"_\r\n"]
        {
            assert!(Cursor::new(wrong, 0).head().is_err(), "{wrong:?}");
        }
        let huge = format!("${}\r\nx", usize::MAX);
        assert!(Cursor::new(huge.as_bytes(), 0).head().is_err());
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
}
