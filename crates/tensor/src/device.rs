//! What runs programs: the CPU, a naive reference that defines what is right, and later others.
//!
//! The seam carries buffer and slot numbers, never host slices, so that a device may keep its memory anywhere.

pub(crate) mod cpu;
mod reference;

pub use cpu::{Cpu, Weights as CpuWeights};
pub use reference::{Buffers, Loaded, Reference};

use std::sync::atomic::{AtomicBool, Ordering};

use crate::program::{Band, BufferId, Op, Program, Residency, Step, Target};
use crate::{Error, Weight};

/// Something that runs programs.
pub trait Device: Target {
    /// Its memory for the buffers of one program.
    type Memory;
    /// Weights in the forms that its kernels read, shared by programs of one model.
    type Weights: Default;

    /// What multiplies in `op`, for reports; `None` where nothing is multiplied with a weight.
    fn kernel(&self, op: &Op, program: &Program) -> Option<String>;

    /// Bring all weights of `program` that are not there yet into the form in which it needs them, or arrange for
    /// them to come when they are due, as `residency` says.
    ///
    /// # Errors
    ///
    /// If a weight cannot be read or is not finite, or the control says to stop.
    fn prepare_within(
        &self,
        weights: &mut Self::Weights,
        program: &Program,
        residency: &Residency,
        control: &Control<'_>,
    ) -> Result<(), Error>;

    /// Bring all weights of `program` that are not there yet into the form in which it needs them.
    ///
    /// # Errors
    ///
    /// As [`Device::prepare_within`].
    fn prepare(
        &self,
        weights: &mut Self::Weights,
        program: &Program,
        control: &Control<'_>,
    ) -> Result<(), Error> {
        self.prepare_within(weights, program, &Residency::default(), control)
    }

    /// Let go of those weights of `program` that `kept` does not need.
    fn forget(&self, weights: &mut Self::Weights, program: &Program, kept: &Program);

    /// Told before `steps` run for the first time in a run, however many bands and sessions they run for.
    fn before(&self, _steps: &[Step], _program: &Program, _weights: &Self::Weights) {}

    /// Told when `steps` are over for this run.
    fn after(&self, _steps: &[Step], _program: &Program, _weights: &Self::Weights) {}

    /// Memory for the buffers of `program`.
    ///
    /// # Errors
    ///
    /// If there is not enough.
    fn allocate(&self, program: &Program) -> Result<Self::Memory, Error>;

    /// Copy bytes into a buffer.
    fn write(&self, memory: &mut Self::Memory, buffer: BufferId, bytes: &[u8]);

    /// Copy the bytes of a buffer out.
    fn read(&self, memory: &Self::Memory, buffer: BufferId) -> Vec<u8>;

    /// Run one operation, on all rows or on those of a band. Its weights are borrowed for just as long.
    ///
    /// # Errors
    ///
    /// If a weight cannot be delivered.
    fn execute(
        &self,
        op: &Op,
        band: Option<&Band>,
        program: &Program,
        memory: &mut Self::Memory,
        weights: &Self::Weights,
    ) -> Result<(), Error>;
}

/// How a caller watches and stops long work. Both are looked at before every operation.
#[derive(Clone, Copy, Default)]
pub struct Control<'a> {
    /// Set by another thread to stop.
    pub cancel: Option<&'a AtomicBool>,
    /// Told how many operations are done, and of how many.
    pub progress: Option<&'a dyn Fn(usize, usize)>,
}

impl Control<'_> {
    /// Report progress, and fail if the caller wants to stop.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] if the flag is set.
    pub fn check(&self, done: usize, total: usize) -> Result<(), Error> {
        if let Some(progress) = self.progress {
            progress(done, total);
        }
        match self.cancel {
            Some(flag) if flag.load(Ordering::Relaxed) => Err(Error::Cancelled),
            _ => Ok(()),
        }
    }
}

/// The numbers of a weight as `f32`, checked to be finite.
fn vector(weight: &Weight) -> Result<Vec<f32>, Error> {
    let numbers = weight.view()?.to_f32();
    if numbers.iter().all(|x| x.is_finite()) {
        Ok(numbers)
    } else {
        Err(Error::NonFiniteWeight { name: weight.name().to_owned() })
    }
}

/// A row of a weight, `[channels, taps]` as checkpoints store it, as `[taps, padded]`.
fn by_tap(row: &[f32], taps: usize, padded: usize) -> Vec<f32> {
    let mut out = vec![0.0; taps * padded];
    for (tap, out) in out.chunks_exact_mut(padded).enumerate() {
        for (to, channel) in out.iter_mut().zip(row.chunks_exact(taps)) {
            *to = channel[tap];
        }
    }
    out
}
