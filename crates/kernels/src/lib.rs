//! Vectorised kernels over slices, written once and compiled for every instruction set.
//!
//! An operation is a struct of its arguments with a method `run(&cpu)`. A [`Cpu`] is the pool of
//! threads and the instruction set to use, both chosen once. The pool hands out chunks of the
//! operation; the instruction set is entered per chunk, inside the thread that runs it. Images are
//! `[batch, height, width, channels]`, token sequences `[batch, tokens, channels]`; rows may be
//! further apart than they are long, which the field `stride` says. Scratch memory is an argument.
//!
//! Results in `f32` do not depend on the instruction set, on the number of threads or on the order
//! in which they take chunks. To see that a kernel was inlined into the function that enables its
//! target features, look for calls in the disassembly of `isa::…::eval::enabled`.
//!
//! ```
//! use kernels::{Cpu, threads::Output, activation::{Activate, Activation, Extent}};
//!
//! let mut out = [0.0; 3];
//! Activate {
//!     input: &[-1.0, 0.0, 2.0],
//!     extent: Extent { rows: 1, columns: 3, stride: 3 },
//!     activation: Activation::Relu,
//!     output: Output::f32(&mut out, 3),
//! }
//! .run(&Cpu::detect(1));
//! assert_eq!(out, [0.0, 0.0, 2.0]);
//! ```

pub mod activation;
pub mod attention;
pub mod convert;
pub mod format;
pub mod isa;
pub mod math;
pub mod matmul;
pub mod moments;
pub mod norm;
pub mod peak;
pub mod quantize;
pub mod reference;
pub mod resample;
pub mod threads;

mod scratch;

use isa::{Bf16Op, Int8Op, Int16OnlyOp, Int16Op, Level, Simd, SimdOp, tiles::TileOp};
use threads::Threads;

/// What operations run on: a pool of threads and an instruction set.
#[derive(Debug)]
pub struct Cpu {
    /// The pool.
    pub threads: Threads,
    simd: Simd,
}

impl Cpu {
    /// Use `threads` and the instruction set `level`; `None` if this CPU does not have it.
    pub fn new(threads: Threads, level: Level) -> Option<Self> {
        Simd::new(level).map(|simd| Self { threads, simd })
    }

    /// Use `threads` threads and the fastest instruction set.
    pub fn detect(threads: usize) -> Self {
        let simd = Simd::new(Level::detect()).unwrap_or(Simd::Scalar(isa::Scalar));
        Self { threads: Threads::new(threads), simd }
    }

    /// The instruction set in use.
    pub fn level(&self) -> Level {
        self.simd.level()
    }

    /// Whether products of bf16 pairs are an instruction.
    pub fn has_bf16_dot(&self) -> bool {
        self.simd.has_bf16_dot()
    }

    /// Whether numbers of 16 bits are multiplied.
    pub fn has_int16(&self) -> bool {
        self.simd.has_int16()
    }

    /// Whether bytes are multiplied in lanes of 16 bits only.
    pub fn has_int16_only(&self) -> bool {
        self.simd.has_int16_only()
    }

    /// Evaluate `op` with the instruction set in use.
    pub fn eval<O: SimdOp>(&self, op: O) -> O::Output {
        self.simd.eval(op)
    }

    /// Evaluate `op` if the instruction set multiplies bf16 pairs, else give it back.
    ///
    /// # Errors
    ///
    /// Returns `op` itself.
    pub fn eval_bf16<O: Bf16Op>(&self, op: O) -> Result<O::Output, O> {
        self.simd.eval_bf16(op)
    }

    /// Evaluate `op` if the instruction set multiplies numbers of 16 bits, else give it back.
    ///
    /// # Errors
    ///
    /// Returns `op` itself.
    pub fn eval_int16<O: Int16Op>(&self, op: O) -> Result<O::Output, O> {
        self.simd.eval_int16(op)
    }

    /// Evaluate `op` if the instruction set multiplies bytes in lanes of 16 bits only, else give it back.
    ///
    /// # Errors
    ///
    /// Returns `op` itself.
    pub fn eval_int16_only<O: Int16OnlyOp>(&self, op: O) -> Result<O::Output, O> {
        self.simd.eval_int16_only(op)
    }

    /// Whether whole tiles are multiplied.
    pub fn has_tiles(&self) -> bool {
        self.simd.has_tiles()
    }

    /// Evaluate `op` with the tiles of the instruction set in use, if it has some; say whether it has.
    pub(crate) fn eval_tiles<O: TileOp>(&self, op: O) -> bool {
        self.simd.eval_tiles(op)
    }

    /// Evaluate `op` with the products of bytes of the instruction set in use.
    pub fn eval_int8<O: Int8Op>(&self, op: O) -> O::Output {
        self.simd.eval_int8(op)
    }
}
