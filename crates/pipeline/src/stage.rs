//! A network that is in memory: its weights on the device, and sessions for the sizes it is run at.

use std::sync::Arc;

use tensor::{Control, Device, Held, Program, Recording, Session};

use crate::memory::Load;
use crate::model::Component;
use crate::request::{Event, Phase, Watch};
use crate::{Error, TextToImage};

/// Weights of one network, and how to run it. Dropping it releases them.
pub(crate) struct Stage<'a, 'w, D: Device> {
    pipeline: &'a TextToImage<'a, D>,
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
        Self { pipeline, plan, weights: D::Weights::default(), phase, watch }
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
        Session::run_together(sessions, &self.weights, &control)?;
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
        session.run(&self.weights, &control)?;
        let values = session.hold()?;
        if !values.iter().all(Held::is_finite) {
            session.diagnose(&self.weights, &control)?;
        }
        Ok(values)
    }
}
