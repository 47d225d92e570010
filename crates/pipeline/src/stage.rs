//! A network that is in memory: its weights on the device, and sessions for the sizes it is run at.

use std::sync::Arc;

use tensor::{Control, Device, Held, Program, Recording, Session};

use crate::memory::Load;
use crate::model::Component;
use crate::request::{Event, Phase, Reading, Watch};
use crate::{Error, TextToImage};

/// Weights of one network, and how to run it. Dropping it releases them.
pub(crate) struct Stage<'a, 'w, D: Device> {
    pipeline: &'a TextToImage<'a, D>,
    component: &'static str,
    plan: tensor::Plan,
    weights: D::Weights,
    phase: Phase,
    watch: &'w Watch<'w>,
}

impl<'a, 'w, D: Device> Stage<'a, 'w, D> {
    pub(crate) fn new(
        pipeline: &'a TextToImage<'a, D>,
        component: &Component,
        (phase, watch): (Phase, &'w Watch<'w>),
    ) -> Self {
        let plan = pipeline.plan.component(component.name);
        let (component, weights) = (component.name, D::Weights::default());
        Self { pipeline, component, plan, weights, phase, watch }
    }

    /// What a recording becomes here.
    pub(crate) fn compile(&self, recording: &Recording) -> Program {
        Program::compile(recording, &self.plan, self.pipeline.device)
    }

    /// Sessions of a program, with its weights in memory or on their way, as the room allows.
    pub(crate) fn sessions(
        &mut self,
        program: Program,
        load: Load,
    ) -> Result<Vec<Session<'a, D>>, Error> {
        let (device, program) = (self.pipeline.device, Arc::new(program));
        let residency = self.pipeline.residency(&program, load)?;
        let progress = |done, total| self.watch.tell(Event::Loading(self.phase, done, total));
        let control = Control { cancel: self.watch.cancel, progress: Some(&progress) };
        device.prepare_within(&mut self.weights, &program, &residency, &control)?;
        let session = |_| Ok(Session::with_program(device, Arc::clone(&program))?);
        (0..load.together).map(session).collect()
    }

    /// Run sessions of one program whose inputs are set, as part `part` of `parts` of the phase, and read `output`
    /// of each.
    ///
    /// # Errors
    ///
    /// If an output holds NaN or infinity, the first layer that made one is named.
    pub(crate) fn run(
        &self,
        sessions: &mut [Session<'a, D>],
        output: &str,
        (part, parts): (usize, usize),
    ) -> Result<Vec<Vec<f32>>, Error> {
        let progress = |done: usize, total: usize| {
            self.watch.tell(Event::Working(self.phase, part * total + done, parts * total));
        };
        let control = Control { cancel: self.watch.cancel, progress: Some(&progress) };
        self.run_all(sessions, &control)?;
        let read = |session: &mut Session<'a, D>| {
            let numbers = session.read(output)?;
            if !numbers.iter().all(|x| x.is_finite()) {
                session.diagnose(&self.weights, &control)?;
            }
            Ok(numbers)
        };
        sessions.iter_mut().map(read).collect()
    }

    /// Run a session whose inputs are set, for its outputs in their own formats.
    ///
    /// # Errors
    ///
    /// As [`Stage::run`].
    pub(crate) fn hold(&self, session: &mut Session<'a, D>) -> Result<Vec<Held>, Error> {
        let control = Control { cancel: self.watch.cancel, progress: None };
        self.run_all(std::slice::from_mut(session), &control)?;
        let values = session.hold()?;
        if !values.iter().all(Held::is_finite) {
            session.diagnose(&self.weights, &control)?;
        }
        Ok(values)
    }

    /// Run sessions of one program in step, or one by one where somebody looks at what layers read.
    fn run_all(&self, sessions: &mut [Session<'a, D>], control: &Control<'_>) -> Result<(), Error> {
        let Some(tap) = self.watch.tap else {
            return Ok(Session::run_together(sessions, &self.weights, control)?);
        };
        let component = self.component;
        for session in sessions {
            let program = session.program().clone();
            session.tap(&self.weights, control, &mut |step, first, numbers| {
                tap(&Reading { component, program: &program, step, first, numbers });
            })?;
        }
        Ok(())
    }
}
