//! Weights inside a prompt, in the notation that the web UIs share.
//!
//! `(x:1.3)` counts 1.3-fold, `(x)` 1.1-fold, `[x]` 1/1.1-fold; they nest and multiply. A bracket
//! that is never closed counts to the end, one that closes nothing is text, and `\(` `\)` `\[`
//! `\]` `\\` stand for themselves. `BREAK`, as a word of its own in capitals, ends an encoding.

/// What plain brackets multiply by.
const STEP: f32 = 1.1;

/// A prompt, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    parts: Vec<Part>,
}

/// A stretch of one weight, or the end of an encoding.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    Text { text: String, weight: f32 },
    Break,
}

impl Prompt {
    /// All of `text` as it stands, brackets included.
    pub fn plain(text: &str) -> Self {
        Self { parts: vec![Part::Text { text: text.to_owned(), weight: 1.0 }] }
    }

    /// `text` with its weights and breaks understood.
    pub fn weighted(text: &str) -> Self {
        let mut parser = Parser::default();
        let mut rest = text;
        while !rest.is_empty() {
            rest = &rest[parser.step(rest)..];
        }
        Self { parts: parser.finish() }
    }

    /// Whether the prompt asks for several encodings.
    pub fn has_breaks(&self) -> bool {
        self.parts.contains(&Part::Break)
    }

    /// Whether any of the text has a weight other than one.
    pub fn has_weights(&self) -> bool {
        let weighted = |part: &Part| matches!(part, Part::Text { weight, .. } if *weight != 1.0);
        self.parts.iter().any(weighted)
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The text from byte `at` of part `index` on, without notation.
    pub(super) fn text_from(&self, (index, at): (usize, usize)) -> String {
        let mut text = String::new();
        for (i, part) in self.parts.iter().enumerate().skip(index) {
            match part {
                Part::Text { text: more, .. } if i == index => {
                    text.push_str(&more[more.floor_char_boundary(at)..]);
                }
                Part::Text { text: more, .. } => text.push_str(more),
                Part::Break => text.push(' '),
            }
        }
        text
    }
}

/// What has been read, and the brackets that are still open, as numbers of parts.
#[derive(Default)]
struct Parser {
    parts: Vec<Part>,
    round: Vec<usize>,
    square: Vec<usize>,
}

impl Parser {
    /// Takes one piece from the front of `rest` and says how many bytes it had.
    fn step(&mut self, rest: &str) -> usize {
        match rest.as_bytes()[0] {
            b'\\' => {
                let escaped = rest[1..].chars().next().filter(|c| "()[]\\".contains(*c));
                self.text(escaped.map_or("", |c| &rest[1..=c.len_utf8()]));
                return 1 + escaped.map_or(0, char::len_utf8);
            }
            b'(' => self.round.push(self.parts.len()),
            b'[' => self.square.push(self.parts.len()),
            b':' => return self.colon(rest),
            b')' => match self.round.pop() {
                Some(open) => self.multiply(open, STEP),
                None => self.text(")"),
            },
            b']' => match self.square.pop() {
                Some(open) => self.multiply(open, 1.0 / STEP),
                None => self.text("]"),
            },
            _ => {
                let length = rest.find(['\\', '(', ')', '[', ']', ':']).unwrap_or(rest.len());
                self.words(&rest[..length]);
                return length;
            }
        }
        1
    }

    /// A colon: the weight of an open bracket, or text.
    fn colon(&mut self, rest: &str) -> usize {
        if let (Some((length, weight)), Some(&open)) = (closing_weight(rest), self.round.last()) {
            self.multiply(open, weight);
            self.round.pop();
            return length;
        }
        self.text(":");
        1
    }

    /// Text in which `BREAK` may occur.
    fn words(&mut self, text: &str) {
        let mut rest = text;
        while let Some(at) = find_break(rest) {
            self.text(rest[..at].trim_end());
            self.parts.push(Part::Break);
            rest = rest[at + BREAK.len()..].trim_start();
        }
        self.text(rest);
    }

    fn text(&mut self, text: &str) {
        if !text.is_empty() {
            self.parts.push(Part::Text { text: text.to_owned(), weight: 1.0 });
        }
    }

    fn multiply(&mut self, from: usize, factor: f32) {
        for part in &mut self.parts[from..] {
            if let Part::Text { weight, .. } = part {
                *weight *= factor;
            }
        }
    }

    /// Closes what is open and joins neighbours of equal weight.
    fn finish(mut self) -> Vec<Part> {
        for open in std::mem::take(&mut self.round) {
            self.multiply(open, STEP);
        }
        for open in std::mem::take(&mut self.square) {
            self.multiply(open, 1.0 / STEP);
        }
        let mut joined: Vec<Part> = Vec::new();
        for part in self.parts {
            match (joined.last_mut(), part) {
                (Some(Part::Text { text, weight }), Part::Text { text: more, weight: same })
                    if *weight == same =>
                {
                    text.push_str(&more);
                }
                (_, part) => joined.push(part),
            }
        }
        joined
    }
}

const BREAK: &str = "BREAK";

/// Where `BREAK` stands as a word of its own.
fn find_break(text: &str) -> Option<usize> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(BREAK)
        .map(|(at, _)| at)
        .find(|&at| !text[..at].ends_with(word) && !text[at + BREAK.len()..].starts_with(word))
}

/// `:1.3)` at the front of `rest`: its length and the number.
fn closing_weight(rest: &str) -> Option<(usize, f32)> {
    let inside = &rest[1..rest.find(')')?];
    let number = inside.trim();
    let digits = number.strip_prefix(['+', '-']).unwrap_or(number);
    let plain = !digits.is_empty() && digits.chars().all(|c| c == '.' || c.is_ascii_digit());
    let weight: f32 = plain.then(|| number.parse().ok())??;
    weight.is_finite().then_some((inside.len() + 2, weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts of a prompt, a break as an empty text of no weight.
    fn parts(text: &str) -> Vec<(String, f32)> {
        let pair = |part: &Part| match part {
            Part::Text { text, weight } => (text.clone(), *weight),
            Part::Break => (String::new(), 0.0),
        };
        Prompt::weighted(text).parts.iter().map(pair).collect()
    }

    #[test]
    fn weights_are_understood() {
        let cases: &[(&str, &[(&str, f32)])] = &[
            ("", &[]),
            ("a cat", &[("a cat", 1.0)]),
            ("(a:1.3) b", &[("a", 1.3), (" b", 1.0)]),
            ("(a) b", &[("a", 1.1), (" b", 1.0)]),
            ("((a))", &[("a", 1.1 * 1.1)]),
            ("[a]", &[("a", 1.0 / 1.1)]),
            ("a (b (c:2) d:0.5)", &[("a ", 1.0), ("b ", 0.5), ("c", 1.0), (" d", 0.5)]),
            ("(a", &[("a", 1.1)]),
            ("a)", &[("a)", 1.0)]),
            ("a]", &[("a]", 1.0)]),
            ("a\\(b\\)", &[("a(b)", 1.0)]),
            ("(a\\):1.5)", &[("a)", 1.5)]),
            ("\\\\ \\x", &[("\\ x", 1.0)]),
            ("10:30", &[("10:30", 1.0)]),
            ("a:1.3) b", &[("a:1.3) b", 1.0)]),
            ("(a: 1.2 )", &[("a", 1.2)]),
            ("(a:b)", &[("a:b", 1.1)]),
            ("(a:1.2.3)", &[("a:1.2.3", 1.1)]),
            ("(a:-1)", &[("a", -1.0)]),
            ("(a:inf)", &[("a:inf", 1.1)]),
            ("()", &[]),
            ("(猫:1.4)", &[("猫", 1.4)]),
            ("a BREAK b", &[("a", 1.0), ("", 0.0), ("b", 1.0)]),
            ("BREAK", &[("", 0.0)]),
            ("BREAKFAST aBREAK break", &[("BREAKFAST aBREAK break", 1.0)]),
            ("(a BREAK b:2)", &[("a", 2.0), ("", 0.0), ("b", 2.0)]),
        ];
        for (text, expected) in cases {
            let found = parts(text);
            let same = found.len() == expected.len()
                && found.iter().zip(*expected).all(|(found, expected)| {
                    found.0 == expected.0 && (found.1 - expected.1).abs() < 1e-6
                });
            assert!(same, "{text}: {found:?}, expected {expected:?}");
        }
    }

    #[test]
    fn plain_prompts_stay_as_they_are() {
        let prompt = Prompt::plain("(a:1.3) BREAK");
        assert!(!prompt.has_weights() && !prompt.has_breaks());
        assert_eq!(prompt.text_from((0, 3)), "1.3) BREAK");
        assert!(Prompt::weighted("a [b]").has_weights());
        assert!(Prompt::weighted("a BREAK b").has_breaks());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed(text in r"[()\[\]:\\ .0-9aBREAK猫]{0,40}") {
            let prompt = Prompt::weighted(&text);
            let total: usize = prompt.text_from((0, 0)).len();
            proptest::prop_assert!(total <= text.len());
        }
    }
}
