//! Schedules: which noise levels a sampler visits, as `scheduler_config.json` and the caller say.
//!
//! A diffusion model is trained on `x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) e` with `a_t` the
//! cumulative product of `1 - beta`. A schedule picks a falling row of timesteps `t`, or of noise
//! levels `sigma = sqrt((1 - a) / a)`, from the training table. The functions here are pure and
//! follow the arithmetic of diffusers, single precision where it uses single precision, so that a
//! picture does not depend on which of the two programs made it.
//!
//! - [`SchedulerConfig`] reads the file, applies what the caller overrides, and makes the sampler.
//! - [`Table`] is the training table; [`Path`] is the row of timesteps and sigmas of one picture.
//!
//! ```
//! use pipeline::schedule::{NoiseSchedule, SamplingMethod, SchedulerConfig};
//!
//! let text = r#"{"_class_name": "EulerDiscreteScheduler", "beta_schedule": "scaled_linear",
//!                "beta_start": 0.00085, "beta_end": 0.012, "timestep_spacing": "trailing"}"#;
//! let config = SchedulerConfig::from_json(text)?;
//! assert_eq!(config.sampler(4)?.timesteps(), [999.0, 749.0, 499.0, 249.0]);
//!
//! let method: SamplingMethod = "dpm++2m".parse()?;
//! let config = config.with_method(method)?.with_schedule(NoiseSchedule::Karras)?;
//! assert_eq!(config.sampler(20)?.timesteps().len(), 20);
//! # Ok::<(), pipeline::schedule::Error>(())
//! ```

mod beta_quantile;
mod config;
mod error;
mod fields;
mod method;
mod options;
mod path;
mod settings;
mod spacing;
mod table;

pub use config::{SchedulerConfig, json_with_infinities};
pub use error::Error;
pub use method::{Family, NoiseSchedule, SamplingMethod};
pub use options::{
    Algorithm, BetaCurve, FinalAlpha, FinalSigma, Interpolation, Limit, Prediction, SigmaCurve,
    Solver, SolverKind, SolverTarget, Spacing, TimestepScale, WarmUp,
};
pub use path::Path;
pub use settings::Settings;
pub use table::Table;

pub(crate) use spacing::{distilled, integer};
