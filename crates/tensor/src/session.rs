//! A program with its memory: write inputs, run, read outputs.

use crate::device::{Control, Device};
use crate::program::{Band, BufferId, Format, Port, Program, Step};
use crate::{Error, Plan, Recording};

/// A program that is ready to run on a device.
#[derive(Debug)]
pub struct Session<'d, D: Device> {
    device: &'d D,
    program: Program,
    memory: D::Memory,
    /// Bytes of each input. The arena reuses their places during a run, so they are written anew before each.
    staged: Vec<Option<Vec<u8>>>,
}

impl<'d, D: Device> Session<'d, D> {
    /// Compile all of a recording for `device` and allocate its memory.
    ///
    /// # Errors
    ///
    /// If the memory cannot be allocated.
    pub fn new(device: &'d D, recording: &Recording, plan: &Plan) -> Result<Self, Error> {
        Self::with_program(device, Program::compile(recording, plan, device))
    }

    /// Allocate the memory of a compiled program.
    ///
    /// # Errors
    ///
    /// If the memory cannot be allocated.
    pub fn with_program(device: &'d D, program: Program) -> Result<Self, Error> {
        let memory = device.allocate(&program)?;
        let staged = vec![None; program.inputs.len()];
        Ok(Self { device, program, memory, staged })
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Set an input of real numbers. It stays set for later runs.
    ///
    /// # Errors
    ///
    /// If there is no such input or its size is another.
    pub fn write(&mut self, name: &str, numbers: &[f32]) -> Result<(), Error> {
        self.stage(name, Format::F32, bytemuck::cast_slice(numbers)).map(|_| ())
    }

    /// Set an input of indices. It stays set for later runs.
    ///
    /// # Errors
    ///
    /// If there is no such input, its size is another, or an index is beyond the table it chooses from.
    pub fn write_index(&mut self, name: &str, indices: &[u32]) -> Result<(), Error> {
        let limit = self.stage(name, Format::Index, bytemuck::cast_slice(indices))?.limit;
        match (limit, indices.iter().max()) {
            (Some(limit), Some(&most)) if most as usize >= limit => Err(fault(
                name,
                format!("holds the index {most}, but there are only {limit} entries"),
            )),
            _ => Ok(()),
        }
    }

    fn stage(&mut self, name: &str, format: Format, bytes: &[u8]) -> Result<&Port, Error> {
        let at = self.program.inputs.iter().position(|port| port.name == name);
        let at = at.ok_or_else(|| fault(name, "is not an input of this program".into()))?;
        let port = &self.program.inputs[at];
        let buffer = self.program.buffer(port.buffer);
        if buffer.format != format || buffer.bytes() != bytes.len() {
            let found = bytes.len() / format.width();
            return Err(fault(
                name,
                format!("has shape {}, but {found} numbers were given", port.shape),
            ));
        }
        self.staged[at] = Some(bytes.to_vec());
        Ok(port)
    }

    /// Run all operations.
    ///
    /// # Errors
    ///
    /// If an input is missing, a weight cannot be delivered, or the control says to stop.
    pub fn run(&mut self, weights: &D::Weights, control: &Control<'_>) -> Result<(), Error> {
        self.run_with(weights, control, |_, _, _| Ok(()))
    }

    /// Run all operations and tell `after` of each that is done; of those that run in bands, once for each band.
    ///
    /// # Errors
    ///
    /// As [`Session::run`].
    pub fn observe(
        &mut self,
        weights: &D::Weights,
        control: &Control<'_>,
        after: &mut dyn FnMut(&Step),
    ) -> Result<(), Error> {
        self.run_with(weights, control, |session, step, _| {
            after(&session.program.steps[step]);
            Ok(())
        })
    }

    /// Run all operations and look at each result: find the first layer that produced NaN or infinity.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] with its name, and what [`Session::run`] reports.
    pub fn diagnose(&mut self, weights: &D::Weights, control: &Control<'_>) -> Result<(), Error> {
        self.run_with(weights, control, |session, step, band| {
            let step = &session.program.steps[step];
            let results = step.op.results().into_iter();
            let f32 = results.filter(|b| session.program.buffer(*b).format == Format::F32);
            let finite = f32.map(|b| session.rows(b, band)).all(|bytes| {
                bytes
                    .chunks_exact(4)
                    .all(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).is_finite())
            });
            if finite { Ok(()) } else { Err(Error::NonFinite { layer: step.name.clone() }) }
        })
    }

    /// The bytes of a buffer, or of the rows of a band.
    fn rows(&self, id: BufferId, band: Option<&Band>) -> Vec<u8> {
        let mut bytes = self.device.read(&self.memory, id);
        if let Some(rows) = band.map(|band| band.bytes(self.program.buffer(id))) {
            bytes.truncate(rows.end);
            bytes.drain(..rows.start);
        }
        bytes
    }

    fn run_with(
        &mut self,
        weights: &D::Weights,
        control: &Control<'_>,
        mut after: impl FnMut(&Self, usize, Option<&Band>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for (port, bytes) in self.program.inputs.iter().zip(&self.staged) {
            let bytes = bytes.as_ref().ok_or_else(|| fault(&port.name, "was not set".into()))?;
            self.device.write(&mut self.memory, port.buffer, bytes);
        }
        let total = self.program.steps.len();
        let mut step = 0;
        while step < total {
            let bands = self.program.bands.iter().find(|bands| bands.steps.start == step).cloned();
            let Some(bands) = bands else {
                control.check(step, total)?;
                let op = &self.program.steps[step].op;
                self.device.execute(op, None, &self.program, &mut self.memory, weights)?;
                after(self, step, None)?;
                step += 1;
                continue;
            };
            for band in bands.iter() {
                let done = bands.steps.len() * band.rows.start / bands.rows;
                control.check(bands.steps.start + done, total)?;
                for step in bands.steps.clone() {
                    let op = band.of(&self.program.steps[step].op);
                    self.device.execute(
                        &op,
                        Some(&band),
                        &self.program,
                        &mut self.memory,
                        weights,
                    )?;
                    after(self, step, Some(&band))?;
                }
            }
            step = bands.steps.end;
        }
        control.check(total, total)
    }

    /// An output of the last run.
    ///
    /// # Errors
    ///
    /// If there is no such output.
    pub fn read(&self, name: &str) -> Result<Vec<f32>, Error> {
        let port = self.program.outputs.iter().find(|port| port.name == name);
        let port = port.ok_or_else(|| fault(name, "is not an output of this program".into()))?;
        let bytes = self.device.read(&self.memory, port.buffer);
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }
}

fn fault(name: &str, fault: String) -> Error {
    Error::Port { name: name.to_owned(), fault }
}
