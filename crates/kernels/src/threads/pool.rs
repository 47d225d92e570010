//! The workers and the word that announces jobs to them.

use std::{
    any::Any,
    cell::UnsafeCell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize, Ordering,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

use super::rescue::Rescue;

/// What a panicking chunk threw.
pub(super) type Payload = Box<dyn Any + Send>;

/// How long a thread spins before it parks.
const SPIN: Duration = Duration::from_micros(40);

/// The job is open: workers may join.
const OPEN: u64 = 1 << 31;

/// The pool is closing down.
const STOP: u64 = 1 << 30;

/// How many workers are inside the job.
const INSIDE: u64 = STOP - 1;

/// What a job calls with a worker and a chunk.
type Function = dyn Fn(usize, usize) + Sync;

/// The same, as the caller lends it.
type Borrowed<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// One job; read only by those who are inside it.
#[derive(Clone, Copy)]
struct Job {
    /// Valid while the job is open or somebody is inside.
    function: *const Function,
    chunks: usize,
}

/// What the threads of a pool share.
struct Shared {
    /// Number of the job in the upper half; `OPEN`, `STOP` and `INSIDE` in the lower.
    state: AtomicU64,
    /// The next chunk to take.
    next: AtomicUsize,
    job: UnsafeCell<Option<(Job, Thread)>>,
    parked: Vec<AtomicBool>,
    /// Which workers are inside the job.
    joined: Vec<AtomicBool>,
    panicked: Mutex<Option<Payload>>,
}

// SAFETY: `job` is written only while the job is closed and nobody is inside, and read only by
// those inside; `state` orders the two. The function it points to is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing in `Shared` belongs to one thread.
unsafe impl Send for Shared {}

/// Workers and what they share with the caller.
pub(super) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    rescue: Rescue,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

impl Pool {
    /// Start `count` workers, or as many as the system lets.
    pub(super) fn new(count: usize) -> Self {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            parked: (0..count).map(|_| AtomicBool::new(false)).collect(),
            joined: (0..count).map(|_| AtomicBool::new(false)).collect(),
            panicked: Mutex::new(None),
        });
        let start = |index: usize| {
            let shared = Arc::clone(&shared);
            let named = thread::Builder::new().name(format!("kernels-{}", index + 1));
            named.spawn(move || shared.work(index)).ok()
        };
        let workers: Vec<_> = (0..count).map_while(start).collect();
        let rescue = Rescue::new(&workers);
        Self { shared, workers, rescue }
    }

    /// Number of workers.
    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Run a job to its end; give back what the first panicking chunk threw.
    ///
    pub(super) fn run(&mut self, chunks: usize, function: &Borrowed<'_>) -> Option<Payload> {
        let shared = &*self.shared;
        let function = std::ptr::from_ref(function);
        #[expect(clippy::transmute_ptr_to_ptr, reason = "a cast cannot extend a lifetime")]
        // SAFETY: only the lifetime changes. `finish` returns after the last user has left.
        let function =
            unsafe { std::mem::transmute::<*const Borrowed<'_>, *const Function>(function) };
        let job = Job { function, chunks };
        // SAFETY: the previous job is closed and nobody is inside; the next line publishes.
        unsafe { *shared.job.get() = Some((job, thread::current())) };
        shared.next.store(0, Relaxed);
        let number = shared.state.load(Relaxed) >> 32;
        shared.state.store((number.wrapping_add(1) << 32) | OPEN, SeqCst);
        self.wake(chunks - 1);
        shared.take_chunks(job, 0);
        shared.state.fetch_and(!OPEN, SeqCst);
        if !shared.finish() {
            let joined = &shared.joined;
            self.rescue.wait(|| !shared.is_empty(), |worker| joined[worker].load(SeqCst));
        }
        shared.panicked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn wake(&self, wanted: usize) {
        for (worker, parked) in self.workers.iter().zip(&self.shared.parked).take(wanted) {
            if parked.swap(false, SeqCst) {
                worker.thread().unpark();
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.fetch_or(STOP, SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches panics, so that joining cannot fail in a way worth reporting.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// The life of a worker: wait, join, take chunks, leave.
    fn work(&self, index: usize) {
        let mut last = 0;
        while let Some(number) = self.wait_for_job(index, last) {
            last = number;
            // SAFETY: this worker is inside, so the job stays as it is until it leaves.
            let Some((job, caller)) = (unsafe { (*self.job.get()).clone() }) else { continue };
            self.joined[index].store(true, SeqCst);
            self.take_chunks(job, index + 1);
            self.joined[index].store(false, SeqCst);
            let before = self.state.fetch_sub(1, Ordering::SeqCst);
            if before & (OPEN | INSIDE) == 1 {
                caller.unpark();
            }
        }
    }

    /// Join the next job after number `last`; `None` when the pool closes down.
    fn wait_for_job(&self, index: usize, last: u64) -> Option<u64> {
        let mut patience = Patience::new();
        loop {
            let state = self.state.load(SeqCst);
            if state & STOP != 0 {
                return None;
            }
            if state & OPEN != 0 && state >> 32 != last {
                if self.state.compare_exchange(state, state + 1, SeqCst, Relaxed).is_ok() {
                    return Some(state >> 32);
                }
                continue;
            }
            if patience.spin() {
                continue;
            }
            self.parked[index].store(true, SeqCst);
            // Look once more: a job announced before the flag was up wakes nobody.
            let state = self.state.load(SeqCst);
            if state & STOP == 0 && (state & OPEN == 0 || state >> 32 == last) {
                thread::park();
            }
            self.parked[index].store(false, SeqCst);
            patience = Patience::new();
        }
    }

    /// Take chunks until none is left. After a panic none is left.
    fn take_chunks(&self, job: Job, worker: usize) {
        // SAFETY: the caller of `Pool::run` keeps the function alive until all have left.
        let function = unsafe { &*job.function };
        let taken = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let chunk = self.next.fetch_add(1, Relaxed);
                if chunk >= job.chunks {
                    break;
                }
                function(worker, chunk);
            }
        }));
        if let Err(payload) = taken {
            self.next.store(job.chunks, Relaxed);
            let mut first = self.panicked.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(payload);
        }
    }

    /// Whether nobody is inside the job.
    fn is_empty(&self) -> bool {
        self.state.load(SeqCst) & INSIDE == 0
    }

    /// Spin until the closed job is empty; false if it is not for a long time.
    fn finish(&self) -> bool {
        let mut patience = Patience::new();
        while !self.is_empty() {
            if !patience.spin() {
                return false;
            }
        }
        true
    }
}

/// Spins for a while, then says that it is time to park.
struct Patience {
    spins: u32,
    start: Option<Instant>,
}

impl Patience {
    fn new() -> Self {
        Self { spins: 0, start: None }
    }

    /// Spin once; false when the time is over.
    fn spin(&mut self) -> bool {
        std::hint::spin_loop();
        self.spins += 1;
        if !self.spins.is_multiple_of(64) {
            return true;
        }
        self.start.get_or_insert_with(Instant::now).elapsed() < SPIN
    }
}
