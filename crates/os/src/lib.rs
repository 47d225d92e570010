//! Everything that is asked of the operating system: file maps, large zeroed memory, what this
//! process holds of the machine's memory, on which cores its threads run, and which of their registers.
//!
//! It is the only crate that does so. Whatever a system cannot do has a plain substitute here
//! (an advice that is not given, a number that is `None`), so no caller names a system.
//!
//! ```
//! let mut region = os::Region::new(4096)?;
//! assert_eq!(region.as_slice()[4095], 0);
//! region.as_mut_slice()[0] = 1;
//! # Ok::<(), std::io::Error>(())
//! ```

mod mapping;
mod memory;
mod region;
mod thread;
mod tiles;

pub use mapping::Mapping;
pub use memory::{available_memory, peak_rss, reset_peak, return_freed, rss};
pub use region::{ALIGNMENT, Region};
pub use thread::{CoreSet, Watch};
pub use tiles::permit_tiles;
