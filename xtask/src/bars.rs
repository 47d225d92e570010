//! `cargo xtask bars`: every promise in figures, measured.
//!
//! A [`Bar`] compares one reading with a limit. A [`Source`] produces readings: it runs a test or a
//! program and collects numbers by name. Bars with the same source share one run of it. A bar whose
//! source could not run is not met, and the table says why.

mod avx2;
mod gain;
mod hard_limit;
mod inputs;
mod killed;
mod large;
mod list;
mod method;
mod mission;
mod neighbour;
mod packed;
mod picture;
mod quality;
mod race;
mod ram;
mod readings;
mod server;
mod tests;
mod threads;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::console::say;
use list::BARS;
use readings::Readings;

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Options {
    /// Only bars whose names begin with this.
    pub(crate) prefix: String,
    /// Which rows are measured.
    pub(crate) size: Size,
    /// Folder of full-size models with random weights; missing ones are written there.
    pub(crate) models: PathBuf,
}

/// What a row needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Size {
    /// Tests of small models.
    Small,
    /// Full-size models: gigabytes on disk, minutes of time.
    Full,
}

/// A promise.
struct Bar {
    name: &'static str,
    /// Name of the reading that counts.
    reading: &'static str,
    limit: Limit,
    source: &'static Source,
}

/// What a reading may be, and its unit.
#[derive(Debug, Clone, Copy)]
enum Limit {
    AtMost(f64, &'static str),
    AtLeast(f64, &'static str),
}

/// Where readings come from.
struct Source {
    name: &'static str,
    size: Size,
    measure: fn(&Options) -> Result<Readings>,
}

impl Limit {
    fn holds(self, value: f64) -> bool {
        match self {
            Limit::AtMost(limit, _) => value <= limit,
            Limit::AtLeast(limit, _) => value >= limit,
        }
    }

    fn describe(self) -> String {
        match self {
            Limit::AtMost(limit, unit) => format!("≤ {limit} {unit}"),
            Limit::AtLeast(limit, unit) => format!("≥ {limit} {unit}"),
        }
    }

    fn unit(self) -> &'static str {
        let (Limit::AtMost(_, unit) | Limit::AtLeast(_, unit)) = self;
        unit
    }
}

/// Prints the table; anything but a pass in every row is an error.
pub(crate) fn run(options: &Options) -> Result<()> {
    let chosen: Vec<&Bar> =
        BARS.iter().filter(|bar| bar.name.starts_with(&options.prefix)).collect();
    ensure!(!chosen.is_empty(), "no bar begins with `{}`", options.prefix);
    let mut known = BTreeMap::new();
    let mut missed = 0;
    say(&row(["name", "measured", "limit", "result"]));
    for bar in &chosen {
        let readings = known.entry(bar.source.name).or_insert_with(|| measure(bar.source, options));
        let (measured, result) = judge(bar, readings);
        missed += usize::from(result != "pass");
        say(&row([bar.name, &measured, &bar.limit.describe(), &result]));
    }
    ensure!(missed == 0, "{missed} of {} bars are not met", chosen.len());
    Ok(())
}

/// Readings of a source, or the reason why there are none.
fn measure(source: &Source, options: &Options) -> Result<Readings, String> {
    if source.size > options.size {
        return Err("needs --full".to_owned());
    }
    (source.measure)(options).map_err(|error| format!("{error:#}"))
}

fn judge(bar: &Bar, readings: &Result<Readings, String>) -> (String, String) {
    let reading = match readings {
        Ok(readings) => readings.get(bar.reading).ok_or("the reading was not printed"),
        Err(why) => Err(why.as_str()),
    };
    match reading {
        Ok(value) => {
            let verdict = if bar.limit.holds(value) { "pass" } else { "fail" };
            (format!("{value:.3} {}", bar.limit.unit()), verdict.to_owned())
        }
        Err(why) => ("-".to_owned(), format!("not run ({why})")),
    }
}

fn row([name, measured, limit, result]: [&str; 4]) -> String {
    format!("{name:<28} {measured:>16}  {limit:<16} {result}")
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    const SOURCE: Source =
        Source { name: "", size: Size::Small, measure: |_| Ok(Readings::default()) };
    const BAR: Bar =
        Bar { name: "a", reading: "a", limit: Limit::AtMost(2.0, "levels"), source: &SOURCE };

    #[test]
    fn a_reading_is_judged_by_its_limit() {
        let read = |text: &str| judge(&BAR, &Ok(Readings::parse(text))).1;
        assert_eq!(read("bar a 2 levels"), "pass");
        assert_eq!(read("bar a 2.01 levels"), "fail");
        assert_eq!(read("bar a NaN levels"), "fail");
        assert_eq!(read("bar b 1 levels"), "not run (the reading was not printed)");
    }

    #[test]
    fn a_source_that_cannot_run_says_why() {
        assert_eq!(judge(&BAR, &Err("no disk".to_owned())).1, "not run (no disk)");
    }

    #[test]
    fn bars_have_their_own_names() {
        let names: std::collections::BTreeSet<_> = BARS.iter().map(|bar| bar.name).collect();
        assert_eq!(names.len(), BARS.len());
    }
}
