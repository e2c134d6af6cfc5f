//! What goes wrong between two steps of the world.

use super::*;

/// How old the state may be from which Redis restarts: not older than what hosts keep.
const OLDER_MS_MAX: u64 = 7_000;

/// Time after which a host that is paused counts as dead, and until it has learnt that.
const HEARTBEAT_TTL_MS: u64 = 7_000;
const HEARTBEAT_MS: u64 = 250;

const FAULTS: [&str; 13] = [
    "killed",
    "another one joins",
    "its subscriptions are cut",
    "its connection is cut",
    "everything of it is cut",
    "paused",
    "its subscriptions are silent",
    "Redis stalls",
    "Redis is full",
    "Redis restarts",
    "Redis restarts from an older state",
    "a replica that lags is promoted",
    "told to stop",
];

/// The one after which the position of every message can be counted.
const JOIN: usize = 1;

impl World {
    pub(super) fn cut_writes(&mut self, index: usize) {
        let now_ms = self.now_ms;
        let is_late = self.random.random_ratio(1, 3);
        let late = now_ms + self.random.random_range(0..15_000);
        // What has been sent is lost, or is executed at some time.
        if is_late {
            for sent in self.sent.iter_mut().filter(|sent| sent.host == index) {
                sent.execute_at = late;
            }
        } else if self.random.random_ratio(1, 2) {
            self.sent.retain(|sent| sent.host != index);
        }
        let host = &mut self.hosts[index];
        host.connected = false;
        host.protocol.disconnected();
    }

    fn cut_streams(&mut self, index: usize) {
        let now = self.now();
        let host = &mut self.hosts[index];
        for stream in host.streams.drain(..) {
            host.protocol.closed(stream.id, now);
        }
    }

    pub(super) fn fault(&mut self) {
        if !self.random.random_ratio(1, 40) {
            return;
        }
        let living: Vec<usize> = (0..self.hosts.len())
            .filter(|index| self.hosts[*index].is_alive && !self.hosts[*index].is_told_to_stop)
            .collect();
        let Some(index) = living.get(self.random.random_range(0..living.len().max(1))).copied() else {
            self.join();
            return;
        };
        let now_ms = self.now_ms;
        let kind = if self.has_only_joins { JOIN } else { self.random.random_range(0..FAULTS.len()) };
        let at = Duration::from_millis(now_ms - 1_000_000);
        self.story.push(format!("{at:?}, message {}, host {index}: {}", self.next_id, FAULTS[kind]));
        match kind {
            0 if living.len() > 1 => self.hosts[index].is_alive = false,
            JOIN if self.hosts.len() < 8 => self.join(),
            2 => self.cut_streams(index),
            3 => self.cut_writes(index),
            4 => {
                self.cut_streams(index);
                self.cut_writes(index);
                let later = now_ms + self.random.random_range(0..4_000);
                self.hosts[index].opening_at = Some(later);
            }
            5 => {
                let pauses = [200, 1_500, 4_000, 9_000, 20_000];
                let pause = pauses[self.random.random_range(0..pauses.len())];
                self.hosts[index].paused_until = now_ms + pause;
                if pause > HEARTBEAT_TTL_MS {
                    self.hosts[index].renamed_at = Some(now_ms + pause + HEARTBEAT_MS);
                }
            }
            6 => {
                let silent_until = now_ms + self.random.random_range(500..12_000);
                for stream in &mut self.hosts[index].streams {
                    stream.silent_until = silent_until;
                }
            }
            7 => self.redis.stalled_until = now_ms + self.random.random_range(500..8_000),
            8 => self.redis.full_until = now_ms + self.random.random_range(500..12_000),
            9 => self.restart(false),
            10 => self.restart(true),
            11 => self.fail_over(),
            12 if living.len() > 1 => {
                self.hosts[index].stopping = true;
                self.hosts[index].is_told_to_stop = true;
            }
            _ => {}
        }
    }

    /// Redis goes away and comes back, with all of its data or with an older state of it.
    fn restart(&mut self, is_older: bool) {
        if is_older {
            self.go_back();
        }
        self.redis.identity += 1;
        self.redis.away_until = self.now_ms + [300, 3_000, 12_000][self.random.random_range(0..3)];
        self.redis.logs.push(Vec::new());
        for index in 0..self.hosts.len() {
            if self.hosts[index].paused_until <= self.now_ms {
                self.cut_streams(index);
                self.cut_writes(index);
            } else {
                // It finds out when it wakes; what has arrived in its sockets is still there.
                self.hosts[index].connected = false;
                self.hosts[index].protocol.disconnected();
            }
        }
        self.sent.clear();
    }

    /// The replica, which lags, is promoted. Subscriptions at it go on. Those at the old server stay there, are cut, or go on once
    /// the old server has become a replica.
    fn fail_over(&mut self) {
        let Some(Snapshot { events, data, .. }) = self.redis.replica(self.now_ms).cloned() else { return };
        self.redis.data = data;
        self.redis.older.clear();
        self.redis.identity += 1;
        let log = self.redis.log()[..events].to_vec();
        self.redis.logs.push(log);
        let promoted = self.redis.logs.len() - 1;
        let now = self.now();
        let stay = self.random.random_ratio(1, 2);
        let demoted_at = self.random.random_ratio(1, 2).then(|| self.now_ms + self.random.random_range(0..2_000));
        for index in 0..self.hosts.len() {
            let host = &mut self.hosts[index];
            let mut cut = Vec::new();
            for stream in &mut host.streams {
                if std::mem::take(&mut stream.at_replica) && stream.log + 1 == promoted {
                    stream.log = promoted;
                } else if stay && stream.log + 1 == promoted {
                    stream.demoted_at = demoted_at;
                } else if !stay {
                    cut.push(stream.id);
                }
            }
            host.streams.retain(|stream| !cut.contains(&stream.id));
            cut.into_iter().for_each(|id| host.protocol.closed(id, now));
            self.cut_writes(index);
        }
        self.sent.clear();
    }

    fn go_back(&mut self) {
        // Not older than what hosts keep; and what was written since is in no older state any more.
        self.redis.older.retain(|(at_ms, _)| self.now_ms - at_ms < OLDER_MS_MAX);
        let chosen = self.random.random_range(0..self.redis.older.len().max(1));
        if let Some((_, older)) = self.redis.older.get(chosen) {
            self.redis.data = older.data.clone();
        }
        self.redis.older.clear();
    }

    pub(super) fn heal(&mut self) {
        for host in &mut self.hosts {
            host.paused_until = 0;
            for stream in &mut host.streams {
                stream.silent_until = 0;
            }
        }
        let redis = &mut self.redis;
        (redis.stalled_until, redis.away_until, redis.full_until) = (0, 0, 0);
        if self.hosts.iter().all(|host| !host.is_alive || host.is_told_to_stop) {
            self.join();
        }
    }
}
