//! Log lines on standard error, as text or JSON.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};
use crate::output;
use crate::printable::is_hidden;

/// Starts logging for the rest of the process.
pub(super) fn start(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log_level).context("cannot use the log level")?;
    let (with_colours, format) = (colours(&io::stderr()), config.log_format);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Escaping { inner: output::stderr(), with_colours, format })
        .with_ansi(with_colours)
        // A report of a failed write would go to the same standard error, and block or panic.
        .log_internal_errors(false);
    let started = match config.log_format {
        LogFormat::Text => subscriber.with_target(false).try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}

/// Whether text on this stream should have colours.
pub(super) fn colours(stream: &impl IsTerminal) -> bool {
    // https://no-color.org: set and not empty
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !no_color
}

/// Writes each line of the log as one line, whatever texts from outside are in it: names from Redis, errors of other programs.
struct Escaping<W> {
    inner: W,
    /// Then ESC begins a colour. The library escapes it in all texts.
    with_colours: bool,
    format: LogFormat,
}

impl<W: Write> Write for Escaping<W> {
    /// The library writes a whole line at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let shown = |byte: &u8| matches!(byte, b' '..=b'~');
        let text = match line.split_last() {
            Some((b'\n', text)) if !text.iter().all(shown) => String::from_utf8_lossy(text),
            _ => return self.inner.write_all(line).map(|()| line.len()),
        };
        let mut escaped = String::with_capacity(text.len() + 16);
        for c in text.chars() {
            match self.format {
                _ if !is_hidden(c) || (self.with_colours && c == '\u{1b}') => escaped.push(c),
                LogFormat::Text => escaped.extend(c.escape_default()),
                // All of them have four digits. Writing to a string cannot fail.
                LogFormat::Json => write!(escaped, "\\u{:04x}", u32::from(c)).unwrap_or_default(),
            }
        }
        escaped.push('\n');
        self.inner.write_all(escaped.as_bytes()).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(line: &str, with_colours: bool, format: LogFormat) -> String {
        let mut writer = Escaping { inner: Vec::new(), with_colours, format };
        writer.write_all(line.as_bytes()).unwrap();
        String::from_utf8(writer.inner).unwrap()
    }

    #[test]
    fn a_line_of_the_log_is_one_line_and_acts_on_no_terminal() {
        let line = "WARN a host \u{1b}[31mred\nWARN forged\r\u{9b}2J \u{202e}\u{2028}é\n";
        let escaped = "WARN a host \\u{1b}[31mred\\nWARN forged\\r\\u{9b}2J \\u{202e}\\u{2028}é\n";
        assert_eq!(written(line, false, LogFormat::Text), escaped);
        assert_eq!(written(line, true, LogFormat::Text), escaped.replace("\\u{1b}", "\u{1b}"));
        assert_eq!(written("plain\n", false, LogFormat::Text), "plain\n");
        assert_eq!(written("é\n", false, LogFormat::Text), "é\n");
    }

    #[test]
    fn a_line_of_json_stays_json() {
        let line = "{\"message\":\"\u{9b}2J \u{202e}\u{2028}é\"}\n";
        let escaped = written(line, false, LogFormat::Json);
        assert_eq!(escaped, "{\"message\":\"\\u009b2J \\u202e\\u2028é\"}\n");
        let [one, other]: [serde_json::Value; 2] = [line, &escaped].map(|line| serde_json::from_str(line).unwrap());
        assert_eq!(one, other);
    }
}
