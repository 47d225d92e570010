//! What the caller does while it waits for workers that hold the last chunks of a job.
//!
//! Where another process spins on one core, the system lets the two threads there take turns of
//! some milliseconds, as long as an operation takes. A worker that is not running while everybody
//! waits for its chunk would make each operation that much longer. The caller's own core is idle at
//! that moment: it fetches the worker, lets it finish there, and sends it away again.

use std::{
    thread::{self, JoinHandle},
    time::Duration,
};

use os::{CoreSet, Watch};

/// How often the caller looks after those it waits for.
const LOOK: Duration = Duration::from_micros(50);

/// The workers as seen from outside.
#[derive(Debug)]
pub(super) struct Rescue {
    workers: Vec<Worker>,
    /// Cores of this process; `None` where threads cannot be moved.
    cores: Option<CoreSet>,
}

#[derive(Debug)]
struct Worker {
    watch: Watch,
    /// How long it had run when the caller last looked.
    ran: Option<Duration>,
    /// Whether it was fetched to the caller's core.
    fetched: bool,
}

impl Rescue {
    pub(super) fn new(workers: &[JoinHandle<()>]) -> Self {
        let watched = |handle| Worker { watch: Watch::new(handle), ran: None, fetched: false };
        let cores = CoreSet::allowed().filter(|cores| cores.count() > 1);
        Self { workers: workers.iter().map(watched).collect(), cores }
    }

    /// Wait while somebody is `busy`; fetch those who are `inside` and do not run.
    ///
    /// The last to leave unparks the caller.
    pub(super) fn wait(&mut self, busy: impl Fn() -> bool, inside: impl Fn(usize) -> bool) {
        let Some(cores) = self.cores else {
            while busy() {
                thread::park();
            }
            return;
        };
        for worker in &mut self.workers {
            worker.ran = None;
        }
        while busy() {
            for (index, worker) in self.workers.iter_mut().enumerate() {
                if !worker.fetched && inside(index) {
                    worker.look();
                }
            }
            if self.workers.iter().any(|worker| worker.fetched) {
                thread::yield_now();
            } else {
                thread::park_timeout(LOOK);
            }
        }
        for worker in self.workers.iter_mut().filter(|worker| worker.fetched) {
            worker.send_away(&cores);
        }
    }
}

impl Worker {
    /// Fetch it if it has not run since the last look.
    fn look(&mut self) {
        let ran = self.watch.ran();
        if ran.is_some()
            && ran == self.ran
            && let Some(here) = CoreSet::here()
        {
            self.watch.move_to(&here);
            self.fetched = true;
        }
        self.ran = ran;
    }

    /// Let it run on all of `cores` but the caller's.
    fn send_away(&mut self, cores: &CoreSet) {
        let others = CoreSet::here().map_or(*cores, |here| cores.without(&here));
        self.watch.move_to(&others);
        self.fetched = false;
    }
}
