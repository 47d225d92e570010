//! AMX: tiles in registers of their own.
//!
//! The intrinsics are not stable in Rust, so the few instructions are written down. Every product of a strip is one
//! block of assembly, from the first load to the last store, and no register of its outlives it. What does outlive it is
//! the shape of the registers, which takes as long to set as twenty products do: each thread remembers which it has set.

use std::{arch::asm, arch::x86_64::__cpuid_count, cell::Cell};

use super::tiles::{MAX_SEGMENTS, Numbers, TILE, TileStrip, Tiles};

/// Proof that the CPU has AMX with products of bytes and of bf16 pairs, and that the system lets us use it.
#[derive(Clone, Copy, Debug)]
pub struct Amx(());

impl Amx {
    /// The token, if this CPU has the instructions.
    pub fn detect() -> Option<Self> {
        const BF16: u32 = 1 << 22;
        const TILE: u32 = 1 << 24;
        const INT8: u32 = 1 << 25;
        const ALL: u32 = BF16 | TILE | INT8;
        let has_leaf = __cpuid_count(0, 0).eax >= 7;
        let is_there = has_leaf && __cpuid_count(7, 0).edx & ALL == ALL;
        (is_there && os::permit_tiles()).then_some(Self(()))
    }
}

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Shape {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

thread_local! {
    /// The rows of a strip that the tiles of this thread are shaped for; none if they were released.
    static SHAPED: Cell<usize> = const { Cell::new(0) };
}

/// Shape the tiles of this thread for strips of `rows` rows: the sums of two halves of rows times two of lanes, then
/// the halves of `a`, then those of `b`.
#[inline(always)]
fn shape(rows: usize) {
    if SHAPED.get() == rows {
        return;
    }
    let full = TILE as u8;
    let (upper, lower) = (rows.min(TILE) as u8, rows.saturating_sub(TILE).max(1) as u8);
    let mut shape =
        Shape { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    shape.row_bytes[..8].fill(64);
    shape.rows[..8].copy_from_slice(&[upper, upper, lower, lower, upper, lower, full, full]);
    // SAFETY: an `Amx` is held by the only caller; the shape is 64 bytes of a known palette, within its limits.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const shape, options(nostack, readonly)) };
    SHAPED.set(rows);
}

/// What the assembly reads of a strip.
#[repr(C)]
struct Arguments {
    segments: *const Segment,
    count: usize,
    steps: usize,
    b: *const f32,
    b_stride: usize,
    sums: *mut f32,
    sums_stride: usize,
    accumulate: usize,
    ahead: *const u8,
    ahead_step: usize,
}

/// Where the rows of a segment start and how far they are apart, in both halves.
#[repr(C)]
#[derive(Clone, Copy)]
struct Segment {
    upper: *const u8,
    upper_stride: usize,
    lower: *const u8,
    lower_stride: usize,
}

impl Segment {
    const NONE: Self =
        Self { upper: std::ptr::null(), upper_stride: 0, lower: std::ptr::null(), lower_stride: 0 };
}

/// The product of a strip: `$dot` multiplies; what comes in brackets is for the second half of the lanes, in braces
/// for the second half of the rows, and in both for where they meet.
macro_rules! product {
    ($arguments:ident, $dot:literal; $([$($lanes:tt)+])? $({$($rows:tt)+})?) => {
        product!(@ $arguments, $dot,
            lanes: $($($lanes)+)?; rows: $($($rows)+)?)
    };
    (@ $arguments:ident, $dot:literal, lanes: $($lanes:ident)?; rows: $($rows:ident)?) => {
        asm!(
            // Sums start from zero or from what is there.
            "mov {a0}, [{args} + 40]",
            "mov {s0}, [{args} + 48]",
            "mov {a1}, {s0}",
            "shl {a1}, 4",
            "add {a1}, {a0}",
            "cmp qword ptr [{args} + 56], 0",
            "je 2f",
            "tileloadd tmm0, [{a0} + {s0}*1]",
            product!(@if $($lanes)?; "tileloadd tmm1, [{a0} + {s0}*1 + 64]"),
            product!(@if $($rows)?; "tileloadd tmm2, [{a1} + {s0}*1]"),
            product!(@both $($lanes)? $($rows)?; "tileloadd tmm3, [{a1} + {s0}*1 + 64]"),
            "jmp 3f",
            "2:",
            "tilezero tmm0",
            product!(@if $($lanes)?; "tilezero tmm1"),
            product!(@if $($rows)?; "tilezero tmm2"),
            product!(@both $($lanes)? $($rows)?; "tilezero tmm3"),
            "3:",
            "mov {segment}, [{args}]",
            "mov {count}, [{args} + 8]",
            "mov {b}, [{args} + 24]",
            "mov {bs}, [{args} + 32]",
            "mov {line}, {bs}",
            "shl {line}, 4",
            "mov {ahead}, [{args} + 64]",
            // Each segment.
            "4:",
            "mov {a0}, [{segment}]",
            "mov {s0}, [{segment} + 8]",
            "mov {a1}, [{segment} + 16]",
            "mov {s1}, [{segment} + 24]",
            "mov {n}, [{args} + 16]",
            // Each 64 bytes of it.
            "5:",
            "prefetcht1 [{ahead}]",
            "prefetcht1 [{ahead} + 64]",
            "prefetcht1 [{ahead} + 128]",
            "prefetcht1 [{ahead} + 192]",
            "add {ahead}, [{args} + 72]",
            "tileloadd tmm4, [{a0} + {s0}*1]",
            "tileloadd tmm6, [{b} + {bs}*1]",
            concat!($dot, " tmm0, tmm4, tmm6"),
            product!(@if $($lanes)?; "tileloadd tmm7, [{b} + {bs}*1 + 64]"),
            product!(@if $($lanes)?; concat!($dot, " tmm1, tmm4, tmm7")),
            product!(@if $($rows)?; "tileloadd tmm5, [{a1} + {s1}*1]"),
            product!(@if $($rows)?; concat!($dot, " tmm2, tmm5, tmm6")),
            product!(@both $($lanes)? $($rows)?; concat!($dot, " tmm3, tmm5, tmm7")),
            "add {a0}, 64",
            "add {a1}, 64",
            "add {b}, {line}",
            "dec {n}",
            "jnz 5b",
            "add {segment}, 32",
            "dec {count}",
            "jnz 4b",
            "mov {a0}, [{args} + 40]",
            "mov {s0}, [{args} + 48]",
            "mov {a1}, {s0}",
            "shl {a1}, 4",
            "add {a1}, {a0}",
            "tilestored [{a0} + {s0}*1], tmm0",
            product!(@if $($lanes)?; "tilestored [{a0} + {s0}*1 + 64], tmm1"),
            product!(@if $($rows)?; "tilestored [{a1} + {s0}*1], tmm2"),
            product!(@both $($lanes)? $($rows)?; "tilestored [{a1} + {s0}*1 + 64], tmm3"),
            args = in(reg) &raw const $arguments,
            segment = out(reg) _, count = out(reg) _, n = out(reg) _, b = out(reg) _, bs = out(reg) _,
            line = out(reg) _, a0 = out(reg) _, s0 = out(reg) _, a1 = out(reg) _, s1 = out(reg) _, ahead = out(reg) _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack)
        )
    };
    (@if; $line:expr) => { "" };
    (@if $there:ident; $line:expr) => { $line };
    (@both $a:ident $b:ident; $line:expr) => { $line };
    (@both $($some:ident)?; $line:expr) => { "" };
}

impl Tiles for Amx {
    #[inline(always)]
    fn multiply(self, strip: &TileStrip<'_>, (sums, stride): (&mut [f32], usize)) {
        strip.check(sums, stride);
        shape(strip.rows);
        let mut segments = [Segment::NONE; MAX_SEGMENTS];
        for (to, [upper, lower]) in segments.iter_mut().zip(strip.segments) {
            *to = Segment {
                upper: upper.bytes.as_ptr(),
                upper_stride: upper.stride,
                lower: lower.bytes.as_ptr(),
                lower_stride: lower.stride,
            };
        }
        let vector = TILE * size_of::<f32>();
        let arguments = Arguments {
            segments: segments.as_ptr(),
            count: strip.segments.len(),
            steps: strip.steps,
            b: strip.b.as_ptr(),
            b_stride: strip.b_stride * vector,
            sums: sums.as_mut_ptr(),
            sums_stride: stride * vector,
            accumulate: usize::from(strip.accumulate),
            ahead: strip.ahead.at,
            ahead_step: strip.ahead.step,
        };
        let has_both = (strip.vectors == 2, strip.rows > TILE);
        // SAFETY: `self` proves that the CPU has the instructions, and the tiles of this thread were just shaped for
        // the rows of the strip. `check` has seen that all that is read and written with this shape lies inside the
        // slices; of the second half of rows or lanes nothing is touched where there is none.
        unsafe {
            match (strip.numbers, has_both) {
                (Numbers::Bytes, (true, true)) => product!(arguments, "tdpbusd"; [lanes] {rows}),
                (Numbers::Bytes, (true, false)) => product!(arguments, "tdpbusd"; [lanes]),
                (Numbers::Bytes, (false, true)) => product!(arguments, "tdpbusd"; {rows}),
                (Numbers::Bytes, (false, false)) => product!(arguments, "tdpbusd";),
                (Numbers::Pairs, (true, true)) => product!(arguments, "tdpbf16ps"; [lanes] {rows}),
                (Numbers::Pairs, (true, false)) => product!(arguments, "tdpbf16ps"; [lanes]),
                (Numbers::Pairs, (false, true)) => product!(arguments, "tdpbf16ps"; {rows}),
                (Numbers::Pairs, (false, false)) => product!(arguments, "tdpbf16ps";),
            }
        }
    }

    #[inline(always)]
    fn release(self) {
        if SHAPED.replace(0) != 0 {
            // SAFETY: `self` proves that the CPU has the instruction; nothing of ours is left in the tiles.
            unsafe { asm!("tilerelease", options(nomem, nostack)) };
        }
    }
}
