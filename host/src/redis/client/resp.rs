//! Redis's protocol (RESP2) in a buffer: replies are read in place, and nothing is copied. This file knows no commands.

use redis::{ErrorKind, RedisError};

/// Longest line of a status or of an error, in bytes: scripts of this program name keys in their errors.
const TEXT_LINE_MAX: usize = 64 << 10;

/// Longest line of a number or of a length.
const NUMBER_LINE_MAX: usize = 32;

/// Longest string: Redis takes no longer one, unless its `proto-max-bulk-len` is changed.
const BULK_BYTES_MAX: usize = 512 << 20;

/// Largest number of values in an array.
const VALUES_MAX: usize = 1 << 20;

/// Number of arrays in each other, at most. Entries of streams in a transaction are at depth 5.
const DEPTH_MAX: usize = 8;

/// Most bytes of the replies to one request: a fetch brings 64 deliveries at most.
const REPLIES_BYTES_MAX: usize = 2 << 30;

/// The end of a line.
const LINE_END: &[u8] = b"\r\n";

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
    partial: Partial,
}

/// A line that has not arrived completely, so that nobody searches its beginning again.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::redis) struct Partial {
    /// Where it begins.
    from: usize,
    /// Up to where it has no end.
    searched: usize,
}

impl<'a> Cursor<'a> {
    pub(in crate::redis) fn new(bytes: &'a [u8], at: usize) -> Cursor<'a> {
        Cursor::resuming(bytes, at, Partial::default())
    }

    /// A cursor in a buffer whose end was looked at before, when it was nearer.
    pub(in crate::redis) fn resuming(bytes: &'a [u8], at: usize, partial: Partial) -> Cursor<'a> {
        Cursor { bytes, at, partial }
    }

    /// The line at which the cursor, or a copy of it, has stopped.
    pub(in crate::redis) fn partial(&self) -> Partial {
        self.partial
    }

    /// The whole buffer.
    pub(in crate::redis) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Position in bytes from the beginning of the buffer.
    pub(in crate::redis) fn at(&self) -> usize {
        self.at
    }

    /// The head of the next value. `None` when the head has not arrived completely; then the cursor does not move.
    ///
    /// # Errors
    /// When the bytes are not RESP2, or exceed a bound.
    pub(in crate::redis) fn head(&mut self) -> Result<Option<Head<'a>>, RedisError> {
        let Some(line) = self.line()? else { return Ok(None) };
        let (text, end) = (&line[1..], self.at + line.len() + LINE_END.len());
        let head = match line[0] {
            b'*' | b'$' if text == b"-1" => Head::Nil,
            b'*' => match number(text)? {
                values if values > VALUES_MAX => return Err(excessive("an array of more than 1,048,576 values")),
                values => Head::Array(values),
            },
            b'$' => {
                let length = number(text)?;
                if length > BULK_BYTES_MAX {
                    return Err(excessive("a string of more than 512 MiB"));
                }
                let text_end = end + length;
                let Some(after) = self.bytes.get(text_end..text_end + LINE_END.len()) else { return Ok(None) };
                if after != LINE_END {
                    return Err(malformed());
                }
                self.at = text_end + LINE_END.len();
                return Ok(Some(Head::Bulk(&self.bytes[end..text_end])));
            }
            _ => Head::Line(line),
        };
        self.at = end;
        Ok(Some(head))
    }

    /// The line at which the cursor stands, with its sign and without its end; `None` when it has not arrived completely.
    fn line(&mut self) -> Result<Option<&'a [u8]>, RedisError> {
        let rest = &self.bytes[self.at..];
        let length_max = match rest.first() {
            None => return Ok(None),
            Some(b'+' | b'-') => TEXT_LINE_MAX,
            Some(b':' | b'*' | b'$') => NUMBER_LINE_MAX,
            Some(_) => return Err(malformed()),
        };
        let searched = if self.partial.from == self.at { self.partial.searched.saturating_sub(self.at) } else { 0 };
        let unsearched = rest.get(searched..rest.len().min(length_max)).unwrap_or_default();
        let Some(length) = unsearched.iter().position(|byte| *byte == LINE_END[0]) else {
            if rest.len() >= length_max {
                return Err(excessive("a line of more than 64 KiB, or a number of more than 31 digits"));
            }
            self.partial = Partial { from: self.at, searched: self.bytes.len() };
            return Ok(None);
        };
        let length = searched + length;
        match rest.get(length + 1) {
            Some(end) if *end == LINE_END[1] => Ok(Some(&rest[..length])),
            Some(_) => Err(malformed()),
            None => {
                self.partial = Partial { from: self.at, searched: self.at + length };
                Ok(None)
            }
        }
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

/// How far the replies to a request have arrived.
#[derive(Clone, Copy, Debug)]
pub(in crate::redis) struct Replies {
    at: usize,
    partial: Partial,
    /// Values that are missing in each array, the outermost first, which is the request as a whole.
    missing: [usize; DEPTH_MAX + 1],
    depth: usize,
}

impl Replies {
    /// The replies to this number of commands, of which nothing has arrived.
    pub(in crate::redis) fn expected(commands: usize) -> Replies {
        let mut missing = [0; DEPTH_MAX + 1];
        missing[0] = commands;
        Replies { at: 0, partial: Partial::default(), missing, depth: 0 }
    }

    /// Where the replies end in what has arrived, if all of them have arrived. The bytes must begin as they did before.
    ///
    /// # Errors
    /// When the bytes are not RESP2, or exceed a bound.
    pub(in crate::redis) fn end(&mut self, arrived: &[u8]) -> Result<Option<usize>, RedisError> {
        let mut cursor = Cursor::resuming(arrived, self.at, self.partial);
        let are_complete = self.step_over(&mut cursor)?;
        (self.at, self.partial) = (cursor.at, cursor.partial);
        if !are_complete && arrived.len() > REPLIES_BYTES_MAX {
            return Err(excessive("replies of more than 2 GiB to one request"));
        }
        Ok(are_complete.then_some(self.at))
    }

    /// Steps over what has arrived, and returns whether that is everything.
    fn step_over(&mut self, cursor: &mut Cursor<'_>) -> Result<bool, RedisError> {
        loop {
            while self.missing[self.depth] == 0 {
                if self.depth == 0 {
                    return Ok(true);
                }
                self.depth -= 1;
            }
            let Some(head) = cursor.head()? else { return Ok(false) };
            self.missing[self.depth] -= 1;
            if let Head::Array(values @ 1..) = head {
                if self.depth == DEPTH_MAX {
                    return Err(excessive("more than 8 arrays in each other"));
                }
                self.depth += 1;
                self.missing[self.depth] = values;
            }
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

/// The error for what this client takes from no server: it would be kept in memory.
fn excessive(what: &'static str) -> RedisError {
    (ErrorKind::Parse, "the server's reply exceeds a bound of this program", what.to_owned()).into()
}

/// The error for bytes that cannot be understood. The connection cannot be used any more.
pub(in crate::redis) fn malformed() -> RedisError {
    (ErrorKind::Parse, "the server's reply is not what the protocol says").into()
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests;
