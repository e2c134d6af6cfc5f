//! Attempts at forbidden and at permitted actions.

use std::collections::hash_map::RandomState;
use std::fmt::Display;
use std::hash::BuildHasher;
use std::io::Read;
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::process::Command;
use std::time::SystemTime;
use std::{env, fs};

use crate::wasi::clocks::monotonic_clock::{subscribe_duration, subscribe_instant};
use crate::wasi::io::poll::{Pollable, poll};
use crate::wasi::logging::logging::{Level, log};
use crate::wasi::random::random::get_random_bytes;

/// Tries the action: `Ok` with the answer if it worked, else `Err`.
pub fn attempt(what: &str, target: &str) -> Result<String, String> {
    match what {
        "read-file" => told(fs::read_to_string(target)),
        "write-file" => told(fs::write(target, "written by a plugin").map(|()| "written")),
        "list-folder" => told(fs::read_dir(target).map(|entries| entries.count())),
        "delete-file" => told(fs::remove_file(target).map(|()| "deleted")),
        "environment" => some(env::vars().map(|(name, value)| format!("{name}={value}")).collect()),
        "arguments" => some(env::args().collect()),
        "stdin" => {
            let mut input = String::new();
            told(std::io::stdin().read_to_string(&mut input))?;
            some(input.lines().map(str::to_owned).collect())
        }
        "tcp" => told(TcpStream::connect(target).map(|_| "connected")),
        "tcp-listen" => told(TcpListener::bind("127.0.0.1:0").map(|_| "bound")),
        "udp" => told(UdpSocket::bind("127.0.0.1:0").map(|_| "bound")),
        "lookup" => told((target, 80).to_socket_addrs().map(|addresses| addresses.count())),
        "spawn" => told(Command::new(target).status()),
        "clock" => told(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map(|time| time.as_secs())),
        "random" => Ok(RandomState::new().hash_one(0).to_string()),
        "random-bytes" => Ok(get_random_bytes(count(target)).len().to_string()),
        "poll-nothing" => Ok(poll(&[]).len().to_string()),
        "poll-many" => {
            let ready: Vec<Pollable> = (0..count(target)).map(|_| subscribe_duration(0)).collect();
            Ok(poll(&ready.iter().collect::<Vec<_>>()).len().to_string())
        }
        "poll-for-ever" => {
            let never = subscribe_duration(u64::MAX);
            Ok(poll(&vec![&never; usize::try_from(count(target)).unwrap_or(0)]).len().to_string())
        }
        "subscribe-for-ever" => {
            subscribe_instant(u64::MAX).block();
            Ok("it is over".to_owned())
        }
        "log-long" => {
            log(Level::Warn, "long", &"x".repeat(usize::try_from(count(target)).unwrap_or(0)));
            Ok("logged".to_owned())
        }
        unknown => Err(format!("the puppet cannot try {unknown:?}")),
    }
}

fn count(target: &str) -> u64 {
    target.parse().unwrap_or(0)
}

fn told<T: Display, E: Display>(result: Result<T, E>) -> Result<String, String> {
    result.map(|value| value.to_string()).map_err(|error| error.to_string())
}

fn some(found: Vec<String>) -> Result<String, String> {
    if found.is_empty() { Err("there is nothing".to_owned()) } else { Ok(found.join(" ")) }
}
