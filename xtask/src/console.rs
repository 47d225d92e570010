//! The one place where development commands print.

/// Prints a line to standard output.
#[expect(clippy::print_stdout, reason = "this is a command line tool")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// Prints a line to standard error.
#[expect(clippy::print_stderr, reason = "this is a command line tool")]
pub(crate) fn warn(line: &str) {
    eprintln!("{line}");
}
