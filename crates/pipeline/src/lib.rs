//! Prompt to picture: tokenizer, schedules, samplers, noise and the pipelines.

pub mod bench;
pub mod calibrate;
pub mod concepts;
mod decode;
mod denoise;
mod equalize;
mod error;
mod files;
mod first_token;
pub mod memory;
pub mod model;
pub mod moments;
pub mod noise;
pub mod pack;
mod phases;
mod picture;
mod plan;
pub mod probe;
pub mod prompt;
mod request;
pub mod sampler;
pub mod schedule;
pub mod similarity;
mod smooth;
mod stage;
mod text;
mod text_to_image;
mod trajectory;

pub use error::Error;
pub use model::Model;
pub use picture::Picture;
pub use plan::{FirstToken, Known, Plan, Run};
pub use request::{Decode, Event, Overflow, Phase, Reading, Request, Watch};
pub use text_to_image::{Drawn, Settings, TextToImage};
