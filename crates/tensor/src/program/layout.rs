//! Buffers → places in one arena, from their lifetimes.
//!
//! Two buffers may share bytes if no step needs both. Placing them optimally is hard; the usual greedy rule is within
//! a few percent: take the largest first, and put each at the lowest place that is free for its whole life.

/// Where buffers begin, so that vector loads are aligned and no two share a cache line.
const ALIGN: usize = 64;

/// Bytes past the end of every buffer that kernels may read (never use): one vector.
const SLACK: usize = 64;

/// A buffer's size and the steps during which it must keep its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetime {
    /// Size in bytes.
    pub(crate) bytes: usize,
    /// First step that touches it.
    pub(crate) from: usize,
    /// Last step that touches it.
    pub(crate) to: usize,
}

/// The offset of each buffer, and the size of the arena.
pub(crate) fn place(buffers: &[Lifetime]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(buffers[i].bytes), i));
    let mut offsets = vec![0; buffers.len()];
    let mut placed: Vec<usize> = Vec::new();
    let mut arena = 0;
    for i in order {
        offsets[i] = lowest_free(buffers, &offsets, &placed, i);
        arena = arena.max(offsets[i] + room(&buffers[i]));
        let at = placed.partition_point(|&p| offsets[p] <= offsets[i]);
        placed.insert(at, i);
    }
    (offsets, arena)
}

/// The lowest offset at which buffer `i` meets no buffer that lives at the same time. `placed` is sorted by offset.
fn lowest_free(buffers: &[Lifetime], offsets: &[usize], placed: &[usize], i: usize) -> usize {
    let me = &buffers[i];
    let mut at = 0;
    for &p in placed {
        let other = &buffers[p];
        if other.from > me.to || other.to < me.from {
            continue;
        }
        if offsets[p] >= at + room(me) {
            break;
        }
        at = at.max(offsets[p] + room(other));
    }
    at
}

fn room(buffer: &Lifetime) -> usize {
    (buffer.bytes + SLACK).next_multiple_of(ALIGN)
}

#[cfg(test)]
mod tests {
    use super::{Lifetime, place, room};

    #[test]
    fn buffers_that_live_together_never_overlap() {
        let mut state = 1_u32;
        let mut next = |n: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % n
        };
        let buffers: Vec<Lifetime> = (0..300)
            .map(|_| {
                let from = next(100) as usize;
                let to = from + next(20) as usize;
                Lifetime { bytes: next(5000) as usize, from, to }
            })
            .collect();
        let (offsets, arena) = place(&buffers);
        for (i, a) in buffers.iter().enumerate() {
            assert!(offsets[i] + room(a) <= arena && offsets[i] % 64 == 0);
            for (j, b) in buffers.iter().enumerate().skip(i + 1) {
                let together = a.from <= b.to && b.from <= a.to;
                let apart =
                    offsets[i] + room(a) <= offsets[j] || offsets[j] + room(b) <= offsets[i];
                assert!(!together || apart, "{i} and {j} overlap");
            }
        }
    }

    #[test]
    fn a_chain_needs_two_buffers() {
        let chain: Vec<Lifetime> =
            (0..10).map(|i| Lifetime { bytes: 4096, from: i, to: i + 1 }).collect();
        assert_eq!(place(&chain).1, 2 * room(&chain[0]));
    }
}
