//! What layers read → the model whose weights are rounded for that.

use std::sync::atomic::AtomicBool;

use anyhow::Result;
use pipeline::{Model, Plan, Request, TextToImage};
use tensor::{Cpu, Precision};

use super::{search, shares, work};
use crate::args::Quantize;
use crate::commands::{drawing, moments};

/// Where the work folder keeps what was found.
const MOMENTS: &str = "moments.safetensors";

/// Pictures that are drawn at least and at most, as many as have [`PIXELS`].
const PICTURES: [usize; 2] = [128, 512];

/// Pixels that say enough of what layers read: 128 pictures of 256x256.
const PIXELS: usize = 128 << 16;

/// The model as it was, or with weights that are rounded by what its layers read.
pub(super) fn calibrated(
    args: &Quantize,
    model: Model,
    (cpu, cancel): (&Cpu, &AtomicBool),
) -> Result<Model> {
    if !args.is_calibrated() {
        return Ok(model);
    }
    let mut measured = 0;
    if args.target.is_some() {
        // What proves the result is wanted now, and is drawn by nothing else.
        measured = 3 * args.pictures.count as usize;
        search::proof(args)?;
    }
    let found = if let Some(path) = &args.moments {
        moments::of_model(path, &model)?
    } else {
        let most = match args.calibration_prompts {
            Some(prompts) => prompts as usize,
            None => pictures(&drawing::others(&args.pictures, measured, 1)?, &model, cpu)?,
        };
        let request = drawing::others(&args.pictures, measured, most)?;
        let time = shares::of(args.time, shares::MOMENTS);
        let path = work(args)?.join(MOMENTS);
        moments::measure((&request, time), (&path, cancel), (&model, cpu))?
    };
    Ok(model.with_moments(found))
}

/// How many pictures such a request should have. Small ones say less.
fn pictures(request: &Request, model: &Model, cpu: &Cpu) -> Result<usize> {
    let plan = Plan::float(Precision::F32);
    let settings = TextToImage::new(cpu, model, &plan).settings(request)?;
    let [least, most] = PICTURES;
    Ok((PIXELS / (settings.width * settings.height).max(1)).clamp(least, most))
}
