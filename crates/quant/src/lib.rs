//! Which number format each layer gets, and why.

mod grid;
pub mod knapsack;
pub mod programme;
