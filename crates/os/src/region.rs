//! Zeroed memory for arenas and weights.

use std::io;

/// Regions start at a multiple of this many bytes, a cache line and the widest vector.
pub const ALIGNMENT: usize = 64;

/// Huge pages of x86-64 and of most aarch64 systems, bytes.
const HUGE_PAGE: usize = 2 << 20;

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
