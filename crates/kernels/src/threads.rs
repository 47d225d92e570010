//! A pool of threads that share the chunks of one operation at a time.
//!
//! The plain algorithm: the caller announces a job, every thread takes chunk numbers from one
//! counter until none is left, and the caller returns when all who joined have left. The tricks:
//!
//! 1. A thread *joins* by raising a count in the same word that says whether the job is open. One
//!    that wakes late finds the job closed and goes on waiting, so that nobody waits for a thread
//!    which another process keeps from running, unless it holds a chunk.
//! 2. Waiting spins for some tens of microseconds, longer than the gap between two operations, and
//!    then parks. At the end of a job the caller looks after the threads that it waits for: one that
//!    lost its core to another process is moved to the caller's, which is free.
//! 3. Chunks are taken dynamically; which thread runs which chunk never changes a result.

#![allow(unsafe_code, reason = "lends a borrowed closure and disjoint parts of slices to threads")]

mod divide;
mod pool;
mod rescue;

pub use divide::{Cell, Grid, Order, Output, OutputTile, Tile};

use std::{panic::resume_unwind, sync::Mutex};

use pool::Pool;

/// The threads of the engine: the caller's and `count() − 1` workers.
#[derive(Debug)]
pub struct Threads {
    pool: Option<Mutex<Pool>>,
    count: usize,
}

impl Threads {
    /// A pool in which `count` threads work, the caller's among them; at least one.
    ///
    /// Where the system refuses to start a thread, the pool is smaller.
    pub fn new(count: usize) -> Self {
        let pool = (count > 1).then(|| Pool::new(count - 1));
        let count = pool.as_ref().map_or(1, |pool| pool.workers() + 1);
        Self { pool: pool.map(Mutex::new), count }
    }

    /// As many threads as the system has cores for this process.
    pub fn all() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// Number of threads, the caller's included.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Call `f` once for each number below `chunks`.
    ///
    /// # Panics
    ///
    /// Panics with the payload of the first chunk that panics, after all threads have stopped.
    pub fn run(&self, chunks: usize, f: impl Fn(usize) + Sync) {
        self.run_with(chunks, |_, chunk| f(chunk));
    }

    /// Call `f(worker, chunk)` once for each chunk; no two calls at a time share a `worker`, which
    /// is below [`Threads::count`].
    ///
    /// A call from inside a chunk, or while another thread runs a job, works in the calling thread.
    ///
    /// # Panics
    ///
    /// As [`Threads::run`].
    pub fn run_with(&self, chunks: usize, f: impl Fn(usize, usize) + Sync) {
        let pool = self.pool.as_ref().filter(|_| chunks > 1).and_then(|pool| {
            // A job that panicked has left the pool in order: see `Pool::run`.
            match pool.try_lock() {
                Ok(guard) => Some(guard),
                Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(std::sync::TryLockError::WouldBlock) => None,
            }
        });
        let Some(mut pool) = pool else {
            return (0..chunks).for_each(|chunk| f(0, chunk));
        };
        let outcome = pool.run(chunks, &f);
        drop(pool);
        if let Some(payload) = outcome {
            resume_unwind(payload);
        }
    }

    /// Cut `data` into pieces of `length` (the last may be shorter) and call `f(index, piece)` for
    /// each.
    ///
    /// # Panics
    ///
    /// As [`Threads::run`]; also if `length` is zero while `data` is not empty.
    pub fn run_pieces<T: Send>(
        &self,
        data: &mut [T],
        length: usize,
        f: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let pieces = divide::Pieces::new(data, length);
        // SAFETY: `run` calls the closure once for each index, so pieces are never shared.
        self.run(pieces.count(), |index| f(index, unsafe { pieces.piece(index) }));
    }

    /// Cut two slices into pieces of their lengths, as many of one as of the other, and call
    /// `f(index, piece, other)` for each pair.
    ///
    /// # Panics
    ///
    /// As [`Threads::run_pieces`]; also if there are more pieces of one than of the other.
    pub fn run_pairs<T: Send, U: Send>(
        &self,
        (data, length): (&mut [T], usize),
        (other, other_length): (&mut [U], usize),
        f: impl Fn(usize, &mut [T], &mut [U]) + Sync,
    ) {
        let pieces = divide::Pieces::new(data, length);
        let others = divide::Pieces::new(other, other_length);
        assert_eq!(pieces.count(), others.count(), "as many pieces of one as of the other");
        // SAFETY: `run` calls the closure once for each index, so pieces are never shared.
        self.run(pieces.count(), |index| unsafe {
            f(index, pieces.piece(index), others.piece(index));
        });
    }

    /// Cut `output` along `grid` and call `f(tile, workspace)` for each tile, where `workspace` is
    /// one of [`Threads::count`] equal parts of `scratch`.
    ///
    /// # Panics
    ///
    /// As [`Threads::run`]; also if the output is smaller than the grid.
    pub fn run_tiles(
        &self,
        (output, grid): (Output<'_>, Grid),
        scratch: &mut [u8],
        f: impl Fn(OutputTile<'_>, &mut [u8]) + Sync,
    ) {
        let division = divide::Division::new(output, grid);
        let share = scratch.len() / self.count;
        let workspaces = divide::Pieces::new(&mut scratch[..share * self.count], share.max(1));
        self.run_with(grid.count(), |worker, index| {
            // SAFETY: each index occurs once; no two calls at a time share a worker.
            unsafe {
                let workspace = if share == 0 { &mut [] } else { workspaces.piece(worker) };
                f(division.tile(index), workspace);
            }
        });
    }
}
