//! What the screen shows: the last state of the group, its recent history, and what the user has chosen. This file draws
//! nothing.

use std::collections::VecDeque;
use std::time::Instant;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::Looked;
use super::rows::{self, Table};
use crate::observe::status::GroupStatus;

/// Points of a history: as many columns as a wide terminal has.
const HISTORY_MAX: usize = 512;

/// Rows that a page key moves.
const PAGE_ROWS: usize = 10;

/// A view of the lower part of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Hosts,
    Consumers,
    Versions,
    DeadLetters,
    Outputs,
}

impl View {
    /// All views, in the order of their numbers.
    pub(super) const ALL: [View; 5] = [View::Hosts, View::Consumers, View::Versions, View::DeadLetters, View::Outputs];

    pub(super) fn name(self) -> &'static str {
        match self {
            View::Hosts => "Hosts",
            View::Consumers => "Consumers",
            View::Versions => "Versions",
            View::DeadLetters => "Dead letters",
            View::Outputs => "Outputs",
        }
    }
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// To go on.
    Continue,
    /// The end of the command.
    End,
}

/// Order of a view's rows.
#[derive(Clone, Copy, Debug, Default)]
struct Order {
    column: usize,
    is_reversed: bool,
}

/// Everything that is shown.
#[derive(Debug)]
pub(super) struct Screen {
    /// The last state.
    pub(super) status: Option<Box<GroupStatus>>,
    /// Why there is no newer state, and since when.
    pub(super) trouble: Option<(String, Instant)>,
    /// Messages a second, and deliveries in the inbox: the newest first.
    pub(super) rates: VecDeque<u64>,
    pub(super) inboxes: VecDeque<u64>,
    /// Dead letters when the command began.
    dead_at_first: u64,
    pub(super) view: View,
    orders: [Order; View::ALL.len()],
    /// Rows above the first one that is shown.
    scrolled: usize,
    pub(super) is_help_open: bool,
}

impl Screen {
    pub(super) fn new() -> Screen {
        Screen {
            status: None,
            trouble: None,
            rates: VecDeque::new(),
            inboxes: VecDeque::new(),
            dead_at_first: 0,
            view: View::Hosts,
            orders: [Order::default(); View::ALL.len()],
            scrolled: 0,
            is_help_open: false,
        }
    }

    /// Takes the outcome of a look.
    pub(super) fn looked(&mut self, looked: Looked) {
        match looked {
            Ok(status) => {
                if self.status.is_none() {
                    self.dead_at_first = status.dead_letters.length;
                }
                let rate = status.totals.messages_per_second.unwrap_or(0.0).round();
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is not negative")]
                push(&mut self.rates, rate as u64);
                push(&mut self.inboxes, status.inbox.length);
                self.status = Some(status);
                self.trouble = None;
            }
            Err(error) => {
                let since = self.trouble.take().map_or_else(Instant::now, |(_, since)| since);
                self.trouble = Some((error, since));
            }
        }
    }

    /// Dead letters that came since the command began.
    pub(super) fn new_dead_letters(&self) -> u64 {
        let length = self.status.as_ref().map_or(0, |status| status.dead_letters.length);
        length.saturating_sub(self.dead_at_first)
    }

    /// Does what a key asks for.
    pub(super) fn key(&mut self, key: KeyEvent) -> Input {
        if key.kind == KeyEventKind::Release {
            return Input::Continue;
        }
        let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'd') if with_control => return Input::End,
            KeyCode::Char('q') => return Input::End,
            KeyCode::Esc if !self.is_help_open => return Input::End,
            KeyCode::Esc => self.is_help_open = false,
            KeyCode::Char('?') => self.is_help_open = !self.is_help_open,
            KeyCode::Tab | KeyCode::Right => self.show(self.place() + 1),
            KeyCode::BackTab | KeyCode::Left => self.show(self.place() + View::ALL.len() - 1),
            KeyCode::Char(digit @ '1'..='5') => self.show(digit as usize - '1' as usize),
            KeyCode::Down => self.scrolled += 1,
            KeyCode::Up => self.scrolled = self.scrolled.saturating_sub(1),
            KeyCode::PageDown => self.scrolled += PAGE_ROWS,
            KeyCode::PageUp => self.scrolled = self.scrolled.saturating_sub(PAGE_ROWS),
            KeyCode::Home => self.scrolled = 0,
            KeyCode::Char('s') => {
                let columns = rows::sortable(self.view);
                let order = &mut self.orders[self.view as usize];
                order.column = (order.column + 1) % columns.max(1);
            }
            KeyCode::Char('r') => {
                let order = &mut self.orders[self.view as usize];
                order.is_reversed = !order.is_reversed;
            }
            _ => {}
        }
        Input::Continue
    }

    fn place(&self) -> usize {
        self.view as usize
    }

    fn show(&mut self, place: usize) {
        self.view = View::ALL[place % View::ALL.len()];
        self.scrolled = 0;
    }

    /// The rows of the view that are shown, sorted, when there is room for this number of rows.
    pub(super) fn table(&mut self, room: usize, is_wide: bool) -> Table {
        let Some(status) = &self.status else { return Table::default() };
        let Order { column, is_reversed } = self.orders[self.view as usize];
        let mut table = rows::table(status, self.view, is_wide);
        table.sort(column, is_reversed);
        // A list that became shorter must not leave an empty view.
        self.scrolled = self.scrolled.min(table.rows.len().saturating_sub(room));
        table.above = self.scrolled;
        table.rows.drain(..self.scrolled);
        table.below = table.rows.len().saturating_sub(room);
        table.rows.truncate(room);
        table
    }
}

fn push(history: &mut VecDeque<u64>, value: u64) {
    history.push_front(value);
    history.truncate(HISTORY_MAX);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(screen: &mut Screen, code: KeyCode) -> Input {
        screen.key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn keys_change_the_view_and_end_the_command() {
        let mut screen = Screen::new();
        for view in [View::Consumers, View::Versions, View::DeadLetters, View::Outputs, View::Hosts] {
            assert_eq!(typed(&mut screen, KeyCode::Tab), Input::Continue);
            assert_eq!(screen.view, view);
        }
        typed(&mut screen, KeyCode::Left);
        assert_eq!(screen.view, View::Outputs);
        typed(&mut screen, KeyCode::Char('2'));
        assert_eq!(screen.view, View::Consumers);
        typed(&mut screen, KeyCode::Char('?'));
        assert_eq!((typed(&mut screen, KeyCode::Esc), screen.is_help_open), (Input::Continue, false));
        assert_eq!(typed(&mut screen, KeyCode::Esc), Input::End);
        assert_eq!(screen.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Input::End);
    }

    #[test]
    fn an_error_keeps_the_time_at_which_the_trouble_began() {
        let mut screen = Screen::new();
        screen.looked(Err("one".to_owned()));
        let since = screen.trouble.as_ref().map(|(_, since)| *since);
        screen.looked(Err("another".to_owned()));
        let (text, at) = screen.trouble.expect("trouble");
        assert_eq!((text.as_str(), Some(at)), ("another", since));
    }
}
