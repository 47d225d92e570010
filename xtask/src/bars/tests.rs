//! Readings from a test: what it prints, and how many passed.

use anyhow::{Result, ensure};

use super::readings::Readings;
use crate::command::{capture, cargo};
use crate::console::warn;

/// Runs `cargo test` with `words` to choose a test file. A failing test still gives its readings.
pub(super) fn readings(words: &[&str]) -> Result<Readings> {
    // Not `--quiet`: the dots it prints for tests stick to the lines they print.
    let mut command = cargo(&["test"]);
    let output = capture(command.args(words).args(["--", "--nocapture", "--test-threads", "1"]))?;
    let mut readings = Readings::parse(&output.out);
    let counts = counts(&output.out);
    if !output.success {
        warn(&output.err);
    }
    ensure!(counts.is_some(), "the test does not build or does not exist");
    if let Some((passed, failed)) = counts {
        readings.set("tests.passed", passed);
        readings.set("tests.failed", failed);
    }
    Ok(readings)
}

/// Numbers of passed and failed tests, from the line `test result: ok. 3 passed; 0 failed; …`.
fn counts(text: &str) -> Option<(f64, f64)> {
    let line = text.lines().find_map(|line| line.split_once("test result:"))?.1;
    let number = |what: &str| {
        let before = line.split(what).next()?;
        before.split_whitespace().last()?.parse().ok()
    };
    Some((number("passed")?, number("failed")?))
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn counts_are_read_from_the_summary() {
        let text = "test result: FAILED. 3 passed; 1 failed; 0 ignored";
        assert_eq!(counts(text), Some((3.0, 1.0)));
        assert_eq!(counts("error: no such test"), None);
    }
}
