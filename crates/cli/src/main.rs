//! The `mixdq` command.

mod args;
mod commands;
mod knobs;
mod output;
mod page;
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
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let result = match cli.command {
        Command::Generate(args) => commands::generate::run(&args),
        Command::Quantize(args) => commands::quantize::run(&args),
        Command::Calibrate(args) => commands::calibrate::run(&args),
        Command::Sensitivity(args) => commands::sensitivity::run(&args),
        Command::Evaluate(args) => commands::evaluate::run(&args),
        Command::Allocate(args) => commands::allocate::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Doctor => commands::doctor::run(),
        Command::Bench(args) => commands::bench::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::error(&format!("{error:#}"));
            // What was asked for is understood but cannot be had.
            ExitCode::from(if error.is::<report::Unmet>() { 3 } else { 2 })
        }
    }
}

/// Help and version go to standard output as they are; a fault becomes one line.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // In colour on a terminal only. A closed pipe is no reason to fail.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let message = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = message.trim_start_matches("error: ").split_whitespace().collect();
    report::error(&format!("{} (--help lists what there is)", words.join(" ")));
    ExitCode::from(2)
}
