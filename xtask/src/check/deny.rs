//! Licences and origins of the dependencies, by `cargo-deny` and `deny.toml`.

use anyhow::Result;

use super::Outcome;
use crate::command::{program, root, run, works};

/// Runs `cargo deny`, from `target/tools` where `.ci/run` puts it or from the search path.
pub(super) fn check() -> Result<Outcome> {
    let own = root().join("target/tools/bin/cargo-deny");
    let Some(deny) = [own, "cargo-deny".into()]
        .into_iter()
        .find(|deny| works(&mut program(deny, &["--version"])))
    else {
        let why = "cargo-deny is not installed: cargo install cargo-deny --locked";
        return Ok(Outcome::NotRun(why.to_owned()));
    };
    let words = ["--log-level", "error", "check", "bans", "licenses", "sources"];
    run(&mut program(deny, &words)).map(|()| Outcome::Passed)
}
