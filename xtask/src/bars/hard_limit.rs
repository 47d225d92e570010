//! A limit on a program's memory that is set from outside, so that a promise is not tested by the one who made it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::command::program;

/// A limit that lasts as long as this value.
pub(super) enum HardLimit {
    /// A control group of its own: all memory counts, the page cache too.
    Group(PathBuf),
    /// Where groups cannot be made: private memory counts, files do not.
    Data(u64),
}

impl HardLimit {
    /// A limit of `bytes`.
    pub(super) fn new(bytes: u64) -> Self {
        let name = format!("mixdq-bars-{}", std::process::id());
        let roots =
            [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")];
        for (root, file) in roots {
            let folder = Path::new(root).join(&name);
            if !Path::new(root).join("cgroup.procs").exists() || fs::create_dir(&folder).is_err() {
                continue;
            }
            if fs::write(folder.join(file), bytes.to_string()).is_ok() {
                // Memory that is written to disk instead would hide what is too much.
                let _ = fs::write(folder.join("memory.swap.max"), "0");
                let _ = fs::write(folder.join("memory.swappiness"), "0");
                return Self::Group(folder);
            }
            let _ = fs::remove_dir(&folder);
        }
        Self::Data(bytes)
    }

    /// What limits, for the table.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Group(_) => "control group",
            Self::Data(_) => "limit on private memory",
        }
    }

    /// `binary` under this limit; arguments may follow.
    pub(super) fn program(&self, binary: &Path) -> Command {
        let mut command = match self {
            Self::Group(folder) => {
                let mut command = program("sh", &["-c", "echo $$ > \"$0\" && exec \"$@\""]);
                command.arg(folder.join("cgroup.procs"));
                command
            }
            Self::Data(bytes) => program("prlimit", &[&format!("--data={bytes}")]),
        };
        command.arg(binary);
        command
    }
}

impl Drop for HardLimit {
    fn drop(&mut self) {
        if let Self::Group(folder) = self {
            // A group that is left behind is empty and does no harm.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Take a file out of the page cache.
pub(super) fn evict(file: &Path) -> Result<()> {
    dd(file, &["iflag=nocache", "count=0"])
}

/// Seconds to read all of a file from the disk.
pub(super) fn read_from_disk(file: &Path) -> Result<f64> {
    evict(file)?;
    let start = Instant::now();
    dd(file, &["of=/dev/null", "bs=4M"])?;
    Ok(start.elapsed().as_secs_f64())
}

fn dd(file: &Path, words: &[&str]) -> Result<()> {
    let mut input = OsString::from("if=");
    input.push(file);
    let output = Command::new("dd").arg(input).args(words).output().context("cannot start dd")?;
    ensure!(output.status.success(), "dd failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
