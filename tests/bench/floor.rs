//! The floor: a process that receives, claims and appends, and does no work between.
//! Plain sockets and hand-written commands, so that it measures Redis and not a client library.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;

use anyhow::{Context as _, Result, anyhow};

/// What a published message looks like on the wire, up to its id.
const BEFORE_ID: &[u8] = b"{\"message_id\":\"";

/// Length of an id.
const ID_BYTES: usize = 36;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// `+OK`, then the two lines of a new entry's id.
const REPLY_LINES: u64 = 3;

/// Does what is to be done for `messages` messages, then ends.
pub fn run(port: u16, messages: u64) -> Result<()> {
    let connect = || -> Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("the floor cannot connect")?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    let mut commands = connect()?;
    let mut replies = commands.try_clone()?;
    // Writing never waits for replies: Redis always has the next commands at hand.
    let answered = thread::spawn(move || count_lines(&mut replies, messages * REPLY_LINES));
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
        let (found, used) = append_commands(&received, &mut batch);
        received.drain(..used);
        done += found;
        commands.write_all(&batch)?;
        batch.clear();
    }
    answered.join().map_err(|_| anyhow!("the floor's reader ended"))?
}

/// Writes the commands for every message in `received`; says how many there are, and how many bytes are done with.
fn append_commands(received: &[u8], batch: &mut Vec<u8>) -> (u64, usize) {
    let (mut found, mut at) = (0, 0);
    while let Some(start) = find(&received[at..], BEFORE_ID).map(|offset| at + offset + BEFORE_ID.len()) {
        let Some(id) = received.get(start..start + ID_BYTES) else { break };
        batch.extend_from_slice(b"*6\r\n$3\r\nSET\r\n$63\r\n{messages:processed}:claim:");
        batch.extend_from_slice(id);
        batch.extend_from_slice(b"\r\n$15\r\n1700000000000-0\r\n$2\r\nNX\r\n$2\r\nPX\r\n$6\r\n300000\r\n");
        batch.extend_from_slice(
            b"*9\r\n$4\r\nXADD\r\n$18\r\nmessages:processed\r\n$1\r\n*\r\n$10\r\nmessage_id\r\n$36\r\n",
        );
        batch.extend_from_slice(id);
        batch.extend_from_slice(b"\r\n$11\r\nconsumer_id\r\n$18\r\nfloor-1-00000000-1\r\n");
        batch.extend_from_slice(b"$15\r\nrandom_property\r\n$16\r\n0123456789abcdef\r\n");
        found += 1;
        at = start + ID_BYTES;
    }
    (found, at)
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = text.iter().position(|byte| *byte == wanted[0])?;
    // Nothing else on the wire has a brace, so the first one is nearly always right.
    text[first..].windows(wanted.len()).position(|window| window == wanted).map(|offset| first + offset)
}

/// Reads until so many lines have come. What they say shows in the output stream.
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
