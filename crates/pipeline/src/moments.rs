//! What all layers of a model read while pictures are drawn in single precision, as second moments, by which weights are
//! rounded ([`tensor::moments`]).
//!
//! The pictures are drawn as always, through a tap on the networks that draw them.

mod file;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use quant::calibration::Header;
use quant::sensitivity::line;
use tensor::moments::{Blocks, Moments};
use tensor::program::{Op, Program};
use tensor::{Cpu, Precision};

use crate::request::{Reading, Watch};
use crate::{Error, Model, Plan, Request, TextToImage, calibrate};

/// Pictures that are drawn before work can be interrupted without loss.
const TOGETHER: usize = 8;

/// Rows of one value that are looked at: of more, every second, third, ….
const ROWS: usize = 4096;

/// Channels that are looked at together, from the best on: the first with which the sums of a whole model fit [`MEMORY`], or the last.
const BLOCKS: [usize; 3] = [1024, 512, 256];

/// Bytes that sums may take before blocks become smaller.
const MEMORY: usize = 256 << 20;

/// A layer, by the name of its component and its own.
type Name = (String, String);

/// What was found so far, and on what.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// What was drawn.
    pub header: Header,
    /// Channels that are looked at together, at most.
    block: usize,
    sums: BTreeMap<Name, Moments>,
    /// Layers that read what another one before them reads.
    same: BTreeMap<Name, Name>,
}

/// Pictures that are drawn while layers are looked at.
pub struct Gatherer<'a> {
    pipeline: &'a TextToImage<'a, Cpu>,
    request: Request,
    found: Found,
}

impl<'a> Gatherer<'a> {
    /// Make ready to draw the pictures of a request.
    ///
    /// # Errors
    ///
    /// If the pipeline's plan is not one of `f32`, or the request cannot be drawn.
    pub fn new(pipeline: &'a TextToImage<'a, Cpu>, request: &Request) -> Result<Self, Error> {
        if *pipeline.plan != Plan::float(Precision::F32) || pipeline.is_packed() {
            let fault = "rounding follows from real numbers; give a model that is not packed";
            return Err(Error::Request(fault.into()));
        }
        let settings = pipeline.settings(request)?;
        let header = calibrate::header((pipeline.model, 1), request, &settings)?;
        let block = block(pipeline.model);
        let found = Found { header, block, sums: BTreeMap::new(), same: BTreeMap::new() };
        Ok(Self { pipeline, request: settings.fixed(request), found })
    }

    /// Go on after pictures that were drawn before, if they are of this request.
    #[must_use]
    pub fn after(self, before: Found) -> Self {
        let goes_on = before.header.goes_with(&self.found.header);
        if goes_on { Self { found: before, ..self } } else { self }
    }

    /// Whether something was found on the first pictures of this request, or on all.
    pub fn begins_with(&self, before: &Found) -> bool {
        before.header.is_start_of(&self.found.header)
    }

    /// Leave out the pictures that are not drawn yet.
    #[must_use]
    pub fn that_is_all(mut self) -> Self {
        let header = &mut self.found.header;
        header.prompts.truncate(header.done.div_ceil(header.pictures));
        self.request.prompts.clone_from(&header.prompts);
        self
    }

    /// Draw some more. The answer is the number of those that are done.
    ///
    /// # Errors
    ///
    /// If a file is unsound, memory is short, numbers go astray, or the watch says to stop.
    pub fn advance(&mut self, watch: &Watch<'_>) -> Result<usize, Error> {
        let Self { pipeline, request, found } = self;
        let done = found.header.done;
        let (first, prompts) = (done / request.pictures, (TOGETHER / request.pictures).max(1));
        let some = Request {
            prompts: request.prompts.iter().skip(first).take(prompts).cloned().collect(),
            seed: request.seed_of(done),
            ..request.clone()
        };
        let seen = RefCell::new(&mut *found);
        let tap = |reading: &Reading<'_>| seen.borrow_mut().take(reading, pipeline.device);
        let watch = Watch { tap: Some(&tap), ..*watch };
        if done == 0 {
            pipeline.draw(&some, &watch, &mut |_| Ok::<(), Error>(()))??;
        } else {
            // A decoder reads as many rows for a few pictures as others do for many.
            pipeline.latents(&some, &watch)?;
        }
        let found = seen.into_inner();
        found.header.done = done + some.total();
        Ok(found.header.done)
    }

    /// All that was found so far.
    pub fn found(&self) -> &Found {
        &self.found
    }
}

impl Found {
    /// Whether all pictures are in it.
    pub fn is_whole(&self) -> bool {
        self.header.is_whole()
    }

    fn take(&mut self, reading: &Reading<'_>, cpu: &Cpu) {
        let Op::Matmul(product) = &reading.step.op else { return };
        let name = |layer: &str| (reading.component.to_owned(), layer.to_owned());
        let own = name(&reading.step.name);
        let first = first_reader(reading.program, product.input.buffer);
        if let Some(first) = first.filter(|first| *first != reading.step.name) {
            self.same.insert(own, name(first));
            return;
        }
        let channels = product.inputs;
        let every = product.input_rows().div_ceil(ROWS).max(1);
        let rows = (reading.first..).zip(reading.numbers.chunks_exact(channels));
        let rows = rows.filter(|(row, _)| row.is_multiple_of(every));
        let rows: Vec<f32> = rows.flat_map(|(_, numbers)| numbers.iter().copied()).collect();
        let moments =
            self.sums.entry(own).or_insert_with(|| Moments::new(Blocks::new(channels, self.block)));
        moments.add(&rows, cpu);
        moments.add_taps(reading.numbers, product, cpu);
    }
}

/// The greatest block with which there is memory for all weights' inputs.
fn block(model: &Model) -> usize {
    let inputs = model.components().flat_map(|component| {
        let weights = &component.weights;
        weights.names().filter_map(|name| weights.shape(name)?.get(1).copied())
    });
    let inputs: Vec<usize> = inputs.collect();
    let bytes = |most: usize| -> usize {
        let blocks = inputs.iter().map(|channels| Blocks::new(*channels, most));
        blocks.map(|blocks| size_of::<f32>() * blocks.count() * blocks.sums()).sum()
    };
    let fits = BLOCKS.into_iter().find(|most| bytes(*most) <= MEMORY);
    fits.unwrap_or(BLOCKS[BLOCKS.len() - 1])
}

/// The first layer that multiplies a value by a weight.
fn first_reader(program: &Program, buffer: tensor::program::BufferId) -> Option<&str> {
    let reads = |op: &Op| matches!(op, Op::Matmul(product) if product.input.buffer == buffer);
    program.steps.iter().find(|step| reads(&step.op)).map(|step| step.name.as_str())
}

impl Model {
    /// The same model, whose weights are rounded by what was found wherever they become whole numbers.
    #[must_use]
    pub fn with_moments(mut self, found: Found) -> Self {
        let Found { header, sums, same, .. } = found;
        let sums = sums.into_iter().map(|(name, sums)| (name, Arc::new(sums)));
        let mut sums: BTreeMap<Name, Arc<Moments>> = sums.collect();
        for (name, first) in same {
            sums.extend(sums.get(&first).cloned().map(|shared| (name, shared)));
        }
        for component in self.components_mut() {
            let own = sums.iter().filter(|((of, _), _)| of == component.name);
            let own = own.map(|((_, layer), sums)| (layer.clone(), Arc::clone(sums)));
            component.weights = component.weights.clone().with_moments(own.collect());
        }
        self.calibrated = Some(crc32fast::hash(line(&header).as_bytes()));
        self
    }
}

#[cfg(test)]
mod tests;
