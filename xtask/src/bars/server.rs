//! A `mixdq bench --serve` process: it answers each line `run` with seconds.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result};

use crate::command::program;

/// A process that computes one UNet step on request.
pub(super) struct Server {
    child: Child,
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Server {
    /// Starts `binary` on the model in `folder` with this many threads.
    pub(super) fn start(binary: &Path, folder: &Path, inputs: &Path, threads: u32) -> Result<Self> {
        Self::of(&mut command(binary, folder, inputs, ("bf16", threads)))
    }

    /// Starts `binary` on the model in `folder` with two threads, in `f32`, with a lower instruction set.
    pub(super) fn at_level(
        binary: &Path,
        folder: &Path,
        inputs: &Path,
        level: &str,
    ) -> Result<Self> {
        Self::of(command(binary, folder, inputs, ("f32", 2)).env("MIXDQ_ISA", level))
    }

    fn of(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let requests = child.stdin.take().context("no standard input")?;
        let answers = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        Ok(Self { child, requests, answers })
    }

    /// Seconds of one step.
    pub(super) fn step(&mut self) -> Result<f64> {
        writeln!(self.requests, "run")?;
        self.requests.flush()?;
        let line = self.answers.next().context("mixdq bench ended early")??;
        line.trim().parse().with_context(|| format!("mixdq bench answered `{line}`"))
    }
}

impl Server {
    /// A figure of the kernel about the process, in MB: the value after `key` in a file of `/proc`.
    pub(super) fn memory(&self, file: &str, key: &str) -> Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))?;
        let value = text.lines().find_map(|line| line.strip_prefix(key));
        let kib = value.and_then(|value| value.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kib.with_context(|| format!("{file} has no {key}"))? * 1024.0 / 1e6)
    }
}

/// What is started.
fn command(
    binary: &Path,
    folder: &Path,
    inputs: &Path,
    (precision, threads): (&str, u32),
) -> Command {
    let mut command = program(binary, &["bench", "unet", "--serve", "--precision", precision]);
    command.arg("-m").arg(folder).arg("--inputs").arg(inputs);
    command.args(["-t", &threads.to_string()]);
    command
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing can be done about a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
