//! Draws the screen. Every meaning of a colour is also a word.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Clear, Paragraph, RenderDirection, Row, Sparkline, Table as Grid};

use super::rows::Table;
use super::screen::{Screen, View};
use crate::cli::status::{dead_letters, retries};
use crate::cli::text::{age, cut, grouped, line, rate, size};
use crate::observe::status::GroupStatus;

/// Height from which on there is room for the charts, and width from which on a host's plugin is beside it.
const CHARTS_ROWS_MIN: u16 = 18;
const WIDE_COLUMNS_MIN: u16 = 112;

/// Rows of the charts, of the figures below them, and of everything else but the table's rows.
const CHART_ROWS: u16 = 5;
const FIGURE_ROWS: u16 = 4;

const HELP: &str = "\
Tab, →, ←   next view, previous view
1 to 5      a view by its number
↑, ↓        scroll; PgUp, PgDn, Home
s           sort by the next column
r           reverse the order
?           close this help
q, Ctrl-C   end

Rates are those that the hosts announce with their
heartbeats. BEAT is the age of the last heartbeat, LAG
the number of messages heard and not yet in the inbox,
- what an older version of host does not announce.";

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &mut Screen, with_colours: bool) {
    let area = frame.area();
    let theme = Theme { with_colours };
    let charts = if area.height >= CHARTS_ROWS_MIN { CHART_ROWS } else { 0 };
    let parts = [
        Constraint::Length(1),
        Constraint::Length(charts),
        Constraint::Length(FIGURE_ROWS),
        Constraint::Length(1),
        Constraint::Min(2),
        Constraint::Length(1),
    ];
    let [head, charted, figured, tabs, table, foot] = Layout::vertical(parts).areas(area);
    frame.render_widget(headline(screen, theme, head.width), head);
    if charts > 0 {
        draw_charts(frame, screen, theme, charted);
    }
    if let Some(status) = &screen.status {
        frame.render_widget(Paragraph::new(figures(status, screen, theme)), figured);
    }
    frame.render_widget(tab_line(screen, theme), tabs);
    draw_table(frame, screen, theme, table);
    let keys = " q end   Tab view   s sort   r reverse   ↑↓ scroll   ? help";
    frame.render_widget(Paragraph::new(keys).style(theme.dim()), foot);
    if screen.is_help_open {
        draw_help(frame, area);
    }
}

/// Styles, without colours where none are wanted.
#[derive(Clone, Copy)]
struct Theme {
    with_colours: bool,
}

impl Theme {
    fn colour(self, colour: Color) -> Style {
        if self.with_colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn dim(self) -> Style {
        if self.with_colours { Style::new().add_modifier(Modifier::DIM) } else { Style::new() }
    }

    fn good(self) -> Style {
        self.colour(Color::Green)
    }

    fn bad(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn warning(self) -> Style {
        self.colour(Color::Yellow)
    }
}

/// The group, how it is, and the time of the figures.
fn headline(screen: &Screen, theme: Theme, width: u16) -> Paragraph<'static> {
    let Some(status) = &screen.status else { return Paragraph::new("") };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let (word, style) = match (&screen.trouble, status.healthy) {
        (Some(_), _) => ("NO ANSWER", theme.bad()),
        (None, true) => ("healthy", theme.good()),
        (None, false) => ("NOT WORKING", theme.bad()),
    };
    let time = status.timestamp.get(11..19).unwrap_or_default().to_owned();
    let several = |count: u64, name: &str| format!("{} {name}{}", grouped(count), if count == 1 { "" } else { "s" });
    let hosts = format!("{}, {}  ", several(status.totals.hosts, "host"), several(status.totals.consumers, "consumer"));
    let room = usize::from(width).saturating_sub(hosts.len() + time.len() + word.len() + 8);
    let group = cut(line(status.group.output.as_bytes()), room.max(12));
    Paragraph::new(Line::from(vec![
        Span::styled(format!(" {group}  "), bold),
        Span::raw(hosts),
        Span::styled(word, style),
        Span::raw(format!("  {time}")),
    ]))
}

fn draw_charts(frame: &mut Frame<'_>, screen: &Screen, theme: Theme, area: Rect) {
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(area);
    let Some(status) = &screen.status else { return };
    let now = status.totals.messages_per_second.map_or_else(|| "-".to_owned(), rate);
    let peak = |history: &std::collections::VecDeque<u64>| grouped(history.iter().max().copied().unwrap_or(0));
    let title = format!(" messages/s {now}  peak {} ", peak(&screen.rates));
    let oldest = status.inbox.oldest_age_ms.map(|ms| format!(", oldest {}", age(ms))).unwrap_or_default();
    let waits = format!(" inbox {}{oldest}  peak {} ", grouped(status.inbox.length), peak(&screen.inboxes));
    for (area, title, history, style) in
        [(left, title, &screen.rates, theme.colour(Color::Cyan)), (right, waits, &screen.inboxes, theme.warning())]
    {
        let chart = Sparkline::default()
            .block(Block::bordered().title(title))
            .data(history.iter().copied())
            .direction(RenderDirection::RightToLeft)
            .style(style);
        frame.render_widget(chart, area);
    }
}

/// The figures of the whole group, and what is wrong.
fn figures(status: &GroupStatus, screen: &Screen, theme: Theme) -> Vec<Line<'static>> {
    let known = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), grouped);
    let totals = &status.totals;
    let gaps = match (totals.gaps, totals.gap_ms) {
        (Some(gaps @ 1..), Some(ms)) => format!("{} ({})", grouped(gaps), age(ms)),
        (gaps, _) => known(gaps),
    };
    let memory = match status.redis.memory_bytes_max {
        0 => size(status.redis.memory_bytes),
        limit => format!("{} of {}", size(status.redis.memory_bytes), size(limit)),
    };
    let inbox = &status.inbox;
    let work = format!(
        " in progress {}   waiting {}   position lag {}   shed {}   gaps {gaps}",
        grouped(inbox.in_progress),
        grouped(inbox.waiting),
        known(totals.position_lag),
        known(totals.shed),
    );
    let new = screen.new_dead_letters();
    let new = if new > 0 { format!(" (+{})", grouped(new)) } else { String::new() };
    let letters = cut(dead_letters(&status.dead_letters), 60);
    let letters = Line::from(vec![
        Span::raw(" dead letters "),
        Span::styled(letters, if status.dead_letters.length > 0 { theme.warning() } else { Style::new() }),
        Span::raw(new),
    ]);
    let retries = format!(" retries {}   Redis memory {memory}", retries(&status.retries));
    vec![Line::from(work), Line::from(retries), letters, finding(status, screen, theme)]
}

/// The most important thing that is wrong.
fn finding(status: &GroupStatus, screen: &Screen, theme: Theme) -> Line<'static> {
    if let Some((error, since)) = &screen.trouble {
        let text = format!(" Redis: {}; the figures are {} s old", line(error.as_bytes()), since.elapsed().as_secs());
        return Line::styled(text, theme.bad());
    }
    let problem = status.problems.first().map(|problem| (problem, " problem: ", theme.bad()));
    let warning = status.warnings.first().map(|warning| (warning, " warning: ", theme.warning()));
    match problem.or(warning) {
        Some((finding, word, style)) => Line::styled(format!("{word}{}", line(finding.text.as_bytes())), style),
        None => Line::default(),
    }
}

fn tab_line(screen: &Screen, theme: Theme) -> Paragraph<'static> {
    let mut spans = vec![Span::raw(" ")];
    for (at, view) in View::ALL.into_iter().enumerate() {
        let is_shown = view == screen.view;
        let name = format!("{} {}", at + 1, view.name());
        let (text, style) = match is_shown {
            true => (format!("[{name}]"), Style::new().add_modifier(Modifier::BOLD)),
            false => (format!(" {name} "), theme.dim()),
        };
        spans.extend([Span::styled(text, style), Span::raw(" ")]);
    }
    Paragraph::new(Line::from(spans))
}

fn draw_table(frame: &mut Frame<'_>, screen: &mut Screen, theme: Theme, area: Rect) {
    // One row for the names of the columns.
    let room = usize::from(area.height.saturating_sub(1));
    let table = screen.table(room, area.width >= WIDE_COLUMNS_MIN);
    if table.rows.is_empty() {
        let nothing = match screen.view {
            View::DeadLetters => " there are no dead letters",
            _ => " no host is alive",
        };
        frame.render_widget(Paragraph::new(nothing).style(theme.dim()), area);
        return;
    }
    let rest = rest_columns(&table, area.width);
    let widths = table.columns.iter().map(|column| match column.width {
        0 => Constraint::Fill(1),
        width => Constraint::Length(width),
    });
    let cell = |at: usize, text: String| {
        let column = table.columns[at];
        let room = if column.width == 0 { rest } else { usize::from(column.width) };
        let text = Text::raw(cut(text, room.max(2)));
        if column.is_number { text.right_aligned() } else { text }
    };
    let mark = if table.is_reversed { "^" } else { "*" };
    let names = table.columns.iter().enumerate().map(|(at, column)| {
        let mark = if at == table.sorted { mark } else { "" };
        cell(at, format!("{}{mark}", column.name))
    });
    let rows =
        table.rows.iter().map(|row| Row::new(row.iter().enumerate().map(|(at, (text, _))| cell(at, text.clone()))));
    let head = Row::new(names).style(Style::new().add_modifier(Modifier::BOLD));
    let [margin, inner] = Layout::horizontal([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    frame.render_widget(Grid::new(rows, widths).header(head).column_spacing(1), inner);
    if table.above > 0 {
        frame.render_widget(Paragraph::new("↑"), Rect { height: 1.min(margin.height), ..margin });
    }
    if table.below > 0 {
        let last = margin.bottom().saturating_sub(1);
        frame.render_widget(Paragraph::new("↓"), Rect { y: last, height: 1.min(margin.height), ..margin });
    }
}

/// Room for the column that takes what the others leave.
fn rest_columns(table: &Table, width: u16) -> usize {
    let others: u16 = table.columns.iter().map(|column| column.width + 1).sum();
    usize::from(width.saturating_sub(others))
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let (width, height) = (58.min(area.width), 14.min(area.height));
    let place = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(HELP).block(Block::bordered().title(" host top ")), place);
}
