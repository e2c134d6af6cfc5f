//! Finds the published messages in what Redis sends to a host. It knows how Redis writes a Pub/Sub message and how the
//! campaign's messages begin, and nothing else of the protocol.

use crate::ledger::ID_START;

/// What a Pub/Sub message has between its kind and the length of its payload, on RESP2 and RESP3 alike.
const HEADER: &[u8] = b"message\r\n$18\r\nmessages:published\r\n$";

/// As much of a payload as is kept to read the id from.
const KEPT_BYTES: usize = 40;

/// The listener on one direction of one connection.
pub struct Ear {
    state: State,
    /// Start of the payload that is on its way.
    kept: Vec<u8>,
}

enum State {
    /// So many bytes of the header have been seen.
    Header(usize),
    /// The digits of the length so far.
    Length(usize),
    /// So many bytes of the payload and its end of line are to come.
    Payload(usize),
}

impl Ear {
    pub fn new() -> Ear {
        Ear { state: State::Header(0), kept: Vec::new() }
    }

    /// Takes what has been sent, and tells the numbers of the messages that are complete with it.
    pub fn hear(&mut self, mut bytes: &[u8], mut heard: impl FnMut(u32)) {
        while let [first, rest @ ..] = bytes {
            match &mut self.state {
                State::Header(seen) => {
                    *seen = match *seen {
                        seen if HEADER[seen] == *first => seen + 1,
                        _ => usize::from(HEADER[0] == *first),
                    };
                    if *seen == HEADER.len() {
                        self.state = State::Length(0);
                    }
                    bytes = rest;
                }
                State::Length(length) => {
                    match first {
                        b'0'..=b'9' => *length = *length * 10 + usize::from(first - b'0'),
                        b'\r' => {}
                        // The end of the line; the payload has one of its own.
                        _ => self.state = State::Payload(*length + 2),
                    }
                    bytes = rest;
                }
                State::Payload(left) => {
                    let (now, later) = bytes.split_at(bytes.len().min(*left));
                    let room = KEPT_BYTES - self.kept.len();
                    self.kept.extend_from_slice(&now[..now.len().min(room)]);
                    *left -= now.len();
                    if *left == 0 {
                        number(&self.kept).into_iter().for_each(&mut heard);
                        self.kept.clear();
                        self.state = State::Header(0);
                    }
                    bytes = later;
                }
            }
        }
    }
}

/// The number in the id at the start of a payload.
fn number(payload: &[u8]) -> Option<u32> {
    let digits = payload.strip_prefix(ID_START.as_bytes())?;
    let end = digits.iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}
