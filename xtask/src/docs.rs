//! `cargo xtask docs`: the command line reference, made from the program's own help.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result, ensure};

use crate::command::{build, program, read, root};

const PLACE: &str = "docs/cli.md";
const COMMANDS: &[&str] = &[
    "generate",
    "quantize",
    "calibrate",
    "sensitivity",
    "allocate",
    "evaluate",
    "inspect",
    "doctor",
];

/// Writes `docs/cli.md`.
pub(crate) fn write() -> Result<()> {
    let path = root().join(PLACE);
    fs::write(&path, page()?).with_context(|| format!("cannot write {}", path.display()))
}

/// Fails if `docs/cli.md` does not say what the program says.
pub(crate) fn check() -> Result<()> {
    let there = fs::read_to_string(root().join(PLACE)).unwrap_or_default();
    ensure!(there == page()?, "{PLACE} is out of date: run `cargo xtask docs`");
    Ok(())
}

fn page() -> Result<String> {
    let binary = build(&[])?;
    let mut page =
        String::from("# Command line\n\nMade by `cargo xtask docs` from the program's own help.\n");
    let all = COMMANDS.iter().map(|command| (format!("mixdq {command}"), vec![*command]));
    for (title, words) in std::iter::once(("mixdq".to_owned(), vec![])).chain(all) {
        // Neither the terminal nor its settings may change the page.
        let mut command = program(&binary, &words);
        command.arg("--help").env("NO_COLOR", "1").env("COLUMNS", "100");
        let help = read(command.env_remove("CLICOLOR_FORCE"))?;
        let lines: Vec<&str> = help.trim().lines().map(str::trim_end).collect();
        write!(page, "\n## {title}\n\n```text\n{}\n```\n", lines.join("\n"))?;
    }
    Ok(page)
}
