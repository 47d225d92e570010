//! One module for each command.

pub(crate) mod allocate;
pub(crate) mod bench;
pub(crate) mod calibrate;
pub(crate) mod doctor;
pub(crate) mod drawing;
pub(crate) mod engine;
pub(crate) mod evaluate;
pub(crate) mod generate;
pub(crate) mod inspect;
pub(crate) mod memory;
pub(crate) mod moments;
pub(crate) mod quantize;
pub(crate) mod sensitivity;
