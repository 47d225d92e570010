//! What this process holds of the machine's memory, and what is left.

#![allow(unsafe_code, reason = "the C library's call to give back what was freed")]

use std::path::Path;

/// The most memory that this process has held, bytes, since it began or since [`reset_peak`].
/// `None` where the system does not say.
pub fn peak_rss() -> Option<u64> {
    kibibytes(&read("/proc/self/status")?, "VmHWM:")
}

/// The memory that this process holds now, bytes. `None` where the system does not say.
pub fn rss() -> Option<u64> {
    kibibytes(&read("/proc/self/status")?, "VmRSS:")
}

/// Memory that can still be had without swapping, bytes: what the machine has left, or the
/// control group's limit if that is less. `None` where the system does not say.
pub fn available_memory() -> Option<u64> {
    let machine = kibibytes(&read("/proc/meminfo")?, "MemAvailable:")?;
    Some(group_memory().map_or(machine, |group| machine.min(group)))
}

/// Makes [`peak_rss`] start again from the present. Says whether the system could do so.
pub fn reset_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Gives back what this process freed. The C library keeps much of that for itself, in case it is asked for again: after work
/// that needed hundreds of megabytes in small pieces, and before work that does not, it is in the way.
pub fn return_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the call takes a number, and touches nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What the process's control group has left. Its page cache counts as free, for the system takes
/// that back first.
fn group_memory() -> Option<u64> {
    let own = read("/proc/self/cgroup")?;
    let inside = |mark: &str| own.lines().find_map(|line| Some(line.split_once(mark)?.1));
    // Groups of version 2 have one tree, those of version 1 a tree for each resource.
    let second = inside("0::/").and_then(|inside| {
        let folder = Path::new("/sys/fs/cgroup").join(inside);
        group_left(&folder, ["memory.max", "memory.current", "file "])
    });
    let first = inside(":memory:/").and_then(|inside| {
        let folder = Path::new("/sys/fs/cgroup/memory").join(inside);
        group_left(&folder, ["memory.limit_in_bytes", "memory.usage_in_bytes", "cache "])
    });
    second.into_iter().chain(first).min()
}

/// What a group has left, by the names of its limit, its use and its page cache.
fn group_left(folder: &Path, [limit, used, cache]: [&str; 3]) -> Option<u64> {
    let number = |name: &str| read(folder.join(name))?.trim().parse::<u64>().ok();
    let (limit, used) = (number(limit)?, number(used)?);
    let stat = read(folder.join("memory.stat"))?;
    let cache = stat.lines().find_map(|line| line.strip_prefix(cache))?.trim().parse().ok()?;
    Some(limit.saturating_sub(used.saturating_sub(cache)))
}

/// Small text files of the system; absent ones are `None`.
fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The number after `key` in a listing such as `VmRSS:     1234 kB`, in bytes.
fn kibibytes(listing: &str, key: &str) -> Option<u64> {
    let rest = listing.lines().find_map(|line| line.strip_prefix(key))?;
    let number: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_is_counted() {
        let before = rss().unwrap();
        let mut region = crate::Region::new(64 << 20).unwrap();
        region.as_mut_slice().fill(1);
        assert!(rss().unwrap() > before + (60 << 20));
        assert!(peak_rss().unwrap() >= rss().unwrap().saturating_sub(1 << 20));
        assert!(available_memory().unwrap() > 0);
    }

    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn what_was_freed_is_given_back() {
        // The C library maps larger pieces apart, and unmaps them itself.
        let pieces: Vec<Vec<u8>> = (0..4096).map(|_| vec![1; 16 << 10]).collect();
        let last = vec![1_u8; 16 << 10];
        let before = rss().unwrap();
        drop(pieces);
        return_freed();
        assert!(rss().unwrap() + (48 << 20) < before);
        assert_eq!(last.len(), 16 << 10);
    }

    #[test]
    fn listings_are_read() {
        let listing = "VmPeak:\t 9 kB\nVmHWM:\t    12 kB\n";
        assert_eq!(kibibytes(listing, "VmHWM:"), Some(12 * 1024));
        assert_eq!(kibibytes(listing, "VmRSS:"), None);
        assert_eq!(kibibytes("VmHWM: twelve kB", "VmHWM:"), None);
        assert_eq!(kibibytes("VmHWM: 99999999999999999 kB", "VmHWM:"), None);
    }
}
