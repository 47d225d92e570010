//! Against all choices of bits, and the rules of protection.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Measured, Problem};
use crate::budget::Budget;
use crate::kind::Kind;
use crate::table::{Costs, Scores};

const SIZES: [(&str, f64); 6] = [
    ("conv_in", 1.0),
    ("mid.attn1.to_q", 4.0),
    ("mid.attn2.to_k", 2.5),
    ("mid.attn2.to_v", 2.5),
    ("mid.ff.net.0.proj", 8.0),
    ("mid.ff.net.2", 4.0),
];

fn costs() -> Costs {
    let layers = SIZES.map(|(name, size)| (name.to_owned(), size)).into();
    Costs { path: "costs.yaml".into(), layers }
}

/// Scores that grow with bits, other ones for each layer.
fn scores(path: &str) -> Scores {
    let layer = |i: usize| {
        let i = i as f64;
        [10.0 + i, 20.0 + (i * 7.0) % 5.0, 30.0 + (i * 3.0) % 4.0]
    };
    let layers = SIZES.iter().enumerate().map(|(i, (name, _))| ((*name).to_owned(), layer(i)));
    Scores { path: path.into(), layers: layers.collect() }
}

fn problem(kind: Kind, protect: f64) -> Problem {
    let (content, quality) = (scores("content.yaml"), scores("quality.yaml"));
    let measured = Measured { content: &content, quality: &quality, costs: &costs() };
    Problem::new(kind, measured, protect).unwrap()
}

/// The greatest sum of scores of these layers at an average between two.
fn optimum(names: &[&str], bits: &[u8], target: f64) -> Option<f64> {
    let (scores, costs) = (scores("").layers, costs().layers);
    let total: f64 = names.iter().map(|name| costs[*name]).sum();
    let mut sums = vec![(0.0, 0.0)];
    for name in names {
        let mut next = Vec::new();
        for bits in bits {
            let score = scores[*name][[2, 4, 8].iter().position(|b| b == bits).unwrap()];
            let cost = f64::from(*bits) * costs[*name];
            next.extend(sums.iter().map(|(s, c)| (s + score, c + cost)));
        }
        sums = next;
    }
    let inside = |cost: f64| (cost / total - target).abs() <= 0.02 + 1e-12;
    sums.into_iter()
        .filter(|(_, cost)| inside(*cost))
        .map(|(score, _)| score)
        .max_by(f64::total_cmp)
}

#[test]
fn each_group_has_the_best_bits() {
    let content = ["mid.attn2.to_k", "mid.attn2.to_v", "mid.ff.net.0.proj", "mid.ff.net.2"];
    let quality = ["conv_in", "mid.attn1.to_q"];
    let (mut solved, mut empty) = (0, 0);
    for kind in [Kind::Weight, Kind::Act] {
        let content_bits: &[u8] = if kind == Kind::Weight { &[2, 4, 8] } else { &[4, 8] };
        for step in 0..200 {
            let budget = Budget { average: 2.0 + f64::from(step) * 0.03, ratio: 0.9 };
            let allocation = problem(kind, 0.0).allocate(budget).unwrap();
            let both = [
                (&allocation.content, &content[..], content_bits, 2.0),
                (&allocation.quality, &quality[..], &[4, 8], 4.0),
            ];
            for (share, names, bits, least) in both {
                let sensible = (least..=8.0).contains(&share.target);
                let expected = optimum(names, bits, share.target).filter(|_| sensible);
                assert_eq!(share.best.map(|best| best.objective), expected, "{kind:?} {budget:?}");
                match share.best {
                    Some(best) => {
                        solved += 1;
                        assert!((best.average.unwrap() - share.target).abs() < 0.02 + 1e-12);
                    }
                    None => empty += 1,
                }
            }
            let whole = allocation.content.best.is_some() && allocation.quality.best.is_some();
            assert_eq!(allocation.bits.len(), if whole { 6 } else { 0 });
        }
    }
    assert!(solved > 20 && empty > 20, "{solved} {empty}");
}

#[test]
fn the_most_sensitive_layers_are_protected() {
    // Scores at 8 bits are 30, 33, 32, 31, 30, 33 in the order of the names.
    let none: &[&str] = &[];
    assert_eq!(problem(Kind::Act, 0.0).protected(), none);
    // One of two and one of four.
    assert_eq!(problem(Kind::Act, 0.01).protected(), ["conv_in", "mid.ff.net.0.proj"]);
    assert_eq!(problem(Kind::Act, 0.25).protected(), ["conv_in", "mid.ff.net.0.proj"]);
    let many = problem(Kind::Act, 0.26);
    assert_eq!(many.protected(), ["conv_in", "mid.ff.net.0.proj", "mid.attn2.to_v"]);
    let allocation = many.allocate(Budget { average: 8.0, ratio: 1.0 }).unwrap();
    let expected: BTreeMap<String, u8> =
        ["mid.attn1.to_q", "mid.attn2.to_k", "mid.ff.net.2"].map(|n| (n.to_owned(), 8)).into();
    assert_eq!(allocation.bits, expected);
    assert_eq!(allocation.content.best.unwrap().average, Some(8.0));
    // The split counts them.
    let (content, quality) = (17.0, 5.0);
    let budget = Budget { average: 6.0, ratio: 0.8 };
    let target = many.allocate(budget).unwrap().quality.target;
    assert!((target - 6.0 * (content + quality) / (0.8 * content + quality)).abs() < 1e-12);
}

#[test]
fn shares_are_rounded_up_but_rounding_is_not() {
    let costs = |count| Costs {
        path: PathBuf::new(),
        layers: (0..count).map(|i| (format!("conv.{i:03}"), 1.0)).collect(),
    };
    let protected = |count, share| {
        let costs = costs(count);
        let layers = costs.layers.keys().map(|name| (name.clone(), [1.0; 3])).collect();
        let scores = Scores { path: PathBuf::new(), layers };
        let measured = Measured { content: &scores, quality: &scores, costs: &costs };
        Problem::new(Kind::Act, measured, share).unwrap().protected().len()
    };
    for (count, share, expected) in
        [(100, 0.07, 7), (374, 0.01, 4), (420, 0.01, 5), (400, 0.01, 4), (3, 0.99, 3), (5, 0.0, 0)]
    {
        assert_eq!(protected(count, share), expected, "{share} of {count}");
    }
}

#[test]
fn what_cannot_be_used_is_said() {
    let (content, quality, all) = (scores("content.yaml"), scores("quality.yaml"), costs());
    let fault = |content: &Scores, quality: &Scores, costs: &Costs, protect| {
        Problem::new(Kind::Weight, Measured { content, quality, costs }, protect)
            .unwrap_err()
            .to_string()
    };
    let mut partial = content.clone();
    partial.layers.remove("mid.ff.net.2");
    let said = fault(&partial, &quality, &all, 0.0);
    assert!(
        said.starts_with("content.yaml: no scores of layer `mid.ff.net.2`, which costs.yaml has; ")
    );
    let mut partial = all.clone();
    partial.layers.remove("conv_in");
    let said = fault(&content, &quality, &partial, 0.0);
    assert!(
        said.starts_with("costs.yaml: no cost of layer `conv_in`, which quality.yaml has; "),
        "{said}"
    );
    for share in [-0.1, 1.0, f64::NAN] {
        assert!(fault(&content, &quality, &all, share).contains("cannot be protected"));
    }
    for (average, ratio) in [(0.0, 1.0), (f64::NAN, 1.0), (5.0, -1.0), (5.0, f64::INFINITY)] {
        let said = problem(Kind::Act, 0.0).allocate(Budget { average, ratio }).unwrap_err();
        assert!(said.to_string().contains("use a number above 0"), "{said}");
    }
}

#[test]
fn a_group_without_layers_needs_no_bits() {
    let mut costs = costs();
    costs.layers.retain(|name, _| name == "conv_in");
    let scores =
        Scores { path: PathBuf::new(), layers: [("conv_in".to_owned(), [1.0, 2.0, 3.0])].into() };
    let measured = Measured { content: &scores, quality: &scores, costs: &costs };
    let problem = Problem::new(Kind::Weight, measured, 0.0).unwrap();
    let allocation = problem.allocate(Budget { average: 8.0, ratio: 1.0 }).unwrap();
    let best = allocation.content.best.unwrap();
    assert_eq!((best.average, best.objective), (None, 0.0));
    assert_eq!(allocation.bits["conv_in"], 8);
}
