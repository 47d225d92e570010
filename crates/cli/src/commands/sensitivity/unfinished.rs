//! Scores that grow line by line, and go on where they were interrupted.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use quant::sensitivity::{Header, Record, Sensitivity, line};

use crate::output;

/// A file that grows line by line beside its target.
pub(super) struct Unfinished {
    path: PathBuf,
    file: File,
}

impl Unfinished {
    /// Begin a file, or go on with the one that is there if it was measured alike. With it comes what it holds.
    pub(super) fn open(target: &Path, header: Header) -> Result<(Self, Sensitivity)> {
        let path = part(target);
        let there = found(&path).filter(|(there, _)| there.header == header);
        let (known, length) = there.unwrap_or_else(|| (Sensitivity::new(header), 0));
        let failed =
            || format!("cannot write {}; free some space or choose another place", path.display());
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false);
        let mut file = options.open(&path).with_context(failed)?;
        file.set_len(length as u64).with_context(failed)?;
        file.seek(SeekFrom::End(0)).with_context(failed)?;
        if length == 0 {
            file.write_all(line(&known.header).as_bytes()).with_context(failed)?;
        }
        Ok((Self { path, file }, known))
    }

    /// What was to be measured by the work on this target, finished or not.
    pub(super) fn header(target: &Path) -> Option<Header> {
        let done = Sensitivity::read(target).ok();
        Some(done.or_else(|| Some(found(&part(target))?.0))?.header)
    }

    /// The places that work on this target had chosen, where it was to be measured like this.
    pub(super) fn chosen(target: &Path, header: &Header) -> Option<Vec<usize>> {
        let there = Self::header(target)?;
        let alike = Header { places: header.places.clone(), ..there.clone() } == *header;
        there.places.filter(|_| alike)
    }

    pub(super) fn append(&mut self, record: &Record) -> Result<()> {
        self.file.write_all(line(record).as_bytes()).with_context(|| {
            format!(
                "cannot write {}; free some space and run this again to go on",
                self.path.display()
            )
        })
    }

    pub(super) fn finish(self, target: &Path) -> Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, target).with_context(|| output::failed(target))
    }
}

/// The name of a file while it grows.
fn part(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    target.with_file_name(name)
}

/// What a file holds, and how long its whole lines are.
fn found(path: &Path) -> Option<(Sensitivity, usize)> {
    Sensitivity::from_text(&std::fs::read_to_string(path).ok()?).ok()
}
