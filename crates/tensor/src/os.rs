//! Everything that is asked of the operating system: file maps, large zeroed memory, and what
//! this process holds of the machine's memory.
//!
//! It is the only module that does so. Whatever a system cannot do has a plain substitute here
//! (an advice that is not given, a number that is `None`), so no caller names a system.
//!
//! ```
//! let mut region = tensor::os::Region::new(4096)?;
//! assert_eq!(region.as_slice()[4095], 0);
//! region.as_mut_slice()[0] = 1;
//! # Ok::<(), std::io::Error>(())
//! ```

#![allow(unsafe_code, reason = "mapping files and advising the kernel about pages")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Regions start at a multiple of this many bytes, a cache line and the widest vector.
pub const ALIGNMENT: usize = 64;

/// Huge pages of x86-64 and of most aarch64 systems, bytes.
const HUGE_PAGE: usize = 2 << 20;

/// A whole file, mapped for reading. Pages come from the page cache when they are touched.
#[derive(Debug)]
pub struct Mapping {
    map: memmap2::Mmap,
}

impl Mapping {
    /// Maps the file at `path`.
    ///
    /// # Errors
    ///
    /// Whatever the system says of opening or mapping it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // A directory opens on some systems and then fails to map with a puzzling error.
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        // SAFETY: The map is only ever read. A file that another process shortens or rewrites
        // while it is mapped is outside what this library promises; weights are not rewritten
        // while they are in use, and no reference to the bytes is taken to be valid as anything
        // but plain bytes, which every bit pattern is.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Self { map })
    }

    /// The bytes of the file.
    pub fn as_slice(&self) -> &[u8] {
        &self.map
    }

    /// Says that the bytes will be read from first to last, so that the system reads ahead.
    pub fn advise_sequential(&self) {
        self.advise(&(0..self.map.len()), Hint::Sequential);
    }

    /// Says that `range` will be read soon, so that the system starts to fetch it.
    pub fn advise_will_need(&self, range: Range<usize>) {
        self.advise(&range, Hint::WillNeed);
    }

    /// Takes the pages of `range` out of this process. They stay in the page cache and come back
    /// when they are touched; until then they do not count as this process's memory.
    pub fn drop_pages(&self, range: Range<usize>) {
        let range = self.clamped(&range);
        #[cfg(target_os = "linux")]
        if !range.is_empty() {
            // SAFETY: The map is read-only and backed by its file, so a page that is thrown away
            // is read again with the same bytes: references into it stay valid. The range lies
            // inside the map.
            let _ = unsafe {
                self.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    range.start,
                    range.len(),
                )
            };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = range;
    }

    /// Gives a hint; a system that does not take it is no worse off.
    fn advise(&self, range: &Range<usize>, hint: Hint) {
        let range = self.clamped(range);
        #[cfg(unix)]
        if !range.is_empty() {
            let advice = match hint {
                Hint::Sequential => memmap2::Advice::Sequential,
                Hint::WillNeed => memmap2::Advice::WillNeed,
            };
            let _ = self.map.advise_range(advice, range.start, range.len());
        }
        #[cfg(not(unix))]
        let _ = (range, hint);
    }

    fn clamped(&self, range: &Range<usize>) -> Range<usize> {
        let end = range.end.min(self.map.len());
        range.start.min(end)..end
    }
}

#[derive(Clone, Copy, Debug)]
enum Hint {
    Sequential,
    WillNeed,
}

/// Zeroed memory straight from the system, for arenas and packed weights: aligned to
/// [`ALIGNMENT`], on huge pages where the system has them to give, and returned as soon as it is
/// dropped. Pages that are never touched cost nothing.
#[derive(Debug)]
pub struct Region {
    map: memmap2::MmapMut,
    start: usize,
    len: usize,
}

impl Region {
    /// Asks for `len` zeroed bytes; none is a valid length.
    ///
    /// # Errors
    ///
    /// Out of memory, or a length that no address space has.
    pub fn new(len: usize) -> io::Result<Self> {
        // A region worth huge pages must also start on one, which a plain map need not.
        let slack = if len >= HUGE_PAGE { HUGE_PAGE } else { ALIGNMENT };
        let total = len.checked_add(slack).ok_or(io::ErrorKind::OutOfMemory)?;
        let map = memmap2::MmapMut::map_anon(total)?;
        let start = map.as_ptr().align_offset(slack);
        #[cfg(target_os = "linux")]
        if len >= HUGE_PAGE {
            // Kernels without huge pages refuse; ordinary pages do as well, only slower.
            let whole = len / HUGE_PAGE * HUGE_PAGE;
            let _ = map.advise_range(memmap2::Advice::HugePage, start, whole);
        }
        Ok(Self { map, start, len })
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.map[self.start..self.start + self.len]
    }

    /// The bytes, to write.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.map[self.start..self.start + self.len]
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

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

/// What the process's control group (version 2) has left. Its page cache counts as free, for
/// the system takes that back first.
fn group_memory() -> Option<u64> {
    let own = read("/proc/self/cgroup")?;
    let inside = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let folder = PathBuf::from("/sys/fs/cgroup").join(inside);
    let number = |name: &str| read(folder.join(name))?.trim().parse::<u64>().ok();
    let limit = number("memory.max")?;
    let used = number("memory.current")?;
    let stat = read(folder.join("memory.stat"))?;
    let cache = stat.lines().find_map(|line| line.strip_prefix("file "))?.trim().parse().ok()?;
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
    use std::io::Write;

    #[test]
    fn regions_are_zeroed_and_aligned() {
        for len in [0, 1, 63, 4096, HUGE_PAGE - 1, HUGE_PAGE + 5] {
            let mut region = Region::new(len).unwrap();
            assert_eq!(region.len(), len);
            assert_eq!(region.as_slice().as_ptr() as usize % ALIGNMENT, 0, "length {len}");
            assert!(region.as_slice().iter().all(|&byte| byte == 0));
            region.as_mut_slice().fill(7);
            assert!(region.as_slice().iter().all(|&byte| byte == 7));
        }
        assert!(Region::new(usize::MAX).is_err());
    }

    #[test]
    fn dropped_pages_come_back() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..40_000_u32).map(|i| i as u8).collect();
        file.write_all(&bytes).unwrap();
        let map = Mapping::open(file.path()).unwrap();
        map.advise_sequential();
        map.advise_will_need(100..900_000);
        assert_eq!(map.as_slice(), bytes);
        map.drop_pages(5_000..usize::MAX);
        assert_eq!(map.as_slice(), bytes);
    }

    #[test]
    fn an_empty_file_maps_and_a_folder_does_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Mapping::open(file.path()).unwrap().as_slice().is_empty());
        assert!(Mapping::open(&std::env::temp_dir()).is_err());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_is_counted() {
        let before = rss().unwrap();
        let mut region = Region::new(64 << 20).unwrap();
        region.as_mut_slice().fill(1);
        assert!(rss().unwrap() > before + (60 << 20));
        assert!(peak_rss().unwrap() >= rss().unwrap().saturating_sub(1 << 20));
        assert!(available_memory().unwrap() > 0);
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
