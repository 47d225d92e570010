//! What is said on standard error: errors, notes, progress.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use pipeline::{Event, Phase};

/// A demand that cannot be met, though nothing is wrong with what was given.
#[derive(Debug)]
pub(crate) struct Unmet(pub(crate) String);

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unmet {}

/// Say one line on standard error. A closed pipe is no reason to stop.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Say what went wrong, on one line.
pub(crate) fn error(message: &str) {
    say(&format!("error: {}", message.replace('\n', " ")));
}

/// Print a table or a listing on standard output.
pub(crate) fn print(text: &str) {
    let _ = write!(std::io::stdout(), "{text}");
}

/// Progress on a terminal, seconds and memory where asked for; silent in a pipe.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    details: Details,
}

/// How much is said about each phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Details {
    /// Nothing.
    None,
    /// Seconds and peak memory.
    Phases,
}

impl Progress {
    /// Progress for a run that says this much.
    pub(crate) fn new(details: Details) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("{msg:8} [{bar:32}] {percent:>3}%  {eta} left");
            ProgressBar::new(1).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, details }
    }

    /// Show what happened.
    pub(crate) fn tell(&self, event: Event) {
        match event {
            Event::Warning(text) => self.line(&format!("warning: {text}")),
            Event::Loading(phase, done, total) => {
                self.show(&format!("load {}", phase.name()), done, total);
            }
            Event::Working(phase, done, total) => self.show(phase.name(), done, total),
            Event::Step(step, steps, time) => {
                self.detail(&format!(
                    "{:<10}{:.2} s",
                    format!("step {step}/{steps}"),
                    time.as_secs_f64()
                ));
            }
            Event::Done(phase, time) => self.phase(phase, time),
        }
    }

    /// Show how much of something is done.
    pub(crate) fn work(&self, what: &str, done: usize, total: usize) {
        self.show(what, done, total);
    }

    /// The last line of a run.
    pub(crate) fn total(&self, time: Duration) {
        self.summary("total", time);
        self.finish();
    }

    /// Take the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn phase(&self, phase: Phase, time: Duration) {
        self.summary(phase.name(), time);
    }

    fn summary(&self, name: &str, time: Duration) {
        let peak = os::peak_rss()
            .map_or_else(|| "unknown".into(), |bytes| format!("{} MB", bytes / 1_000_000));
        self.detail(&format!("{name:<10}{:.2} s   peak {peak}", time.as_secs_f64()));
    }

    fn detail(&self, line: &str) {
        if self.details == Details::Phases {
            self.line(line);
        }
    }

    fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(line)),
            None => say(line),
        }
    }

    fn show(&self, what: &str, done: usize, total: usize) {
        let Some(bar) = &self.bar else { return };
        if bar.message() != what {
            bar.reset();
            bar.set_message(what.to_owned());
        }
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    }
}
