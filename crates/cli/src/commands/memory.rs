//! The memory plan: how much may be used, what fits into it, and how that is shown.

use std::fmt::Write;

use anyhow::{Result, anyhow};
use bytesize::ByteSize;
use pipeline::memory::Resident;
use pipeline::{Decode, Error, Request, Settings, TextToImage};
use tensor::Cpu;

/// What the process takes beside weights and values once it runs: stacks, tables of the sampler, a file being written.
const MARGIN: usize = 12 << 20;

/// What the process itself takes differs by less than this from run to run, so that a limit that was advised is kept.
const DRIFT: usize = 1_000_000;

/// The share of free memory that is used when nothing was typed.
const FREE_SHARE: f64 = 0.95;

/// What each part of a picture takes, and the process around them.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) parts: Vec<Resident>,
    /// Bytes of the process itself.
    around: usize,
}

impl Plan {
    /// Keep a pipeline within the memory that was typed, or that is free: where a model does not fit into what is
    /// free and cannot be read piece by piece, the system has to make room.
    pub(crate) fn fit<'a>(
        pipeline: TextToImage<'a, Cpu>,
        (request, settings): (&Request, &Settings),
        typed: Option<ByteSize>,
    ) -> Result<(TextToImage<'a, Cpu>, Self)> {
        let around = os::rss().unwrap_or(0) as usize + MARGIN;
        let plan = |parts| Self { parts, around };
        if let Some(typed) = typed {
            let room = (typed.0 as usize).saturating_sub(around);
            let pipeline = pipeline.within(room);
            let least = match pipeline.memory(request, settings) {
                Ok(parts) => return Ok((pipeline, plan(parts))),
                Err(Error::Room { least }) => least,
                Err(error) => return Err(error.into()),
            };
            let advised = |least: usize| megabytes(least + around + DRIFT);
            let mut advice = format!("give at least {}", advised(least));
            let in_tiles = Request { decode: Decode::Tiled, ..request.clone() };
            if let Err(Error::Room { least: in_tiles }) =
                pipeline.within(0).memory(&in_tiles, settings)
                && in_tiles < least
            {
                let least = advised(in_tiles);
                write!(
                    advice,
                    ", or {least} with --vae-tiling, which changes the picture a little"
                )?;
            }
            if !pipeline.is_packed() {
                advice.push_str(", or pack the model with `mixdq quantize`");
            }
            let typed = megabytes(typed.0 as usize);
            return Err(anyhow!("--max-ram {typed} is too little for this; {advice}"));
        }
        if let Some(free) = os::available_memory() {
            let room = (free as f64 * FREE_SHARE) as usize;
            let within = pipeline.within(room.saturating_sub(MARGIN));
            if let Ok(parts) = within.memory(request, settings) {
                return Ok((within, plan(parts)));
            }
        }
        let parts = pipeline.memory(request, settings)?;
        Ok((pipeline, plan(parts)))
    }

    /// The table.
    pub(crate) fn table(&self, title: &str) -> Result<String, std::fmt::Error> {
        let mut out = format!(
            "{title} (one component at a time)\n{:<16}{:>12}{:>12}{:>12}{:>12}{:>14}{:>8}{:>10}\n",
            "component",
            "weights MiB",
            "arena MiB",
            "other MiB",
            "peak MiB",
            "streamed MiB",
            "ops",
            "GMAC"
        );
        for part in &self.parts {
            writeln!(
                out,
                "{:<16}{:>12.1}{:>12.1}{:>12.1}{:>12.1}{:>14.1}{:>8}{:>10.1}",
                part.name,
                mib(part.weights),
                mib(part.arena),
                mib(part.kept),
                mib(part.peak()),
                mib(part.streamed),
                part.operations,
                part.multiply_adds as f64 / 1e9
            )?;
        }
        let most = self.parts.iter().map(Resident::peak).max().unwrap_or(0);
        writeln!(out, "{:<16}{:>48.1}", "the program", mib(self.around))?;
        writeln!(out, "{:<16}{:>48.1}", "peak", mib(self.around + most))?;
        Ok(out)
    }
}

/// Bytes as they can be typed, rounded up.
fn megabytes(bytes: usize) -> String {
    format!("{}M", bytes.div_ceil(1_000_000))
}

/// Bytes in MiB.
pub(crate) fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
