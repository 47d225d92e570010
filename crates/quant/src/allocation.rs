//! Which bits each layer gets: the two groups, each at its own budget.
//!
//! A group `G` of layers with sizes `wᵢ` and scores `Sᵢᵇ` at `b` bits has the target `m` ([`Budget::target`]):
//!
//! ```text
//! maximise Σᵢ S(i, bᵢ)   subject to   (m − 0.02) W ≤ Σᵢ bᵢ wᵢ ≤ (m + 0.02) W,   W = Σᵢ wᵢ
//! ```
//!
//! Scores are as they were measured, neither scaled nor weighted by size. Layers that are protected keep real
//! numbers: they are taken out of both sums. How the budget is split depends on the sizes of all layers, protected or not.

use std::collections::BTreeMap;

use crate::budget::{self, Budget, TOLERANCE};
use crate::error::Error;
use crate::group::Group;
use crate::kind::Kind;
use crate::programme::{self, Candidate};
use crate::table::{BITS, Costs, Scores};

/// What is known of the layers.
#[derive(Clone, Copy, Debug)]
pub struct Measured<'a> {
    /// Scores of the content group; others in the file are not looked at.
    pub content: &'a Scores,
    /// Scores of the quality group; others in the file are not looked at.
    pub quality: &'a Scores,
    /// Sizes of all layers.
    pub costs: &'a Costs,
}

/// Layers that wait for their bits.
#[derive(Clone, Debug)]
pub struct Problem {
    kind: Kind,
    content: Members,
    quality: Members,
    protected: Vec<String>,
}

/// The layers of a group.
#[derive(Clone, Debug)]
struct Members {
    group: Group,
    /// Those that are not protected.
    layers: Vec<Layer>,
    /// The size of all, protected or not.
    size: f64,
}

#[derive(Clone, Debug)]
struct Layer {
    name: String,
    size: f64,
    scores: [f64; 3],
}

/// The bits of all layers, or why there are none.
#[derive(Clone, Debug, PartialEq)]
pub struct Allocation {
    /// The content group.
    pub content: Share,
    /// The quality group.
    pub quality: Share,
    /// Bits of the layers that are not protected; none unless both groups have a solution.
    pub bits: BTreeMap<String, u8>,
}

/// What a group gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// The average that it should have.
    pub target: f64,
    /// The best that there is; `None` if no choice of bits has this average.
    pub best: Option<Best>,
}

/// The best choice of bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best {
    /// The average that it has; `None` for a group without size.
    pub average: Option<f64>,
    /// The sum of its scores.
    pub objective: f64,
}

impl Allocation {
    /// What a group gets.
    pub fn share(&self, group: Group) -> Share {
        match group {
            Group::Content => self.content,
            Group::Quality => self.quality,
        }
    }
}

impl Problem {
    /// Put the layers of all files together, without the most sensitive ones: of each group the given share of its
    /// layers, rounded up, whose scores at 8 bits are lowest.
    ///
    /// # Errors
    ///
    /// If the share is none, or a layer has a score in its group's file but no cost, or a cost but no score.
    pub fn new(kind: Kind, measured: Measured, protect: f64) -> Result<Self, Error> {
        if !(0.0..1.0).contains(&protect) {
            let fault =
                format!("a share of {protect} cannot be protected; use 0 or more and less than 1");
            return Err(Error::Request(fault));
        }
        let mut content = Members::new(Group::Content, measured.content, measured.costs)?;
        let mut quality = Members::new(Group::Quality, measured.quality, measured.costs)?;
        let mut protected = quality.protect(protect);
        protected.extend(content.protect(protect));
        Ok(Self { kind, content, quality, protected })
    }

    /// The layers that keep real numbers, the most sensitive of each group first.
    pub fn protected(&self) -> &[String] {
        &self.protected
    }

    /// The best bits within a budget.
    ///
    /// # Errors
    ///
    /// If the budget is not of positive numbers.
    pub fn allocate(&self, budget: Budget) -> Result<Allocation, Error> {
        for (name, number) in [("average", budget.average), ("ratio", budget.ratio)] {
            if !(number.is_finite() && number > 0.0) {
                return Err(Error::Request(format!(
                    "{number} cannot be the {name} of bits; use a number above 0"
                )));
            }
        }
        let mut bits = BTreeMap::new();
        let content = self.share(&self.content, budget, &mut bits);
        let quality = self.share(&self.quality, budget, &mut bits);
        if content.best.is_none() || quality.best.is_none() {
            bits.clear();
        }
        Ok(Allocation { content, quality, bits })
    }

    fn share(&self, members: &Members, budget: Budget, all: &mut BTreeMap<String, u8>) -> Share {
        let target = budget.target(members.group, self.content.size, self.quality.size);
        let sensible = budget::is_sensible(members.group, target);
        let bits = sensible.then(|| members.best(self.kind, target)).flatten();
        let best = bits.map(|bits| {
            let best = members.sums(&bits);
            let names = members.layers.iter().map(|layer| layer.name.clone());
            all.extend(names.zip(bits));
            best
        });
        Share { target, best }
    }
}

impl Members {
    fn new(group: Group, scores: &Scores, costs: &Costs) -> Result<Self, Error> {
        let mut layers = Vec::new();
        for (name, &size) in &costs.layers {
            if Group::of(name) != group {
                continue;
            }
            let Some(&scores) = scores.layers.get(name) else {
                return Err(Error::Missing {
                    path: scores.path.clone(),
                    what: "scores",
                    layer: name.clone(),
                    other: costs.path.clone(),
                    advice: "measure the layer, or take it out of the costs",
                });
            };
            layers.push(Layer { name: name.clone(), size, scores });
        }
        let own = scores.layers.keys().filter(|name| Group::of(name) == group);
        if let Some(name) = own.into_iter().find(|name| !costs.layers.contains_key(*name)) {
            return Err(Error::Missing {
                path: costs.path.clone(),
                what: "cost",
                layer: name.clone(),
                other: scores.path.clone(),
                advice: "give the layer's size, or take it out of the scores",
            });
        }
        let size = layers.iter().map(|layer| layer.size).sum();
        Ok(Self { group, layers, size })
    }

    /// Take out this share of the layers, those with the lowest scores at 8 bits.
    fn protect(&mut self, share: f64) -> Vec<String> {
        // A share of 0.07 of 100 layers is 7, though the product is greater by rounding.
        let count = (share * self.layers.len() as f64 - 1e-9).ceil() as usize;
        let mut order: Vec<usize> = (0..self.layers.len()).collect();
        // Equal ones in the order of their names.
        order.sort_by(|&a, &b| self.layers[a].scores[2].total_cmp(&self.layers[b].scores[2]));
        order.truncate(count);
        let names = order.iter().map(|&i| self.layers[i].name.clone()).collect();
        let mut number = 0..;
        self.layers.retain(|_| number.next().is_none_or(|i| !order.contains(&i)));
        names
    }

    /// The size of the layers that are not protected.
    fn left(&self) -> f64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }

    /// The bits of each layer with the greatest sum of scores.
    fn best(&self, kind: Kind, target: f64) -> Option<Vec<u8>> {
        let bits = kind.bits(self.group);
        let candidates = |layer: &Layer| {
            let candidate = |&bits: &u8| Candidate {
                cost: f64::from(bits) * layer.size,
                score: layer.score(bits),
            };
            bits.iter().map(candidate).collect()
        };
        let candidates: Vec<Vec<Candidate>> = self.layers.iter().map(candidates).collect();
        let size = self.left();
        let window = (target - TOLERANCE) * size..=(target + TOLERANCE) * size;
        let chosen = programme::solve(&candidates, window)?;
        Some(chosen.into_iter().map(|choice| bits[choice]).collect())
    }

    fn sums(&self, bits: &[u8]) -> Best {
        let layers = || self.layers.iter().zip(bits);
        let size = self.left();
        let total: f64 = layers().map(|(layer, &bits)| f64::from(bits) * layer.size).sum();
        Best {
            average: (size > 0.0).then(|| total / size),
            objective: layers().map(|(layer, &bits)| layer.score(bits)).sum(),
        }
    }
}

impl Layer {
    /// The score with this many bits, one of [`BITS`].
    fn score(&self, bits: u8) -> f64 {
        let place = BITS.iter().position(|b| *b == bits);
        self.scores[place.unwrap_or(BITS.len() - 1)]
    }
}

#[cfg(test)]
mod tests;
