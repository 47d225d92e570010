//! A network that is in memory: its weights on the device, and sessions for the sizes it is run at.

use tensor::{Control, Device, Recording, Session};

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

    /// Compile a recording and bring its weights into memory.
    pub(crate) fn session(&mut self, recording: &Recording) -> Result<Session<'a, D>, Error> {
        let session = Session::new(self.pipeline.device, recording, &self.plan)?;
        let progress = |done, total| self.watch.tell(Event::Loading(self.phase, done, total));
        let control = Control { cancel: self.watch.cancel, progress: Some(&progress) };
        self.pipeline.device.prepare(&mut self.weights, session.program(), &control)?;
        Ok(session)
    }

    /// Run a session whose inputs are set, as part `part` of `parts` of the phase.
    ///
    /// # Errors
    ///
    /// If `output` holds NaN or infinity, the first layer that made one is named.
    pub(crate) fn run(
        &self,
        session: &mut Session<'a, D>,
        output: &str,
        (part, parts): (usize, usize),
    ) -> Result<Vec<f32>, Error> {
        let progress = |done: usize, total: usize| {
            self.watch.tell(Event::Working(self.phase, part * total + done, parts * total));
        };
        let control = Control { cancel: self.watch.cancel, progress: Some(&progress) };
        session.run(&self.weights, &control)?;
        let numbers = session.read(output)?;
        if !numbers.iter().all(|x| x.is_finite()) {
            session.diagnose(&self.weights, &control)?;
        }
        Ok(numbers)
    }
}
