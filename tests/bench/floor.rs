//! The floor: a process that receives, claims and appends, without other work. And the bare subscriber, which only
//! appends. Both use plain sockets and commands written by hand, so that they measure Redis and not a client library.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;

use anyhow::{Context as _, Result, anyhow};

use crate::load::{BEFORE_ID, BEFORE_PADDING, ID_BYTES};

/// The bytes before the length of a published message.
const BEFORE_LENGTH: &[u8] = b"*3\r\n$7\r\nmessage\r\n$18\r\nmessages:published\r\n$";

/// Number of bytes in a read.
const CHUNK_BYTES: usize = 256 << 10;

/// Does the work for `messages` messages, then ends.
pub fn run(port: u16, messages: u64, claims: bool) -> Result<()> {
    let connect = || -> Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("the floor cannot connect")?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    let mut commands = connect()?;
    let mut replies = commands.try_clone()?;
    // `+OK` for a claim, and the two lines of the id of a new entry.
    let reply_lines = if claims { 3 } else { 2 };
    // Writing never waits for replies, so that Redis always has more commands to execute.
    let answered = thread::spawn(move || count_lines(&mut replies, messages * reply_lines));
    let mut published = connect()?;
    published.write_all(b"SUBSCRIBE messages:published\r\n")?;

    let mut received = Vec::with_capacity(2 * CHUNK_BYTES);
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut batch = Vec::with_capacity(4 * CHUNK_BYTES);
    let mut done = 0;
    while done < messages {
        let length = published.read(&mut chunk)?;
        if length == 0 {
            return Err(anyhow!("Redis cut the floor off after {done} messages"));
        }
        received.extend_from_slice(&chunk[..length]);
        let (found, used) = append_commands(&received, claims, &mut batch);
        received.drain(..used);
        done += found;
        commands.write_all(&batch)?;
        batch.clear();
    }
    answered.join().map_err(|_| anyhow!("the floor's reader ended"))?
}

/// Writes the commands for every complete message in `received`. Returns the numbers of messages and of consumed bytes.
fn append_commands(received: &[u8], claims: bool, batch: &mut Vec<u8>) -> (u64, usize) {
    let (mut found, mut at) = (0, 0);
    loop {
        let rest = &received[at..];
        if !rest.starts_with(BEFORE_LENGTH) {
            // The reply to SUBSCRIBE comes first; it is complete when other bytes follow.
            match rest.windows(BEFORE_LENGTH.len()).position(|window| window == BEFORE_LENGTH) {
                Some(skipped) => at += skipped,
                None => return (found, at),
            }
            continue;
        }
        let Some((message, used)) = message(rest) else { return (found, at) };
        append(message, claims, batch);
        found += 1;
        at += used;
    }
}

/// The first message in `received` and the position of the next one; `None` if the message is not complete.
fn message(received: &[u8]) -> Option<(&[u8], usize)> {
    let digits = &received[BEFORE_LENGTH.len()..];
    let line = digits.iter().take(12).position(|byte| *byte == b'\r')?;
    let length: usize = std::str::from_utf8(&digits[..line]).ok()?.parse().ok()?;
    let start = BEFORE_LENGTH.len() + line + 2;
    // Including the end of the line.
    let end = start + length + 2;
    Some((received.get(start..end)?.strip_suffix(b"\r\n")?, end))
}

fn append(message: &[u8], claims: bool, batch: &mut Vec<u8>) {
    let id = &message[BEFORE_ID.len()..BEFORE_ID.len() + ID_BYTES];
    if claims {
        batch.extend_from_slice(b"*6\r\n$3\r\nSET\r\n$63\r\n{messages:processed}:claim:");
        batch.extend_from_slice(id);
        batch.extend_from_slice(b"\r\n$15\r\n1700000000000-0\r\n$2\r\nNX\r\n$2\r\nPX\r\n$6\r\n300000\r\n");
    }
    let padding = message.get(BEFORE_ID.len() + ID_BYTES + BEFORE_PADDING.len()..message.len() - 2);
    let values: &[u8] = if padding.is_some() { b"*11" } else { b"*9" };
    batch.extend_from_slice(values);
    batch.extend_from_slice(b"\r\n$4\r\nXADD\r\n$18\r\nmessages:processed\r\n$1\r\n*\r\n$10\r\nmessage_id\r\n$36\r\n");
    batch.extend_from_slice(id);
    batch.extend_from_slice(b"\r\n$11\r\nconsumer_id\r\n$18\r\nfloor-1-00000000-1\r\n");
    if let Some(padding) = padding {
        batch.extend_from_slice(format!("$7\r\npadding\r\n${}\r\n", padding.len()).as_bytes());
        batch.extend_from_slice(padding);
        batch.extend_from_slice(b"\r\n");
    }
    batch.extend_from_slice(b"$15\r\nrandom_property\r\n$16\r\n0123456789abcdef\r\n");
}

/// Reads until this number of lines has arrived. Their effect is visible in the output stream.
fn count_lines(replies: &mut TcpStream, wanted: u64) -> Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut lines = 0;
    while lines < wanted {
        let length = replies.read(&mut chunk)?;
        if length == 0 {
            return Err(anyhow!("Redis closed the floor's connection"));
        }
        lines += chunk[..length].iter().filter(|byte| **byte == b'\n').count() as u64;
    }
    Ok(())
}
