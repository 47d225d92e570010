//! How long a picture takes in each format, and how much of that each layer.

use std::collections::BTreeMap;
use std::time::Duration;

use tensor::{Device, LayerFormat, Plan, Precision};

use super::Probe;
use crate::Error;

/// What a component takes for one picture with all its layers in one format.
#[derive(Clone, Debug, Default)]
pub struct Times {
    /// All of it.
    pub whole: Duration,
    /// Each layer that multiplies by a weight, by name.
    pub layers: BTreeMap<String, Duration>,
}

impl<D: Device> Probe<'_, '_, D> {
    /// Run a component with all its layers in this format; `None` is real numbers of this precision.
    ///
    /// # Errors
    ///
    /// As [`Probe::measure`].
    pub fn times(
        &mut self,
        component: &str,
        (format, precision): (Option<LayerFormat>, Precision),
    ) -> Result<Times, Error> {
        let pictures = self.real.len();
        let steps = self.denoiser.times.len();
        let own = self.layers.iter().filter(|layer| layer.component == component);
        let own: Vec<_> = own.cloned().collect();
        if let Some(first) = own.first() {
            self.make_room_for(first);
        }
        let layers: Vec<String> = own.into_iter().map(|layer| layer.name).collect();
        let mut plan = Plan::uniform(precision);
        if let Some(format) = format {
            plan.layers.extend(layers.iter().map(|name| (name.clone(), format)));
        }
        let (network, times) = match component {
            "unet" => (&mut self.denoiser.network, steps as f64),
            "vae" => (&mut self.decoder.network, 1.0),
            _ => {
                let network = self.encoders.network_mut(component);
                let calls = network.calls().len();
                (network, calls as f64 / pictures.max(1) as f64)
            }
        };
        let (whole, mut each) = network.times(&plan)?;
        each.retain(|name, _| layers.contains(name));
        let layers = each.into_iter().map(|(name, time)| (name, time.mul_f64(times)));
        Ok(Times { whole: whole.mul_f64(times), layers: layers.collect() })
    }
}
