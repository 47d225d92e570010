//! What was seen of some numbers: extremes, sums, and how often each size occurred.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a new batch weighs in the running average; those before it weigh the rest, as in the published method.
const NEW: f32 = 0.05;

/// Bits of a number below its bin: bins are sixteenths of an octave.
const FINE: u32 = 19;

/// Bins of both signs.
const BINS: usize = 1 << (32 - FINE);

/// Rows of numbers that a layer read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observed {
    /// How many rows: tokens or pixels.
    pub rows: u64,
    /// The least and the greatest number.
    pub extremes: [f32; 2],
    /// The same at each sampling step.
    pub by_step: Vec<[f32; 2]>,
    /// Running average of the extremes of batches: `0.95 · before + 0.05 · batch`, once for each batch.
    pub average: Option<[f32; 2]>,
    /// Extremes of the batch that is not over.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    batch: Option<[f32; 2]>,
    /// Sum over rows of the distance between a row's extremes, zero among them, and the greatest of these distances.
    pub row_spans: (f64, f32),
    /// The greatest magnitude of each channel.
    pub most: Vec<f32>,
    /// Sum of squares of each channel; over `rows`, it is E\[x²\].
    pub squares: Vec<f64>,
    /// How many numbers fell into each bin, by order of the numbers.
    bins: BTreeMap<u16, u64>,
}

impl Observed {
    /// Nothing yet, of rows of `channels`, at so many steps.
    pub fn new(channels: usize, steps: usize) -> Self {
        Self {
            rows: 0,
            extremes: NONE,
            by_step: vec![NONE; steps],
            average: None,
            batch: None,
            row_spans: (0.0, 0.0),
            most: vec![0.0; channels],
            squares: vec![0.0; channels],
            bins: BTreeMap::new(),
        }
    }

    /// Take in rows that a layer read at a sampling step.
    pub fn add<'a>(&mut self, step: usize, rows: impl Iterator<Item = &'a [f32]>) {
        let (mut all, mut counts) = (NONE, vec![0_u32; BINS]);
        for row in rows {
            let mut own = NONE;
            let channels = self.most.iter_mut().zip(&mut self.squares);
            for (&x, (most, squares)) in row.iter().zip(channels) {
                own = with(own, [x, x]);
                *most = most.max(x.abs());
                *squares += f64::from(x) * f64::from(x);
                counts[usize::from(bin(x))] += 1;
            }
            let span = own[1].max(0.0) - own[0].min(0.0);
            self.row_spans.0 += f64::from(span);
            self.row_spans.1 = self.row_spans.1.max(span);
            self.rows += 1;
            all = with(all, own);
        }
        self.extremes = with(self.extremes, all);
        self.by_step[step] = with(self.by_step[step], all);
        self.batch = Some(with(self.batch.unwrap_or(NONE), all));
        for (bin, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            *self.bins.entry(bin as u16).or_default() += u64::from(count);
        }
    }

    /// A batch is over: one update of the running average.
    pub fn end_batch(&mut self) {
        let Some(batch) = self.batch.take() else { return };
        self.average = Some(match self.average {
            None => batch,
            Some(before) => [0, 1].map(|i| (1.0 - NEW) * before[i] + NEW * batch[i]),
        });
    }

    /// The distance between the extremes of a row, zero among them, on average.
    pub fn mean_row_span(&self) -> f64 {
        self.row_spans.0 / self.rows.max(1) as f64
    }

    /// An interval outside of which at most a share of all numbers lies, one half of them at each end: to a sixteenth
    /// of an octave.
    pub fn within(&self, outside: f64) -> [f32; 2] {
        let total: u64 = self.bins.values().sum();
        let most = (total as f64 * outside / 2.0) as u64;
        let low = beyond(self.bins.iter(), most);
        let high = beyond(self.bins.iter().rev(), most);
        let [least, greatest] = self.extremes;
        [edges(low)[0].max(least), edges(high)[1].min(greatest)]
    }

    /// Whether all numbers were finite, and what was read back fits together.
    pub(super) fn is_sound(&self, steps: usize) -> bool {
        self.rows > 0
            && self.by_step.len() == steps
            && self.most.len() == self.squares.len()
            && self.extremes.iter().chain(&self.most).all(|x| x.is_finite())
            && self.bins.keys().all(|bin| usize::from(*bin) < BINS)
    }
}

/// The first bin with which there are more than so many numbers.
fn beyond<'a>(bins: impl Iterator<Item = (&'a u16, &'a u64)>, most: u64) -> u16 {
    let mut seen = 0;
    for (bin, count) in bins {
        seen += count;
        if seen > most {
            return *bin;
        }
    }
    BINS as u16 / 2
}

/// Before the first number.
const NONE: [f32; 2] = [f32::INFINITY, f32::NEG_INFINITY];

fn with(a: [f32; 2], b: [f32; 2]) -> [f32; 2] {
    [a[0].min(b[0]), a[1].max(b[1])]
}

/// The bin of a number; bins are numbered in the order of what is in them.
fn bin(x: f32) -> u16 {
    let top = (x.to_bits() >> FINE) as u16;
    let negative = BINS as u16 / 2;
    if top & negative == 0 { top | negative } else { !top & (negative - 1) }
}

/// Where a bin begins and ends.
fn edges(bin: u16) -> [f32; 2] {
    let half = BINS as u16 / 2;
    let magnitude = |bin: u16| f32::from_bits(u32::from(bin) << FINE);
    if bin >= half {
        [magnitude(bin - half), magnitude(bin - half + 1)]
    } else {
        let bin = half - 1 - bin;
        [-magnitude(bin + 1), -magnitude(bin)]
    }
}

#[cfg(test)]
mod tests {
    use super::{Observed, bin, edges};

    fn observed(batches: &[&[&[f32]]]) -> Observed {
        let mut observed = Observed::new(batches[0][0].len(), 2);
        for batch in batches {
            for (step, row) in batch.iter().enumerate() {
                observed.add(step % 2, std::iter::once(*row));
            }
            observed.end_batch();
        }
        observed
    }

    #[test]
    fn everything_is_that_of_the_definition() {
        let all = observed(&[&[&[1.0, -2.0], &[3.0, 0.5]], &[&[-4.0, 0.0], &[0.0, 8.0]]]);
        assert_eq!(all.extremes, [-4.0, 8.0]);
        assert_eq!(all.by_step, [[-4.0, 1.0], [0.0, 8.0]]);
        let average = [0.95 * -2.0 + 0.05 * -4.0, 0.95 * 3.0 + 0.05 * 8.0];
        assert!(all.average.unwrap().iter().zip(average).all(|(a, b)| (a - b).abs() < 1e-6));
        assert_eq!(all.most, [4.0, 8.0]);
        assert_eq!(all.squares, [26.0, 68.25]);
        // Spans 3, 3, 4 and 8: zero belongs to each.
        assert_eq!((all.mean_row_span(), all.row_spans.1), (4.5, 8.0));
    }

    #[test]
    fn bins_are_in_order_and_hold_their_numbers() {
        let numbers = [-1e9, -3.0, -2.9, -1.0, -1e-30, 0.0, 1e-20, 0.7, 1.0, 1.03, 1.07, 5e8];
        for pair in numbers.windows(2) {
            assert!(bin(pair[0]) <= bin(pair[1]), "{pair:?}");
        }
        for x in numbers {
            let [low, high] = edges(bin(x));
            assert!(low <= x && x <= high && (high - low) <= 0.07 * x.abs().max(1e-30), "{x}");
        }
    }

    #[test]
    fn a_share_of_the_numbers_may_lie_outside() {
        let numbers: Vec<f32> = (0..10_000).map(|i| (i as f32 - 5000.0) / 5000.0).collect();
        let mut outliers = numbers.clone();
        outliers[3] = 800.0;
        let row: &[f32] = &outliers;
        let all = observed(&[&[row]]);
        assert_eq!(all.within(0.0), [-1.0, 800.0]);
        let [low, high] = all.within(0.01);
        assert!((-1.0..=-0.99).contains(&low) && (0.99..1.07).contains(&high), "{low} {high}");
    }
}
