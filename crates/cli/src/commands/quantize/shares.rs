//! How the time that was given for measuring is shared out.

use std::time::Duration;

/// Parts that the time has.
const PARTS: u32 = 8;

/// For what layers read.
pub(super) const MOMENTS: u32 = 1;

/// For the effects of weights.
pub(super) const WEIGHTS: u32 = 4;

/// For those of activations alone.
pub(super) const ACTIVATIONS: u32 = 1;

/// For comparing plans of weights, and again for those of activations.
pub(super) const COMPARING: u32 = 1;

const _: () = assert!(MOMENTS + WEIGHTS + ACTIVATIONS + 2 * COMPARING == PARTS);

/// So many parts of the time, where there is a limit.
pub(super) fn of(time: Option<humantime::Duration>, parts: u32) -> Option<Duration> {
    time.map(|time| *time / PARTS * parts)
}
