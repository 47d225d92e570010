//! The library crates compile for other systems.

use anyhow::Result;

use super::Outcome;
use crate::command::{cargo, program, read, run, works};

/// Windows on x86-64.
pub(super) const WINDOWS: &str = "x86_64-pc-windows-msvc";
/// macOS on Apple's own processors.
pub(super) const MACOS: &str = "aarch64-apple-darwin";
/// Linux on 64-bit ARM.
pub(super) const AARCH64: &str = "aarch64-unknown-linux-musl";

const LIBRARIES: &[&str] = &["mixdq-kernels", "mixdq-tensor", "mixdq-models", "mixdq-pipeline"];

/// Checks every library crate for `target`, if its standard library is there or can be fetched.
pub(super) fn check(target: &str) -> Result<Outcome> {
    if !installed(target) && !works(&mut program("rustup", &["target", "add", target])) {
        let why = format!("`rustup target add {target}` does not work here");
        return Ok(Outcome::NotRun(why));
    }
    let mut command = cargo(&["check", "--quiet", "--lib", "--target", target]);
    for library in LIBRARIES {
        command.args(["-p", library]);
    }
    run(&mut command).map(|()| Outcome::Passed)
}

fn installed(target: &str) -> bool {
    let list = read(&mut program("rustup", &["target", "list", "--installed"]));
    list.is_ok_and(|list| list.lines().any(|line| line == target))
}
