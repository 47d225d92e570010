//! What layers read → the model whose weights are rounded for that.

use std::sync::atomic::AtomicBool;

use anyhow::Result;
use pipeline::Model;
use tensor::Cpu;

use super::{search, shares, work};
use crate::args::Quantize;
use crate::commands::{drawing, moments};

/// Where the work folder keeps what was found.
const MOMENTS: &str = "moments.safetensors";

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
        let most = args.calibration_prompts as usize;
        let request = drawing::others(&args.pictures, measured, most)?;
        let time = shares::of(args.time, shares::MOMENTS);
        let path = work(args)?.join(MOMENTS);
        moments::measure((&request, time), (&path, cancel), (&model, cpu))?
    };
    Ok(model.with_moments(found))
}
