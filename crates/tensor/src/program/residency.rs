//! Which weights of a program stay in memory, and which flow through it from their file.

use super::{Op, Program, SlotId, Target};

/// The window that is given to weights that flow, where there is room: enough to read some layers ahead.
const WINDOW: usize = 48 << 20;

/// Where the weights of a program are while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Residency {
    /// Weights that are read from their file when they are due and dropped after use, in the order of their first use.
    pub flowing: Vec<SlotId>,
    /// Bytes of the others, which stay.
    pub resident: usize,
    /// Bytes that those that flow may take at a time; zero where none does.
    pub window: usize,
    /// Bytes that flow in each run.
    pub streamed: usize,
}

impl Residency {
    /// Bytes of weights in memory at a time.
    pub fn bytes(&self) -> usize {
        self.resident + self.window
    }
}

impl Program {
    /// Where weights should be so that they take at most `room` bytes: all stay if they can, else as many as can
    /// beside a window for the rest, spread evenly so that there is always arithmetic to hide a read behind.
    ///
    /// # Errors
    ///
    /// The least room that there must be, if `room` is less.
    pub fn residency(&self, room: Option<usize>, target: &dyn Target) -> Result<Residency, usize> {
        let bytes = |slot: &SlotId| target.resident_bytes(self.slot(*slot));
        let all: Vec<SlotId> = (0..self.slots.len()).map(SlotId).collect();
        let total: usize = all.iter().map(bytes).sum();
        let room = room.unwrap_or(usize::MAX);
        if total <= room {
            return Ok(Residency { resident: total, ..Residency::default() });
        }
        let (can_flow, fixed): (Vec<SlotId>, Vec<SlotId>) =
            all.into_iter().partition(|slot| target.can_flow(self.slot(*slot)));
        let fixed: usize = fixed.iter().map(bytes).sum();
        let of_group = |steps: &[super::Step]| -> usize {
            let slots = steps.iter().flat_map(|step| step.op.weights());
            slots.filter(|slot| can_flow.contains(slot)).map(|slot| bytes(&slot)).sum()
        };
        let least = self.groups().map(|steps| of_group(&self.steps[steps])).max().unwrap_or(0);
        let window = room.saturating_sub(fixed).min(WINDOW.max(2 * least));
        if window < least || can_flow.is_empty() {
            return Err(fixed + least);
        }
        let sizes: Vec<usize> = can_flow.iter().map(bytes).collect();
        let stays = evenly(&sizes, room - fixed - window);
        let flowing: Vec<SlotId> =
            can_flow.iter().zip(&stays).filter(|(_, stays)| !**stays).map(|(id, _)| *id).collect();
        let streamed = flowing.iter().map(bytes).sum();
        Ok(Residency { resident: total - streamed, window, streamed, flowing })
    }

    /// Runs of steps whose weights are needed together: those of bands, and every other step alone.
    pub(crate) fn groups(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let mut next = 0;
        std::iter::from_fn(move || {
            let start = (next < self.steps.len()).then_some(next)?;
            let bands = self.bands.iter().find(|bands| bands.steps.start == start);
            next = bands.map_or(start + 1, |bands| bands.steps.end);
            Some(start..next)
        })
    }
}

/// Which of these sizes to choose, in order, so that at any point about the same share of what came by is chosen, and
/// no more than `room` in all.
fn evenly(sizes: &[usize], room: usize) -> Vec<bool> {
    let total: usize = sizes.iter().sum::<usize>().max(1);
    let (mut seen, mut chosen) = (0_u128, 0_u128);
    let choose = |&size: &usize| {
        seen += size as u128;
        let fits = (chosen + size as u128) * total as u128 <= seen * room as u128;
        chosen += if fits { size as u128 } else { 0 };
        fits
    };
    sizes.iter().map(choose).collect()
}

impl Op {
    /// The weights that it reads.
    pub fn weights(&self) -> Vec<SlotId> {
        use super::SimpleKind::{AddTable, Embed, Repeat, ScaleChannels};
        match self {
            Self::Matmul(m) => [Some(m.weight), m.bias].into_iter().flatten().collect(),
            Self::GroupNorm(n) => vec![n.gamma, n.beta],
            Self::LayerNorm(n) => vec![n.gamma, n.beta],
            Self::Simple(s) => match s.kind {
                AddTable { table, .. } | Embed { table } => vec![table],
                Repeat { row } => vec![row],
                ScaleChannels { factors } => vec![factors],
                _ => Vec::new(),
            },
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::evenly;

    #[test]
    fn what_stays_is_spread_and_fits() {
        let sizes: Vec<usize> = (0..200).map(|i| 1 + i * 37 % 101).collect();
        let total: usize = sizes.iter().sum();
        for room in [0, 1, total / 7, total / 2, total - 1, total] {
            let stays = evenly(&sizes, room);
            let chosen = |to: usize| -> usize {
                sizes[..to].iter().zip(&stays).filter(|(_, s)| **s).map(|(size, _)| size).sum()
            };
            assert!(chosen(200) <= room && chosen(200) + 101 > room, "{room}");
            let (half, seen) = (chosen(100), sizes[..100].iter().sum::<usize>());
            assert!(half.abs_diff(seen * room / total) <= 101, "{room}");
        }
    }
}
