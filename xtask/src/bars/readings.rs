//! Numbers by name, as programs print them: `bar NAME VALUE UNIT`.

use std::collections::BTreeMap;

/// Readings of one source.
#[derive(Debug, Default)]
pub(super) struct Readings(BTreeMap<String, f64>);

impl Readings {
    /// All lines of `text` in the form `bar NAME VALUE UNIT`; other lines are left out.
    ///
    /// The line may follow something else, as a test runner writes names without ending the line.
    pub(super) fn parse(text: &str) -> Self {
        let mut readings = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let Some(start) = words.iter().position(|word| *word == "bar") else { continue };
            if let [name, value, ..] = words[start + 1..]
                && let Ok(value) = value.parse()
            {
                readings.set(name, value);
            }
        }
        readings
    }

    /// Adds a reading.
    pub(super) fn set(&mut self, name: &str, value: f64) {
        self.0.insert(name.to_owned(), value);
    }

    /// The reading called `name`.
    pub(super) fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }
}

/// The middle value; NaN, which passes no limit, where there is none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_among_others() {
        let text = "running 1 test\ntest a ... bar parity.max 1.5 levels\nbar x\nbar y 2\nok";
        let readings = Readings::parse(text);
        assert_eq!(readings.get("parity.max"), Some(1.5));
        assert_eq!(readings.get("y"), Some(2.0));
        assert_eq!(readings.get("x"), None);
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert!(median(vec![]).is_nan());
    }
}
