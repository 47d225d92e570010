//! Carving typed, aligned parts out of scratch bytes.

/// Every part starts on a cache line.
const ALIGN: usize = 64;

/// Bytes to ask for so that parts of these byte counts can be carved wherever the memory starts.
pub(crate) fn bytes(parts: &[usize]) -> usize {
    parts.iter().fold(ALIGN, |sum, part| {
        sum.saturating_add(part.checked_next_multiple_of(ALIGN).unwrap_or(usize::MAX))
    })
}

/// Scratch bytes of which parts are taken from the front.
pub(crate) struct Scratch<'a>(&'a mut [u8]);

impl<'a> Scratch<'a> {
    pub(crate) fn new(bytes: &'a mut [u8]) -> Self {
        Self(bytes)
    }

    /// The next `count` elements, whatever they hold.
    ///
    /// # Panics
    ///
    /// Panics if the scratch is smaller than what was asked for.
    #[inline(always)]
    pub(crate) fn take<T: bytemuck::Pod>(&mut self, count: usize) -> &'a mut [T] {
        let bytes = std::mem::take(&mut self.0);
        let skip = bytes.as_ptr().align_offset(ALIGN);
        let size = count * size_of::<T>();
        assert!(bytes.len() >= skip + size, "scratch is too small: ask the operation for its size");
        let (part, rest) = bytes.split_at_mut(skip + size);
        self.0 = rest;
        bytemuck::cast_slice_mut(&mut part[skip..])
    }

    /// What is left.
    pub(crate) fn rest(self) -> &'a mut [u8] {
        self.0
    }
}
