//! How a model draws unless a request says otherwise, where a plan was made for that.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::model::{Default, Defaults};
use crate::schedule::{NoiseSchedule, SamplingMethod};

/// Where these defaults come from, as a report says it.
const FROM: &str = "the run that it was calibrated for";

/// The run in which a plan's ranges were found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Run {
    /// Sampling steps.
    pub steps: usize,
    /// Guidance scale.
    pub guidance: f32,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// The sampling method, where it is not that of the model's scheduler.
    pub method: Option<SamplingMethod>,
    /// The spacing of the noise levels, where it is not that of the model's scheduler.
    pub schedule: Option<NoiseSchedule>,
}

/// The same with names, as a file has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    steps: usize,
    guidance: f32,
    width: usize,
    height: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    sampling_method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduler: Option<String>,
}

impl Run {
    /// What a model wants that draws so.
    pub(crate) fn defaults(&self) -> Defaults {
        Defaults {
            steps: Default { value: self.steps, from: FROM },
            guidance: Default { value: self.guidance, from: FROM },
            size: Default { value: [self.height, self.width], from: FROM },
            method: Default { value: self.method, from: FROM },
            schedule: self.schedule,
        }
    }
}

impl TryFrom<Written> for Run {
    type Error = Error;

    fn try_from(written: Written) -> Result<Self, Error> {
        let Written { steps, guidance, width, height, sampling_method, scheduler } = written;
        let method = sampling_method.as_deref().map(str::parse).transpose()?;
        let schedule = scheduler.as_deref().map(str::parse).transpose()?;
        Ok(Self { steps, guidance, width, height, method, schedule })
    }
}

impl From<Run> for Written {
    fn from(run: Run) -> Self {
        let Run { steps, guidance, width, height, method, schedule } = run;
        let sampling_method = method.map(|method| method.name().to_owned());
        let scheduler = schedule.map(|schedule| schedule.name().to_owned());
        Self { steps, guidance, width, height, sampling_method, scheduler }
    }
}
