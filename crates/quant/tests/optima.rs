//! The integer programme at the sizes of real networks, against what HiGHS finds.
//!
//! `tools/reference/allocation.py` makes the optima and says where the numbers come from.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::Path;

use quant::programme::{Candidate, solve};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Case {
    family: String,
    seed: u64,
    layers: usize,
    bits: Vec<u8>,
    low: f64,
    high: f64,
    objective: Option<f64>,
}

/// `SplitMix64` as numbers from 0 to 1.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

const SIZES: [f64; 8] = [1.0, 320.0 / 9.0, 80.0, 1280.0 / 9.0, 160.0, 5120.0 / 9.0, 1280.0, 2560.0];

/// The size of a layer and its scores at 2, 4 and 8 bits.
fn layer(family: &str, random: &mut Random) -> (f64, [f64; 3]) {
    let [a, b, c, d] = std::array::from_fn(|_| random.next());
    match family {
        "likeness" => {
            let top = 1.0 - 0.0001 * a;
            let middle = top - 0.01 * (b * b * b);
            (1.0 + 99.0 * (d * d), [middle - 0.1 * (c * c * c), middle, top])
        }
        "decibels" => {
            let top = 60.0 + 24.0 * a;
            let middle = top - 20.0 * b;
            (SIZES[(8.0 * d) as usize], [middle - 15.0 * c, middle, top])
        }
        "proportional" => {
            let size = 1.0 + 9.0 * d;
            (size, [0.01 * a, size + 0.01 * b, 1.7 * size + 0.01 * c])
        }
        "falling" => (1.0 + 9.0 * d, [10.0 + a, 10.0 - b, 8.0 - 2.0 * c]),
        "repeated" => {
            let scores = [0.0, 1.0 + (3.0 * a).floor(), 4.0 + (3.0 * b).floor()];
            (SIZES[(3.0 * d) as usize], scores)
        }
        _ => panic!("unknown family {family}"),
    }
}

fn candidates(case: &Case) -> Vec<Vec<Candidate>> {
    let mut random = Random(case.seed);
    let layers = (0..case.layers).map(|_| {
        let (size, scores) = layer(&case.family, &mut random);
        let candidate = |&bits: &u8| {
            let place = [2, 4, 8].iter().position(|b| *b == bits).unwrap();
            Candidate { cost: f64::from(bits) * size, score: scores[place] }
        };
        case.bits.iter().map(candidate).collect()
    });
    layers.collect()
}

#[test]
fn optima_are_those_of_highs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/allocation/optima.json");
    let cases: Vec<Case> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut faults = Vec::new();
    for case in &cases {
        let candidates = candidates(case);
        let chosen = solve(&candidates, case.low..=case.high);
        let sum = |of: fn(&Candidate) -> f64| {
            let chosen = chosen.as_ref()?.iter().zip(&candidates);
            Some(chosen.map(|(&choice, layer)| of(&layer[choice])).sum::<f64>())
        };
        let (objective, cost) = (sum(|c| c.score), sum(|c| c.cost));
        let same = match (objective, case.objective) {
            (Some(ours), Some(theirs)) => (ours - theirs).abs() <= 1e-10 * theirs.abs(),
            (ours, theirs) => ours == theirs,
        };
        let slack = 1e-11 * case.high;
        let window = case.low - slack..=case.high + slack;
        if !same || !cost.is_none_or(|cost| window.contains(&cost)) {
            faults.push(format!("{case:?}: {objective:?} at {cost:?}"));
        }
    }
    assert!(cases.len() > 30);
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
