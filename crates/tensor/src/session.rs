//! A program with its memory: write inputs, run, read outputs.

use std::borrow::Cow;
use std::sync::Arc;

use half::bf16;
use os::Region;

use crate::device::{Control, Device};
use crate::program::{Band, BufferId, Format, Op, Operand, Port, Program, Step};
use crate::{Error, Plan, Recording};

/// A program that is ready to run on a device.
#[derive(Debug)]
pub struct Session<'d, D: Device> {
    device: &'d D,
    program: Arc<Program>,
    memory: D::Memory,
    inputs: Vec<Input>,
}

/// What was written to an input.
#[derive(Clone, Debug)]
enum Input {
    Missing,
    /// The arena reuses its place during a run, so it is written anew before each.
    Staged(Vec<u8>),
    /// It lies in its place.
    Kept,
}

/// A value on its way from one program to another, in the format in which both have it. Its memory goes back to the
/// system with it.
#[derive(Clone, Debug)]
pub struct Held {
    name: String,
    format: Format,
    bytes: Arc<Region>,
}

impl Held {
    /// The name of the input that it is for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same for an input of another name.
    pub fn named(self, name: String) -> Self {
        Self { name, ..self }
    }

    /// Whether it holds neither NaN nor infinity.
    pub fn is_finite(&self) -> bool {
        is_finite(self.format, self.bytes.as_slice())
    }

    /// The same with other numbers in some of its rows, rounded if it is in fewer bits.
    ///
    /// # Errors
    ///
    /// If there is no memory for it.
    ///
    /// # Panics
    ///
    /// If a row is beyond its end: a fault of the caller.
    pub fn with_rows(&self, rows: &[(usize, Vec<f32>)]) -> Result<Self, Error> {
        let bytes = self.bytes.as_slice();
        let memory = |error| Error::Memory { bytes: bytes.len(), error };
        let mut region = Region::new(bytes.len()).map_err(memory)?;
        region.as_mut_slice().copy_from_slice(bytes);
        for (row, numbers) in rows {
            let width = numbers.len() * self.format.width();
            let to = &mut region.as_mut_slice()[row * width..][..width];
            match self.format {
                Format::Bf16 => {
                    let pairs = to.as_chunks_mut::<2>().0.iter_mut().zip(numbers);
                    pairs.for_each(|(to, x)| *to = bf16::from_f32(*x).to_le_bytes());
                }
                _ => to.copy_from_slice(bytemuck::cast_slice(numbers)),
            }
        }
        Ok(Self { bytes: Arc::new(region), ..self.clone() })
    }

    /// Its numbers.
    pub fn numbers(&self) -> Vec<f32> {
        match self.format {
            Format::Bf16 => {
                let pairs = self.bytes.as_slice().as_chunks::<2>().0.iter();
                pairs.map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect()
            }
            _ => bytemuck::pod_collect_to_vec(self.bytes.as_slice()),
        }
    }
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
    pub fn with_program(device: &'d D, program: impl Into<Arc<Program>>) -> Result<Self, Error> {
        let program = program.into();
        let memory = device.allocate(&program)?;
        let inputs = vec![Input::Missing; program.inputs.len()];
        Ok(Self { device, program, memory, inputs })
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Another session of the same program, with memory of its own. See [`Session::run_together`].
    ///
    /// # Errors
    ///
    /// If the memory cannot be allocated.
    pub fn twin(&self) -> Result<Self, Error> {
        Self::with_program(self.device, Arc::clone(&self.program))
    }

    /// Set an input of real numbers, rounded if it is kept in fewer bits. It stays set for later runs.
    ///
    /// # Errors
    ///
    /// If there is no such input or its size is another.
    pub fn write(&mut self, name: &str, numbers: &[f32]) -> Result<(), Error> {
        let port = self.program.input(name).map(|at| self.program.inputs[at].buffer);
        if port.is_some_and(|buffer| self.program.buffer(buffer).format == Format::Bf16) {
            let rounded: Vec<u16> = numbers.iter().map(|x| bf16::from_f32(*x).to_bits()).collect();
            return self.stage(name, Format::Bf16, bytemuck::cast_slice(&rounded)).map(|_| ());
        }
        self.stage(name, Format::F32, bytemuck::cast_slice(numbers)).map(|_| ())
    }

    /// Set those inputs that are among these values of another program, rounded if they are kept in fewer bits. They
    /// stay set for later runs.
    ///
    /// # Errors
    ///
    /// If an input is another in size or format.
    pub fn restore(&mut self, values: &[Held]) -> Result<(), Error> {
        for value in values {
            match self.program.input(&value.name) {
                Some(_) if value.format == Format::F32 => {
                    self.write(&value.name, bytemuck::cast_slice(value.bytes.as_slice()))?;
                }
                Some(_) => {
                    self.stage(&value.name, value.format, value.bytes.as_slice())?;
                }
                None => {}
            }
        }
        Ok(())
    }

    /// All outputs of the last run, for another program.
    ///
    /// # Errors
    ///
    /// If there is no memory for them.
    pub fn hold(&self) -> Result<Vec<Held>, Error> {
        let held = |port: &Port| {
            let bytes = self.device.read(&self.memory, port.buffer);
            let memory = |error| Error::Memory { bytes: bytes.len(), error };
            let mut region = Region::new(bytes.len()).map_err(memory)?;
            region.as_mut_slice().copy_from_slice(&bytes);
            let format = self.program.buffer(port.buffer).format;
            Ok(Held { name: port.name.clone(), format, bytes: Arc::new(region) })
        };
        self.program.outputs.iter().map(held).collect()
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
        let at = self.program.input(name);
        let at = at.ok_or_else(|| fault(name, "is not an input of this program".into()))?;
        let program = &self.program;
        let port = &program.inputs[at];
        let buffer = self.program.buffer(port.buffer);
        if buffer.format != format || buffer.bytes() != bytes.len() {
            let found = bytes.len() / format.width();
            return Err(fault(
                name,
                format!("has shape {}, but {found} numbers were given", port.shape),
            ));
        }
        self.inputs[at] = if port.kept {
            self.device.write(&mut self.memory, port.buffer, bytes);
            Input::Kept
        } else {
            Input::Staged(bytes.to_vec())
        };
        Ok(port)
    }

    /// Run all operations.
    ///
    /// # Errors
    ///
    /// If an input is missing, a weight cannot be delivered, or the control says to stop.
    pub fn run(&mut self, weights: &D::Weights, control: &Control<'_>) -> Result<(), Error> {
        Self::run_together(std::slice::from_mut(self), weights, control)
    }

    /// Run sessions of one program in step, so that each weight is read once for all of them. Their results are
    /// those of running them one by one.
    ///
    /// # Errors
    ///
    /// As [`Session::run`].
    pub fn run_together(
        sessions: &mut [Self],
        weights: &D::Weights,
        control: &Control<'_>,
    ) -> Result<(), Error> {
        Self::run_with(sessions, weights, control, |_, _, _| Ok(()))
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
        let sessions = std::slice::from_mut(self);
        Self::run_with(sessions, weights, control, |session, step, _| {
            after(&session.program.steps[step]);
            Ok(())
        })
    }

    /// Run all operations and show `tap` what each product with a weight reads: the layer's step, the first of the rows,
    /// and the rows. Where rows run in bands, they come band by band.
    ///
    /// # Errors
    ///
    /// As [`Session::run`].
    pub fn tap(
        &mut self,
        weights: &D::Weights,
        control: &Control<'_>,
        tap: &mut dyn FnMut(&Step, usize, &[f32]),
    ) -> Result<(), Error> {
        let sessions = std::slice::from_mut(self);
        Self::run_with(sessions, weights, control, |session, step, band| {
            let step = &session.program.steps[step];
            let Op::Matmul(product) = &step.op else { return Ok(()) };
            // No result overwrites an operand of the same operation, so it is still there.
            let Operand { buffer, format } = product.input;
            let first = band.map_or(0, |band| band.rows.start);
            let bytes = session.rows(buffer, band);
            match format {
                Format::Bf16 => {
                    let bits: Vec<u16> = bytemuck::pod_collect_to_vec(&bytes);
                    let numbers = bits.iter().map(|bits| bf16::from_bits(*bits).to_f32());
                    tap(step, first, &numbers.collect::<Vec<_>>());
                }
                Format::F32 => tap(step, first, &bytemuck::pod_collect_to_vec::<u8, f32>(&bytes)),
                // Codes say nothing of what was cut off when they were made.
                _ => {}
            }
            Ok(())
        })
    }

    /// Run all operations and look at each result: find the first layer that produced NaN or infinity.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] with its name, and what [`Session::run`] reports.
    pub fn diagnose(&mut self, weights: &D::Weights, control: &Control<'_>) -> Result<(), Error> {
        let sessions = std::slice::from_mut(self);
        Self::run_with(sessions, weights, control, |session, step, band| {
            let step = &session.program.steps[step];
            let results = step.op.results().into_iter();
            let finite = results
                .map(|b| (session.program.buffer(b).format, session.rows(b, band)))
                .all(|(format, bytes)| is_finite(format, &bytes));
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
        sessions: &mut [Self],
        weights: &D::Weights,
        control: &Control<'_>,
        mut after: impl FnMut(&Self, usize, Option<&Band>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(first) = sessions.first() else { return Ok(()) };
        let (device, program) = (first.device, Arc::clone(&first.program));
        for session in &mut *sessions {
            assert!(Arc::ptr_eq(&program, &session.program), "sessions of one program");
            session.place_inputs()?;
        }
        let mut run = |step: usize, band: Option<&Band>| {
            let op = &program.steps[step].op;
            let op = band.map_or(Cow::Borrowed(op), |band| Cow::Owned(band.of(op)));
            for session in &mut *sessions {
                session.device.execute(&op, band, &program, &mut session.memory, weights)?;
                after(session, step, band)?;
            }
            Ok::<(), Error>(())
        };
        let total = program.steps.len();
        for steps in program.groups() {
            control.check(steps.start, total)?;
            device.before(&program.steps[steps.clone()], &program, weights);
            match program.bands.iter().find(|bands| bands.steps == steps) {
                None => run(steps.start, None)?,
                Some(bands) => {
                    for band in bands.iter() {
                        let done = bands.steps.len() * band.rows.start / bands.rows;
                        control.check(steps.start + done, total)?;
                        for step in steps.clone() {
                            run(step, Some(&band))?;
                        }
                    }
                }
            }
            device.after(&program.steps[steps], &program, weights);
        }
        control.check(total, total)
    }

    /// Bring what was written to the places where operations read it.
    fn place_inputs(&mut self) -> Result<(), Error> {
        for (port, input) in self.program.inputs.iter().zip(&self.inputs) {
            match input {
                Input::Missing => return Err(fault(&port.name, "was not set".into())),
                Input::Staged(bytes) => self.device.write(&mut self.memory, port.buffer, bytes),
                Input::Kept => {}
            }
        }
        Ok(())
    }

    /// An output of the last run.
    ///
    /// # Errors
    ///
    /// If there is no such output.
    pub fn read(&self, name: &str) -> Result<Vec<f32>, Error> {
        let port = self.program.outputs.iter().find(|port| port.name == name);
        let port = port.ok_or_else(|| fault(name, "is not an output of this program".into()))?;
        if self.program.buffer(port.buffer).format != Format::F32 {
            return Err(fault(name, "is not of real numbers of 32 bits".into()));
        }
        let bytes = self.device.read(&self.memory, port.buffer);
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }
}

/// Whether real numbers hold neither NaN nor infinity, whose exponents have all bits set.
fn is_finite(format: Format, bytes: &[u8]) -> bool {
    let finite = |upper: [u8; 2]| u16::from_le_bytes(upper) & 0x7f80 != 0x7f80;
    match format {
        Format::F32 => bytes.as_chunks::<4>().0.iter().all(|&[_, _, c, d]| finite([c, d])),
        Format::Bf16 => bytes.as_chunks::<2>().0.iter().all(|&upper| finite(upper)),
        _ => true,
    }
}

fn fault(name: &str, fault: String) -> Error {
    Error::Port { name: name.to_owned(), fault }
}
