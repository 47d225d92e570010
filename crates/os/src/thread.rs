//! Which thread runs, and on which core.

#![allow(unsafe_code, reason = "the system's calls about threads take plain pointers")]

use std::thread::JoinHandle;
use std::time::Duration;

/// Looks at a thread of this process from outside: whether it runs, and where it may.
///
/// A thread that is ready but waits for its core, because another process has it, can be moved to
/// one that is free. Systems that cannot tell or move say that the thread runs, and do nothing.
#[derive(Debug)]
pub struct Watch {
    #[cfg(target_os = "linux")]
    thread: std::os::unix::thread::RawPthread,
    #[cfg(target_os = "linux")]
    clock: Option<libc::clockid_t>,
}

impl Watch {
    /// Watches a thread.
    #[cfg(target_os = "linux")]
    pub fn new<T>(handle: &JoinHandle<T>) -> Self {
        use std::os::unix::thread::JoinHandleExt;
        let thread = handle.as_pthread_t();
        let mut clock = 0;
        // SAFETY: The handle keeps the thread from being forgotten, and `clock` takes the result.
        let known = unsafe { libc::pthread_getcpuclockid(as_c(thread), &raw mut clock) } == 0;
        Self { thread, clock: known.then_some(clock) }
    }

    /// Watches a thread.
    #[cfg(not(target_os = "linux"))]
    pub fn new<T>(_: &JoinHandle<T>) -> Self {
        Self {}
    }

    /// How long the thread has run on any core since it began. `None` where nobody says; the
    /// thread may have ended.
    #[cfg(target_os = "linux")]
    pub fn ran(&self) -> Option<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` takes the result; the clock of a thread that has ended is an error.
        let known = unsafe { libc::clock_gettime(self.clock?, &raw mut time) } == 0;
        known.then(|| Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32))
    }

    /// How long the thread has run on any core since it began. `None` where nobody says.
    #[cfg(not(target_os = "linux"))]
    pub fn ran(&self) -> Option<Duration> {
        None
    }

    /// Lets the thread run on the cores of `cores` only; if it is elsewhere it moves at once.
    /// The thread must not have ended.
    #[cfg(target_os = "linux")]
    pub fn move_to(&self, cores: &CoreSet) {
        // A system that refuses leaves the thread where it is, which is slow and not wrong.
        // SAFETY: The set is a plain value of the size that is named.
        let _ = unsafe {
            libc::pthread_setaffinity_np(
                as_c(self.thread),
                size_of::<libc::cpu_set_t>(),
                &raw const cores.0,
            )
        };
    }

    /// Lets the thread run on the cores of `cores` only, which this system cannot.
    #[cfg(not(target_os = "linux"))]
    pub fn move_to(&self, _: &CoreSet) {}
}

/// The C library of some systems calls the same bits a pointer.
#[cfg(target_os = "linux")]
fn as_c(thread: std::os::unix::thread::RawPthread) -> libc::pthread_t {
    thread as libc::pthread_t
}

/// Some of the machine's cores.
#[derive(Clone, Copy)]
pub struct CoreSet(#[cfg(target_os = "linux")] libc::cpu_set_t);

impl std::fmt::Debug for CoreSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CoreSet").field(&self.count()).finish()
    }
}

#[cfg(target_os = "linux")]
impl CoreSet {
    // SAFETY: A set is plain bits, and none set is the empty set.
    const EMPTY: Self = Self(unsafe { std::mem::zeroed() });

    /// The cores on which the calling thread may run. `None` where nobody says.
    pub fn allowed() -> Option<Self> {
        let mut set = Self::EMPTY;
        // SAFETY: The set is a plain value of the size that is named.
        let known = unsafe {
            libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set.0) == 0
        };
        known.then_some(set)
    }

    /// The core on which the calling thread runs now. `None` where nobody says.
    pub fn here() -> Option<Self> {
        // SAFETY: It takes nothing and says a number.
        let core = usize::try_from(unsafe { libc::sched_getcpu() }).ok()?;
        if core >= libc::CPU_SETSIZE as usize {
            return None;
        }
        let mut set = Self::EMPTY;
        // SAFETY: The core is within the set.
        unsafe { libc::CPU_SET(core, &mut set.0) };
        Some(set)
    }

    /// These cores without those of `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut rest = *self;
        for core in 0..libc::CPU_SETSIZE as usize {
            // SAFETY: The core is within the set.
            unsafe {
                if libc::CPU_ISSET(core, &other.0) {
                    libc::CPU_CLR(core, &mut rest.0);
                }
            }
        }
        rest
    }

    /// How many.
    pub fn count(&self) -> usize {
        // SAFETY: The set is a plain value.
        usize::try_from(unsafe { libc::CPU_COUNT(&self.0) }).unwrap_or(0)
    }
}

#[cfg(not(target_os = "linux"))]
impl CoreSet {
    /// The cores on which the calling thread may run: not known here.
    pub fn allowed() -> Option<Self> {
        None
    }

    /// The core on which the calling thread runs now: not known here.
    pub fn here() -> Option<Self> {
        None
    }

    /// These cores without those of `other`.
    #[must_use]
    pub fn without(&self, _: &Self) -> Self {
        *self
    }

    /// How many.
    pub fn count(&self) -> usize {
        0
    }
}
