//! `host top`: the state of a group on a screen that follows it. This file runs the screen: what is asked from Redis, what is
//! typed, and how the terminal is left behind. `screen` keeps what is shown, `view` draws it.

mod rows;
mod screen;
mod view;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use self::screen::{Input, Screen};
use super::observed::{GroupArgs, Observed, unreadable};
use super::{Exit, Failure, Flags, log};
use crate::observe::Observer;
use crate::observe::status::GroupStatus;

/// Longest wait for an answer of Redis before the screen says that there is none.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// Arguments of `host top`.
#[derive(Args, Debug)]
#[command(long_about = "\
Watch a group on the terminal: rates, hosts, consumers, plugin versions, inbox, retries, dead letters and outputs.

The command reads Redis only, over one connection, and changes nothing. It needs no HTTP listener and no plugin. The settings \
for Redis and the keys are those of a host: flags before `top`, environment variables, configuration file. The screen is \
complete on 80 columns and 24 lines, and readable without colours (NO_COLOR).")]
#[command(after_long_help = "\
Keys:
  Tab, →, ←, 1 to 5      next view, previous view, a view by its number
  ↑, ↓, PgUp, PgDn, Home  scroll
  s, r                    sort by the next column; reverse the order
  ?                       help
  q, Esc, Ctrl-C          end

Examples:
  host top
      The group with the default names on the Redis of this machine.
  host --config host.toml top --interval 500ms
      The group of the hosts with this configuration file, twice a second.

The rates are those that the hosts announce with their heartbeats, every 2 s by default.")]
pub(super) struct TopArgs {
    #[command(flatten)]
    group: GroupArgs,

    /// Time between two looks at Redis, from 100ms to 1h
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&interval) {
        true => Ok(interval),
        false => Err("it must be from 100ms to 1h".to_owned()),
    }
}

/// What a look has brought, or why it has brought nothing.
type Looked = Result<Box<GroupStatus>, String>;

/// Runs `host top`.
pub(super) fn execute(before: Flags, args: TopArgs) -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        let error = anyhow!("`host top` needs a terminal; `host status` prints the same once");
        return Err(Failure { exit: Exit::Usage, error });
    }
    let Observed { config, connector, keys } = args.group.find(before)?;
    let mut observer = Observer::new(connector.clone(), keys, &config.outputs);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        // An error is readable only before the screen is there.
        let first = observer.look().await.map_err(|error| unreadable(observer.address(), &error))?;
        let mut screen = Screen::new();
        screen.looked(Ok(Box::new(first)));
        let ends = ends()?;
        let mut terminal = Restored::enter()?;
        tokio::select! {
            ended = watch(&mut terminal.0, screen, observer, args.interval, ends) => ended,
            () = connector.follow() => Ok(()),
        }
    });
    runtime.shutdown_background();
    result
}

/// The terminal; given back to the user as it was, however the command ends. ratatui's own hook does the same at a panic.
struct Restored(DefaultTerminal);

impl Restored {
    fn enter() -> Result<Restored, Failure> {
        let terminal = ratatui::try_init().context("cannot use the terminal")?;
        Ok(Restored(terminal))
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        // If the terminal is gone, there is nobody to give it back to.
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}

/// Resolves at a signal that ends the process. Ctrl-C on this terminal is a key, not a signal.
fn ends() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// Shows the group until a key or a signal ends it.
async fn watch(
    terminal: &mut DefaultTerminal,
    mut screen: Screen,
    observer: Observer,
    interval: Duration,
    ends: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let mut looks = look_again_and_again(observer, interval);
    let mut keys = typed();
    let mut ends = std::pin::pin!(ends);
    let with_colours = log::colours(&io::stdout());
    loop {
        terminal.draw(|frame| view::draw(frame, &mut screen, with_colours)).context("cannot draw on the terminal")?;
        tokio::select! {
            Some(looked) = looks.recv() => screen.looked(looked),
            typed = keys.recv() => match typed {
                Some(Event::Key(key)) if screen.key(key) == Input::End => return Ok(()),
                // A resize is drawn like everything else.
                Some(_) => {}
                // The terminal is gone.
                None => return Ok(()),
            },
            () = &mut ends => return Ok(()),
        }
    }
}

/// Looks at the group for ever, apart from the screen, so that a key is answered while Redis is not.
fn look_again_and_again(mut observer: Observer, interval: Duration) -> mpsc::Receiver<Looked> {
    let (sender, looks) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await; // the first is immediate, and the group has just been looked at
        loop {
            ticks.tick().await;
            let looked = match tokio::time::timeout(LOOK_TIMEOUT, observer.look()).await {
                Ok(Ok(status)) => Ok(Box::new(status)),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no answer within {} s", LOOK_TIMEOUT.as_secs())),
            };
            if sender.send(looked).await.is_err() {
                return;
            }
        }
    });
    looks
}

/// What is typed, and changes of the terminal's size. The thread that reads them ends with the process.
fn typed() -> mpsc::Receiver<Event> {
    let (sender, typed) = mpsc::channel(16);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    typed
}
