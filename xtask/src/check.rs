//! `cargo xtask check`: everything a machine can check, cheapest first.

mod deny;
mod targets;

use std::time::Instant;

use anyhow::Result;

use crate::command::{cargo, run, works};
use crate::console::say;
use crate::docs;

/// How much is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Everything.
    Full,
    /// What takes seconds.
    Fast,
}

/// How a step ended that did not fail.
enum Outcome {
    Passed,
    /// It could not be run here, for this reason.
    NotRun(String),
}

struct Step {
    name: &'static str,
    /// The smallest effort that includes the step.
    effort: Effort,
    check: fn() -> Result<Outcome>,
}

const STEPS: &[Step] = &[
    Step { name: "format", effort: Effort::Fast, check: format },
    Step { name: "tidy", effort: Effort::Fast, check: tidy },
    Step { name: "clippy", effort: Effort::Fast, check: clippy },
    Step { name: "doc", effort: Effort::Full, check: doc },
    Step { name: "test", effort: Effort::Full, check: test },
    Step { name: "cli reference", effort: Effort::Full, check: reference },
    Step { name: "windows", effort: Effort::Full, check: || targets::check(targets::WINDOWS) },
    Step { name: "macos", effort: Effort::Full, check: || targets::check(targets::MACOS) },
    Step { name: "aarch64", effort: Effort::Full, check: || targets::check(targets::AARCH64) },
    Step { name: "dependencies", effort: Effort::Full, check: deny::check },
];

/// Runs the steps in order and stops at the first that fails.
pub(crate) fn run_all(effort: Effort) -> Result<()> {
    let chosen = STEPS.iter().filter(|step| effort == Effort::Full || step.effort == effort);
    for step in chosen {
        say(&format!("── {}", step.name));
        let start = Instant::now();
        let outcome = (step.check)();
        let seconds = start.elapsed().as_secs_f64();
        match outcome {
            Ok(Outcome::Passed) => say(&format!("   {}: pass, {seconds:.1} s", step.name)),
            Ok(Outcome::NotRun(why)) => say(&format!("   {}: not run ({why})", step.name)),
            Err(error) => return Err(error.context(format!("{} failed", step.name))),
        }
    }
    Ok(())
}

fn passed(words: &[&str]) -> Result<Outcome> {
    run(&mut cargo(words)).map(|()| Outcome::Passed)
}

fn format() -> Result<Outcome> {
    passed(&["fmt", "--all", "--check"])
}

fn tidy() -> Result<Outcome> {
    passed(&["test", "--quiet", "-p", "xtask", "--test", "tidy"])
}

fn clippy() -> Result<Outcome> {
    passed(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])
}

fn doc() -> Result<Outcome> {
    let mut command = cargo(&["doc", "--quiet", "--workspace", "--no-deps"]);
    run(command.env("RUSTDOCFLAGS", "-D warnings")).map(|()| Outcome::Passed)
}

fn test() -> Result<Outcome> {
    if works(&mut cargo(&["nextest", "--version"])) {
        run(&mut cargo(&["nextest", "run", "--workspace"]))?;
        return passed(&["test", "--quiet", "--workspace", "--doc"]);
    }
    passed(&["test", "--workspace"])
}

fn reference() -> Result<Outcome> {
    docs::check().map(|()| Outcome::Passed)
}
