//! Which number format each layer gets, and why.
//!
//! The method is that of MixDQ (Zhao et al., ECCV 2024, arXiv 2405.17873): layers that carry what a picture shows
//! and layers that form how it looks are measured by different scores, share the bits between them at a ratio,
//! and each group takes the bits with the greatest sum of scores.
//!
//! | step | module |
//! |---|---|
//! | what layers read, and the ranges that follow | [`calibration`] |
//! | which group a layer belongs to | [`group`] |
//! | scores and costs as files | [`table`] |
//! | how the bits are shared, and which shares are tried | [`budget`] |
//! | the most sensitive layers taken out, the bits of the others | [`allocation`] |
//! | scores by measuring, as files | [`sensitivity`], [`metrics`] |
//! | what was not measured | [`inference`] |
//! | formats by the bytes that they take | [`formats`] |
//! | the integer programme of one group | [`programme`], [`knapsack`] |

pub mod allocation;
pub mod budget;
pub mod calibration;
mod error;
pub mod formats;
mod grid;
pub mod group;
pub mod inference;
pub mod kind;
pub mod knapsack;
pub mod metrics;
pub mod programme;
pub mod sensitivity;
pub mod table;

pub use allocation::{Allocation, Problem};
pub use budget::Budget;
pub use error::Error;
pub use group::Group;
pub use kind::Kind;
