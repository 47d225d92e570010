//! Scores, costs and bits of layers, in the YAML files of the published method.
//!
//! ```yaml
//! model.conv_in:            # scores: with 2, 4 and 8 bits
//! - 12.5
//! - 24.25
//! - 39.4
//! ```
//!
//! ```yaml
//! model.conv_in: 51.2       # costs: size; bit configurations: bits
//! ```

mod yaml;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The bits of the three scores of a layer.
pub const BITS: [u8; 3] = [2, 4, 8];

/// Magnitudes beyond this are mistakes, and their sums could overflow.
const MOST: f64 = 1e30;

/// How well a network does with one layer alone quantized, greater being better.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// Where it was read from.
    pub path: PathBuf,
    /// Scores of each layer with 2, 4 and 8 bits.
    pub layers: BTreeMap<String, [f64; 3]>,
}

/// The size of each layer: of its weights or of its input, in any unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Costs {
    /// Where it was read from.
    pub path: PathBuf,
    /// Sizes, finite and not negative.
    pub layers: BTreeMap<String, f64>,
}

const SCORES: &str = "scores (layer: [at 2 bits, at 4 bits, at 8 bits])";
const COSTS: &str = "costs (layer: size)";

impl Scores {
    /// Read a file.
    ///
    /// # Errors
    ///
    /// If it is not there or holds anything but layers with three numbers each.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let layers = read(path, SCORES, |row| {
            let values: [f64; 3] = row.values.as_slice().try_into().map_err(|_| {
                format!("layer `{}` has {}, not 3 scores", row.layer, count(row.values.len()))
            })?;
            match values.iter().find(|score| score.abs() > MOST) {
                Some(score) => Err(format!("layer `{}` has the score {score}", row.layer)),
                None => Ok(values),
            }
        })?;
        Ok(Self { path: path.to_owned(), layers })
    }
}

impl Costs {
    /// Read a file.
    ///
    /// # Errors
    ///
    /// If it is not there or holds anything but layers with one number each that is not negative.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let layers = read(path, COSTS, |row| match row.values[..] {
            [cost] if row.is_list => {
                Err(format!("layer `{}` has a list, where its size is due: {cost}", row.layer))
            }
            [cost] if !(0.0..=MOST).contains(&cost) => {
                Err(format!("layer `{}` has the cost {cost}, which is no size", row.layer))
            }
            [cost] => Ok(cost),
            _ => {
                Err(format!("layer `{}` has {}, not one size", row.layer, count(row.values.len())))
            }
        })?;
        Ok(Self { path: path.to_owned(), layers })
    }
}

/// A bit configuration.
pub fn bits_to_yaml(bits: &BTreeMap<String, u8>) -> String {
    let mut text = String::new();
    for (layer, bits) in bits {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}: {bits}", yaml::key(layer));
    }
    text
}

fn count(values: usize) -> String {
    match values {
        0 => "nothing".to_owned(),
        1 => "one number".to_owned(),
        _ => format!("{values} numbers"),
    }
}

fn read<T>(
    path: &Path,
    holds: &'static str,
    value: impl Fn(&yaml::Row) -> Result<T, String>,
) -> Result<BTreeMap<String, T>, Error> {
    let text = std::fs::read_to_string(path).map_err(|reason| Error::Read {
        path: path.to_owned(),
        holds,
        reason,
    })?;
    let fault = |line, fault| Error::Content { path: path.to_owned(), line, fault, holds };
    let rows = yaml::rows(&text).map_err(|(line, text)| fault(line, text))?;
    let mut layers = BTreeMap::new();
    for row in rows {
        let value = value(&row).map_err(|text| fault(row.line, text))?;
        if layers.insert(row.layer.clone(), value).is_some() {
            return Err(fault(row.line, format!("layer `{}` is there twice", row.layer)));
        }
    }
    if layers.is_empty() {
        return Err(fault(1, "no layers".to_owned()));
    }
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::{Costs, Scores, bits_to_yaml};

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn published_forms_are_read() {
        let scores = "model.a.ff.net.2:\n- 1.0\n- 2.5e-05\n- 3\nmodel.b: [4, 5, 6.25]\n";
        let scores = Scores::read(file(scores).path()).unwrap().layers;
        assert_eq!(scores["model.a.ff.net.2"], [1.0, 2.5e-5, 3.0]);
        assert_eq!(scores["model.b"], [4.0, 5.0, 6.25]);
        let costs = "---\n# sizes\n'a': 312.8888888888889\n\"b\": 1\n? c\n: .5\n";
        let costs = Costs::read(file(costs).path()).unwrap().layers;
        assert_eq!(costs["a"], 312.888_888_888_888_9);
        assert_eq!((costs["b"], costs["c"]), (1.0, 0.5));
        assert_eq!(costs.len(), 3);
    }

    #[test]
    fn faults_name_file_and_line() {
        for (text, expected) in [
            ("", "line 1: no layers"),
            ("a:\n- 1\n- 2\n", "line 1: layer `a` has 2 numbers, not 3 scores"),
            ("b: [1, 2, 3]\na: 7\n", "line 2: layer `a` has one number, not 3 scores"),
            ("a: [1, 2, 3]\nb: [1, .nan, 3]\n", "line 2: layer `b` has `.nan`, which is no number"),
            ("a: [1, 2, .inf]\n", "`.inf`"),
            ("a: [1, nan, 3]\n", "`nan`"),
            ("a: [1, 2, 1e31]\n", "the score 1"),
            ("a: [1, '2', 3]\n", "`2`, which is text"),
            ("a: [1, 2, 3]\na: [1, 2, 3]\n", "line 2: layer `a` is there twice"),
            ("- 1\n- 2\n", "no layers but a list"),
            ("just words\n", "no layers but `just words`"),
            ("a: {b: 1}\n", "layer `a` has a mapping"),
            ("a: [[1, 2, 3]]\n", "a list in a list"),
            ("a: &x [1, 2, 3]\nb: *x\n", "line 2: aliases"),
            ("a: [1, 2, 3]\n---\nb: [1, 2, 3]\n", "a second document"),
            ("a: [1, 2\n", "line"),
            ("a:\n", "layer `a` has no number"),
            ("? [a, b]\n: 1\n", "a list for a name"),
        ] {
            let file = file(text);
            let fault = Scores::read(file.path()).unwrap_err().to_string();
            assert!(fault.contains(expected), "{expected}: {fault}");
            assert!(fault.starts_with(&file.path().display().to_string()), "{fault}");
            assert!(fault.ends_with("at 8 bits])") && !fault.contains('\n'), "{fault}");
        }
        for (text, expected) in [
            ("a: -1\n", "layer `a` has the cost -1, which is no size"),
            ("a: [1]\n", "layer `a` has a list"),
            ("a: [1, 2]\n", "layer `a` has 2 numbers, not one size"),
            ("a: []\n", "layer `a` has nothing, not one size"),
        ] {
            let fault = Costs::read(file(text).path()).unwrap_err().to_string();
            assert!(fault.contains(expected) && fault.ends_with("(layer: size)"), "{fault}");
        }
        let nowhere = Costs::read("nowhere.yaml".as_ref()).unwrap_err().to_string();
        assert!(nowhere.starts_with("cannot read nowhere.yaml: "), "{nowhere}");
    }

    #[test]
    fn bits_are_read_back() {
        let names =
            ["model.conv_in", "a: b", "#x", "- y", "it's", "", "12", "true", "tab\there", "日本"];
        let bits = names.iter().map(|name| ((*name).to_owned(), 4)).collect();
        let read = Costs::read(file(&bits_to_yaml(&bits)).path()).unwrap().layers;
        let written: Vec<&String> = bits.keys().collect();
        assert_eq!(read.keys().collect::<Vec<_>>(), written);
        assert!(bits_to_yaml(&bits).contains("\nmodel.conv_in: 4\n"));
    }
}
