//! The memory of a running program: one region, lent out buffer by buffer.

#![allow(
    unsafe_code,
    reason = "slices of one region are lent at once; the lease checks that none overlap"
)]

use std::marker::PhantomData;
use std::ops::Range;

use bytemuck::Pod;

use crate::Error;
use crate::program::{Band, Buffer, BufferId, Program};
use os::Region;

/// Memory for the buffers of one program.
#[derive(Debug)]
pub struct Arena {
    region: Region,
    buffers: Vec<Buffer>,
}

impl Arena {
    /// Memory for all buffers of `program`.
    ///
    /// # Errors
    ///
    /// If the system does not give it.
    pub fn new(program: &Program) -> Result<Self, Error> {
        let bytes = program.arena;
        let region = Region::new(bytes).map_err(|error| Error::Memory { bytes, error })?;
        Ok(Self { region, buffers: program.buffers.clone() })
    }

    /// Borrow buffers for one operation, all of their rows or those of a band.
    pub fn lease<'a>(&'a mut self, band: Option<&'a Band>) -> Lease<'a> {
        let region = self.region.as_mut_slice();
        Lease {
            base: region.as_mut_ptr(),
            len: region.len(),
            buffers: &self.buffers,
            band,
            lent: Vec::with_capacity(8),
            region: PhantomData,
        }
    }

    /// The bytes of one buffer.
    pub fn bytes(&self, id: BufferId) -> &[u8] {
        &self.region.as_slice()[range(&self.buffers[id.0])]
    }

    /// The bytes of one buffer, to be written.
    pub fn bytes_mut(&mut self, id: BufferId) -> &mut [u8] {
        &mut self.region.as_mut_slice()[range(&self.buffers[id.0])]
    }
}

/// Buffers lent to one operation: any number to read, and disjoint ones to write.
#[derive(Debug)]
pub struct Lease<'a> {
    base: *mut u8,
    len: usize,
    buffers: &'a [Buffer],
    band: Option<&'a Band>,
    lent: Vec<(Range<usize>, Access)>,
    region: PhantomData<&'a mut [u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

impl<'a> Lease<'a> {
    /// A buffer to read.
    ///
    /// # Panics
    ///
    /// If it overlaps one lent for writing: a fault of the memory plan.
    pub fn read<T: Pod>(&mut self, id: BufferId) -> &'a [T] {
        let range = self.lend(id, Access::Read);
        // SAFETY: `lend` checked that the range lies in the region, which is borrowed mutably for 'a, and that no
        // range lent for writing meets it; reads may share.
        let bytes = unsafe { std::slice::from_raw_parts(self.base.add(range.start), range.len()) };
        bytemuck::cast_slice(bytes)
    }

    /// A buffer to write.
    ///
    /// # Panics
    ///
    /// If it overlaps any buffer already lent: a fault of the memory plan.
    pub fn write<T: Pod>(&mut self, id: BufferId) -> &'a mut [T] {
        let range = self.lend(id, Access::Write);
        // SAFETY: `lend` checked that the range lies in the region, which is borrowed mutably for 'a, and that no
        // other range lent by this lease meets it.
        let bytes =
            unsafe { std::slice::from_raw_parts_mut(self.base.add(range.start), range.len()) };
        bytemuck::cast_slice_mut(bytes)
    }

    fn lend(&mut self, id: BufferId, access: Access) -> Range<usize> {
        let buffer = &self.buffers[id.0];
        let range = match self.band.map(|band| band.bytes(buffer)) {
            Some(part) => buffer.offset + part.start..buffer.offset + part.end,
            None => range(buffer),
        };
        assert!(range.end <= self.len, "a buffer lies in its arena");
        let meets = |other: &Range<usize>| other.start < range.end && range.start < other.end;
        let clash = self
            .lent
            .iter()
            .any(|(other, how)| (*how == Access::Write || access == Access::Write) && meets(other));
        assert!(!clash, "buffers of one operation do not overlap");
        self.lent.push((range.clone(), access));
        range
    }
}

fn range(buffer: &Buffer) -> Range<usize> {
    buffer.offset..buffer.offset + buffer.bytes()
}
