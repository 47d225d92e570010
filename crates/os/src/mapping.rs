//! Files mapped for reading.

#![allow(unsafe_code, reason = "mapping files and advising the kernel about pages")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

/// A whole file, mapped for reading. Pages come from the page cache when they are touched.
#[derive(Debug)]
pub struct Mapping {
    map: memmap2::Mmap,
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "only Linux is advised about files")
    )]
    file: File,
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
        Ok(Self { map, file })
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

    /// Brings `range` into memory, however long that takes.
    pub fn fetch(&self, range: Range<usize>) {
        // The system starts to read all of it, before it is asked for one page after the other.
        self.advise(&range, Hint::WillNeed);
        if !self.advise(&range, Hint::Populate) {
            for byte in self.map[self.clamped(&range)].iter().step_by(PAGE) {
                std::hint::black_box(*byte);
            }
        }
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

    /// [`Mapping::drop_pages`], and out of the page cache as well where no other process has them.
    pub fn evict(&self, range: Range<usize>) {
        let range = self.clamped(&range);
        self.drop_pages(range.clone());
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            let (start, len) = (range.start as libc::off_t, range.len() as libc::off_t);
            // SAFETY: The descriptor is open for as long as `self` is; the call takes no memory.
            unsafe {
                libc::posix_fadvise(self.file.as_raw_fd(), start, len, libc::POSIX_FADV_DONTNEED);
            }
        }
    }

    /// Gives a hint, and says whether the system took it; one that does not is no worse off.
    fn advise(&self, range: &Range<usize>, hint: Hint) -> bool {
        let range = self.clamped(range);
        #[cfg(unix)]
        {
            let advice = match hint {
                Hint::Sequential => memmap2::Advice::Sequential,
                Hint::WillNeed => memmap2::Advice::WillNeed,
                #[cfg(target_os = "linux")]
                Hint::Populate => memmap2::Advice::PopulateRead,
                #[cfg(not(target_os = "linux"))]
                Hint::Populate => return false,
            };
            range.is_empty() || self.map.advise_range(advice, range.start, range.len()).is_ok()
        }
        #[cfg(not(unix))]
        {
            let _ = (range, hint);
            false
        }
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
    Populate,
}

/// No system has smaller pages.
const PAGE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn dropped_pages_come_back() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..40_000_u32).map(|i| i as u8).collect();
        file.write_all(&bytes).unwrap();
        let map = Mapping::open(file.path()).unwrap();
        map.advise_sequential();
        map.advise_will_need(100..900_000);
        map.fetch(4_000..900_000);
        assert_eq!(map.as_slice(), bytes);
        map.drop_pages(5_000..usize::MAX);
        assert_eq!(map.as_slice(), bytes);
        map.evict(0..usize::MAX);
        assert_eq!(map.as_slice(), bytes);
    }

    #[test]
    fn an_empty_file_maps_and_a_folder_does_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Mapping::open(file.path()).unwrap().as_slice().is_empty());
        assert!(Mapping::open(&std::env::temp_dir()).is_err());
    }
}
