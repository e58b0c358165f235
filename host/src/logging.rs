//! Logs: to stderr, text or JSON, RFC 3339 in UTC; and the terminal that they share with the live lines.

pub(crate) mod format;
mod panics;

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use format::Format;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging for the whole process.
///
/// `level` is a filter such as `debug` or `info,philotes_host=debug`; without it $PHILOTES_LOG and $RUST_LOG are asked, then `info`.
///
/// # Errors
/// When the filter cannot be read.
pub fn start(format: LogFormat, level: Option<&str>) -> Result<Terminal, String> {
    let variable = || ["PHILOTES_LOG", "RUST_LOG"].into_iter().find_map(|name| std::env::var(name).ok());
    let directives = level.map(str::to_owned).or_else(variable).unwrap_or_else(|| "info".to_owned());
    let filter = EnvFilter::try_new(&directives).map_err(|error| {
        format!("log level {directives:?}: {error}; allowed: error, warn, info, debug, trace, or target=level")
    })?;
    let terminal = Terminal::stderr(format);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(terminal.clone())
        .fmt_fields(format::span_fields())
        .event_format(Format { format, colours: terminal.colours() })
        .init();
    panics::log();
    Ok(terminal)
}

/// Whether the environment says what is logged.
pub(crate) fn level_is_set() -> bool {
    ["PHILOTES_LOG", "RUST_LOG"].into_iter().any(|name| std::env::var_os(name).is_some())
}

/// stderr, with lines at its bottom that are redrawn below whatever is logged.
#[derive(Clone)]
pub struct Terminal(Arc<Mutex<Screen>>);

struct Screen {
    out: Box<dyn Write + Send>,
    is_terminal: bool,
    live: Vec<String>,
    /// How many live lines stand on the screen now.
    drawn: usize,
}

impl Terminal {
    fn stderr(format: LogFormat) -> Self {
        let is_terminal = io::stderr().is_terminal() && format == LogFormat::Text;
        Self::new(Box::new(io::stderr()), is_terminal)
    }

    fn new(out: Box<dyn Write + Send>, is_terminal: bool) -> Self {
        Self(Arc::new(Mutex::new(Screen { out, is_terminal, live: Vec::new(), drawn: 0 })))
    }

    fn with<T>(&self, f: impl FnOnce(&mut Screen) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn colours(&self) -> bool {
        self.is_live() && std::env::var_os("NO_COLOR").is_none()
    }

    /// Whether live lines can be shown at all.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.with(|screen| screen.is_terminal)
    }

    /// Replaces the live lines; none removes them.
    pub fn show(&self, lines: Vec<String>) {
        self.with(|screen| {
            if screen.is_terminal {
                let mut text = screen.erase();
                screen.live = lines;
                text.push_str(&screen.draw());
                // A terminal that went away is no reason to stop moving rows.
                let _ = screen.out.write_all(text.as_bytes()).and_then(|()| screen.out.flush());
            }
        });
    }
}

impl Screen {
    /// The control sequence that removes the live lines: up so many lines, clear to the end.
    fn erase(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        }
    }

    fn draw(&mut self) -> String {
        self.drawn = self.live.len();
        // A line that wrapped would make the count of lines wrong: wrapping is off while they are drawn.
        let mut text = String::new();
        for line in &self.live {
            text.push_str(&format!("\x1b[?7l{line}\x1b[?7h\n"));
        }
        text
    }
}

impl<'a> MakeWriter<'a> for Terminal {
    type Writer = Event;

    fn make_writer(&'a self) -> Event {
        Event { terminal: self.clone(), text: Vec::new() }
    }
}

/// One event on its way to the terminal: written whole when it is dropped, so that nothing gets in between.
pub struct Event {
    terminal: Terminal,
    text: Vec<u8>,
}

impl Write for Event {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.text);
        self.terminal.with(|screen| {
            let mut whole = screen.erase().into_bytes();
            whole.extend_from_slice(&text);
            whole.extend_from_slice(screen.draw().as_bytes());
            // There is nowhere left to report that the log cannot be written.
            let _ = screen.out.write_all(&whole).and_then(|()| screen.out.flush());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(terminal: &Terminal, text: &str) {
        terminal.make_writer().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn live_lines_stand_below_the_log() {
        let captured = Captured::default();
        let terminal = Terminal::new(Box::new(captured.clone()), true);
        terminal.show(vec!["a".into(), "b".into()]);
        log(&terminal, "event\n");
        terminal.show(Vec::new());
        let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        let plain = text.replace("\x1b[?7l", "").replace("\x1b[?7h", "");
        assert_eq!(plain, "a\nb\n\x1b[2A\x1b[Jevent\na\nb\n\x1b[2A\x1b[J");
    }

    #[test]
    fn nothing_of_it_where_there_is_no_terminal() {
        let captured = Captured::default();
        let terminal = Terminal::new(Box::new(captured.clone()), false);
        terminal.show(vec!["a".into()]);
        log(&terminal, "event\n");
        assert_eq!(captured.0.lock().unwrap().as_slice(), b"event\n");
    }
}
