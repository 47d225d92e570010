//! Against all selections of small problems.

use std::ops::RangeInclusive;

use proptest::prelude::*;

use super::{Choice, LIMITS, Limits, solve, solve_within};

/// Every list outgrows this.
const TIGHT: Limits = Limits { ties: 1, states: 1, thinned: 1, trace: 1 };

/// The greatest sum of scores in the window and the least cost at which it is had.
fn optimum(layers: &[Vec<Choice>], low: i64, high: i64) -> Option<(i64, i64)> {
    let mut sums = vec![(0, 0)];
    for layer in layers {
        let with = |&(score, cost): &(i64, i64)| {
            layer.iter().map(move |choice| (score + choice.score, cost - choice.cost))
        };
        sums = sums.iter().flat_map(with).collect();
    }
    let inside = sums.into_iter().filter(|(_, cost)| (low..=high).contains(&-cost));
    inside.max().map(|(score, cost)| (score, -cost))
}

fn sums(layers: &[Vec<Choice>], chosen: &[usize]) -> (i64, i64) {
    let choices = || layers.iter().zip(chosen).map(|(layer, &j)| layer[j]);
    (choices().map(|choice| choice.score).sum(), choices().map(|choice| choice.cost).sum())
}

/// Layers of up to four choices; small numbers make ties.
fn layers(cost: i64, score: i64) -> impl Strategy<Value = Vec<Vec<Choice>>> {
    let choice = (0..=cost, -score..=score).prop_map(|(cost, score)| Choice { cost, score });
    prop::collection::vec(prop::collection::vec(choice, 1..=4), 0..=7)
}

/// Layers whose scores grow with their bits, as those of a network do.
fn grown() -> impl Strategy<Value = Vec<Vec<Choice>>> {
    let layer = (0..=1000_i64, 0..=100_i64, 0..=100_i64).prop_map(|(size, low, high)| {
        let choice = |bits: i64, score| Choice { cost: bits * size, score };
        vec![choice(2, 0), choice(4, low), choice(8, low + high)]
    });
    prop::collection::vec(layer, 0..=9)
}

fn window() -> impl Strategy<Value = (f64, f64)> {
    (-0.1..1.1, 0.0..0.3)
}

/// Solve, and compare with all selections.
fn check(layers: &[Vec<Choice>], (start, width): (f64, f64)) -> Result<(), TestCaseError> {
    let most = layers.iter().map(|layer| layer.iter().map(|c| c.cost).max().unwrap_or(0));
    let most = most.sum::<i64>() as f64;
    let (low, high) = ((start * most) as i64, ((start + width) * most) as i64);
    let expected = optimum(layers, low, high);
    let found = solve(layers, low..=high).map(|chosen| sums(layers, &chosen));
    prop_assert_eq!(found, expected);
    let tight = solve_within(layers, low..=high, TIGHT).map(|chosen| sums(layers, &chosen));
    prop_assert_eq!(tight.map(|(score, _)| score), expected.map(|(score, _)| score));
    prop_assert!(tight.is_none_or(|(_, cost)| (low..=high).contains(&cost)));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_problems(layers in layers(1000, 1000), window in window()) {
        check(&layers, window)?;
    }

    #[test]
    fn problems_full_of_ties(layers in layers(4, 2), window in window()) {
        check(&layers, window)?;
    }

    #[test]
    fn equal_scores(layers in layers(100, 0), window in window()) {
        check(&layers, window)?;
    }

    #[test]
    fn free_layers(layers in layers(0, 5), window in window()) {
        check(&layers, window)?;
    }

    #[test]
    fn layers_that_gain_from_bits(layers in grown(), window in window()) {
        check(&layers, window)?;
    }
}

fn bits(size: i64, scores: [i64; 3]) -> Vec<Choice> {
    let choice = |(bits, score)| Choice { cost: bits * size, score };
    [2, 4, 8].into_iter().zip(scores).map(choice).collect()
}

#[test]
fn nothing_is_decided_where_there_is_nothing() {
    assert_eq!(solve(&[], 0..=0), Some(vec![]));
    assert_eq!(solve(&[], 1..=9), None);
    assert_eq!(solve(&[vec![]], 0..=9), None);
    assert_eq!(solve(&[bits(1, [1, 2, 3])], i64::MIN..=i64::MAX), Some(vec![2]));
    assert_eq!(solve(&[bits(1, [1, 2, 3])], i64::MAX..=i64::MAX), None);
    assert_eq!(solve(&[bits(1, [1, 2, 3])], RangeInclusive::new(5, 3)), None);
}

#[test]
fn thousands_of_equal_layers() {
    let layers = vec![bits(35, [10, 16, 19]); 5000];
    for total in [12_345, 19_999, 20_000, 27_001, 39_999] {
        let chosen = solve(&layers, 35 * (total - 50)..=35 * total).unwrap();
        let (score, cost) = sums(&layers, &chosen);
        let spare = total - 2 * 5000;
        // The first two bits of a layer gain 6, the next four gain 3.
        let early = (spare / 2).min(5000);
        let late = (spare - 2 * early) / 4;
        assert_eq!(score, 5000 * 10 + early * 6 + late * 3, "{total}");
        assert!(cost <= 35 * total);
    }
}

#[test]
fn thousands_of_equal_scores() {
    // Nothing is gained by any choice: whatever lies in the window will do.
    let layers: Vec<_> = (0..3000).map(|i| bits(1_000_003 + 7919 * i, [5, 5, 5])).collect();
    let size: i64 = (0..3000).map(|i| 1_000_003 + 7919 * i).sum();
    let chosen = solve(&layers, 5 * size..=5 * size + size / 100).unwrap();
    assert_eq!(sums(&layers, &chosen).0, 15_000);
}

#[test]
fn scores_in_proportion_to_costs() {
    // The best selection is the one that fills the budget, and very many nearly do.
    let sizes: Vec<i64> = (0..420).map(|i| 10_000 + (i * i * 7919) % 90_001).collect();
    let layers: Vec<_> =
        sizes.iter().map(|&size| bits(size, [2, 4, 8].map(|b| b * size))).collect();
    let high = 5 * sizes.iter().sum::<i64>() + 12_345;
    let chosen = solve(&layers, high - 1_000_000..=high).unwrap();
    let (score, cost) = sums(&layers, &chosen);
    assert_eq!(score, cost);
    assert_eq!(cost, high - high % 2);
}

#[test]
fn one_layer_may_be_most_of_a_network() {
    // At 8 bits it is too much, at 4 the rest cannot make up for it; in between there is nothing.
    let mut layers: Vec<_> = (1..400).map(|i| bits(i, [0, i, i + i % 7])).collect();
    let rest: i64 = (1..400).sum();
    layers.push(bits(10 * rest, [0, 1, 2]));
    assert_eq!(solve(&layers, 60 * rest..=65 * rest), None);
    let chosen = solve(&layers, 45 * rest..=46 * rest).unwrap();
    assert_eq!(chosen[399], 1);
    let alone = solve(&layers[..399], 5 * rest..=6 * rest).unwrap();
    assert_eq!(sums(&layers, &chosen).0, sums(&layers[..399], &alone).0 + 1);
}

#[test]
fn limits_of_memory_change_nothing() {
    let layers: Vec<_> = (0..60)
        .map(|i| bits(1 + (i * 7919) % 101, [0, (i * 31) % 97, (i * 31) % 97 + (i * 17) % 89]))
        .collect();
    let size: i64 = layers.iter().map(|layer| layer[0].cost / 2).sum();
    for total in 3..8 {
        let window = total * size - size / 50..=total * size + size / 50;
        let score =
            |limits| sums(&layers, &solve_within(&layers, window.clone(), limits).unwrap()).0;
        let small = Limits { ties: 4, states: 16, thinned: 4, trace: 4096 };
        assert_eq!(score(LIMITS), score(small), "{total}");
    }
}
