//! A process that keeps one core busy.

use std::process::Child;

use anyhow::{Context, Result};

use crate::command::program;

/// Spins on core 0 until dropped.
pub(super) struct Neighbour(Child);

impl Neighbour {
    /// Starts spinning.
    pub(super) fn start() -> Result<Self> {
        let words = ["-c", "0", "sh", "-c", "while :; do :; done"];
        program("taskset", &words).spawn().map(Self).context("cannot pin a process with taskset")
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // Nothing can be done about a process that has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
