//! Prompt to picture: tokenizer, schedules, samplers, noise and the pipelines.

pub mod noise;
pub mod prompt;
pub mod sampler;
pub mod schedule;
