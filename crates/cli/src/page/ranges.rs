//! How large the numbers are that each layer reads, and the first token of texts beside all others.

use quant::calibration::{Calibration, Seen, Tokens};

use super::chart::{Chart, Span};
use super::{BESIDE, CONTENT, JUDGED};

/// The share of all numbers within the lower mark of a layer; the upper one is the greatest.
const INSIDE: f64 = 0.999;

/// The least magnitude that is told from zero.
const LEAST: f64 = 1e-6;

/// What marks stand for, and their colours. What is largest comes last, so that nothing hides it.
const INNER: (&str, &str) = ("99.9 % are within", BESIDE);
const GREATEST: (&str, &str) = ("the greatest", JUDGED);
const OTHERS: (&str, &str) = ("texts: others", CONTENT);
const FIRST: (&str, &str) = ("texts: first token", "#dc2626");

/// A magnitude of what a layer reads.
struct Mark {
    key: (&'static str, &'static str),
    size: f64,
    title: String,
}

/// The chart, and below it what one range would leave to a text.
pub(super) fn chart(found: &Calibration) -> String {
    let layers: Vec<&[Seen]> = found.seen.chunk_by(|a, b| layer(a) == layer(b)).collect();
    let marks = layers.iter().enumerate().flat_map(|(x, seen)| {
        seen.iter().flat_map(marks).map(move |mark| ([x as f64 + 0.5, mark.size], mark))
    });
    let marks: Vec<([f64; 2], Mark)> = marks.collect();
    let mut chart = Chart::new(
        ("layers, as they run", Span::of([0.0, layers.len() as f64])),
        ("magnitude of what they read, log₁₀", Span::of(marks.iter().map(|(at, _)| at[1]))),
    );
    for key in [INNER, GREATEST, OTHERS, FIRST] {
        for (at, mark) in marks.iter().filter(|(_, mark)| mark.key == key) {
            chart.dot(*at, key.1, &mark.title);
        }
        chart.key(key.1, key.0);
    }
    chart.svg() + &found.first_token_ratio().map_or(String::new(), sentence)
}

/// The layer that read it, whole or by halves.
fn layer(seen: &Seen) -> &str {
    seen.reads.split(':').next().unwrap_or(&seen.reads)
}

fn marks(seen: &Seen) -> impl Iterator<Item = Mark> + use<> {
    let (key, who) = match seen.tokens {
        Tokens::All => (GREATEST, ""),
        Tokens::First => (FIRST, ", first token"),
        Tokens::Others => (OTHERS, ", all other tokens"),
    };
    let mark = |key, [low, high]: [f32; 2], what: &str| {
        let most = f64::from(low.abs().max(high.abs()));
        let title = format!("{}{who}: {what}{most:.3}", seen.reads);
        Mark { key, size: most.max(LEAST).log10(), title }
    };
    let observed = &seen.observed;
    let inner = mark(INNER, observed.within(1.0 - INSIDE), "99.9 % within ");
    let greatest = mark(key, observed.extremes, "at most ");
    // A first token is one row, the same for all texts.
    let inner = (seen.tokens != Tokens::First).then_some(inner);
    inner.into_iter().chain([greatest])
}

/// What a first token that is so many times as large as all others does to them.
fn sentence(ratio: f64) -> String {
    let left = if ratio > 1.0 {
        format!(": one range of 256 codes for both would leave about {:.0} to them", 256.0 / ratio)
    } else {
        String::new()
    };
    format!("<p>The first token of texts is {ratio:.2} times as large as all others{left}.</p>\n")
}
