//! The `mixdq` command.

mod args;
mod commands;
mod knobs;
mod output;
mod report;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};

fn main() -> ExitCode {
    let typed: Vec<String> = std::env::args().collect();
    if let Some(flag) = args::not_in_this_version(&typed) {
        report::error(&format!("{flag} is not in this version"));
        return ExitCode::from(2);
    }
    let result = match Cli::parse().command {
        Command::Generate(args) => commands::generate::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Doctor => commands::doctor::run(),
        Command::Bench(args) => commands::bench::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::error(&format!("{error:#}"));
            ExitCode::from(2)
        }
    }
}
