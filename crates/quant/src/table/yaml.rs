//! A mapping from names to numbers or lists of numbers: all the YAML that is needed.

use saphyr_parser::{Event, Parser, ScalarStyle};

/// An entry of the mapping.
pub(super) struct Row {
    /// Where it begins.
    pub(super) line: usize,
    /// Its name.
    pub(super) layer: String,
    /// Its numbers, all finite.
    pub(super) values: Vec<f64>,
    /// Whether they are in a list.
    pub(super) is_list: bool,
}

/// A line, and what is wrong there.
type Fault = (usize, String);

/// All entries.
pub(super) fn rows(text: &str) -> Result<Vec<Row>, Fault> {
    let mut events = Events { parser: Parser::new_from_str(text), line: 1 };
    let mut rows = Vec::new();
    loop {
        match events.next()? {
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
            Event::StreamEnd => return Ok(rows),
            _ if !rows.is_empty() => return events.fault("a second document"),
            Event::MappingStart(..) => rows = events.mapping()?,
            // An empty document.
            Event::Scalar(text, ScalarStyle::Plain, ..) if text.is_empty() || text == "~" => {}
            Event::Scalar(text, ..) => return events.fault(&format!("no layers but `{text}`")),
            Event::SequenceStart(..) => return events.fault("no layers but a list"),
            _ => return events.fault("no layers"),
        }
    }
}

/// A name as YAML, in quotes where a reader could take it for something else.
pub(super) fn key(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
    // A dot or a name of the checkpoint in it: neither a number nor a word with a meaning.
    let known = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.contains(['.', '_']);
    if known && name.chars().all(plain) {
        return name.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in name.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.extend(format!("\\U{:08x}", u32::from(c)).chars()),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

struct Events<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    /// Of the last event.
    line: usize,
}

impl<'a> Events<'a> {
    fn next(&mut self) -> Result<Event<'a>, Fault> {
        match self.parser.next() {
            Some(Ok((event, span))) => {
                self.line = span.start.line();
                Ok(event)
            }
            Some(Err(error)) => Err((error.marker().line(), error.info().to_owned())),
            None => Ok(Event::StreamEnd),
        }
    }

    fn fault<T>(&self, text: &str) -> Result<T, Fault> {
        Err((self.line, text.to_owned()))
    }

    /// The rest of a mapping.
    fn mapping(&mut self) -> Result<Vec<Row>, Fault> {
        let mut rows = Vec::new();
        loop {
            let layer = match self.next()? {
                Event::MappingEnd => return Ok(rows),
                Event::Scalar(name, ..) => name.into_owned(),
                Event::Alias(_) => return self.fault("aliases are not read"),
                _ => return self.fault("a list for a name"),
            };
            let line = self.line;
            let mut row = Row { line, layer, values: Vec::new(), is_list: false };
            match self.next()? {
                Event::SequenceStart(..) => {
                    row.is_list = true;
                    self.list(&mut row)?;
                }
                event => {
                    let value = self.number(&row.layer, event)?;
                    row.values.push(value);
                }
            }
            rows.push(row);
        }
    }

    /// The rest of a list of numbers.
    fn list(&mut self, row: &mut Row) -> Result<(), Fault> {
        loop {
            match self.next()? {
                Event::SequenceEnd => return Ok(()),
                event => {
                    let value = self.number(&row.layer, event)?;
                    row.values.push(value);
                }
            }
        }
    }

    fn number(&self, layer: &str, event: Event) -> Result<f64, Fault> {
        match event {
            Event::Scalar(text, ScalarStyle::Plain, ..) => match parse(&text) {
                Some(number) => Ok(number),
                None if text.is_empty() => self.fault(&format!("layer `{layer}` has no number")),
                None => self.fault(&format!("layer `{layer}` has `{text}`, which is no number")),
            },
            Event::Scalar(text, ..) => {
                self.fault(&format!("layer `{layer}` has `{text}`, which is text"))
            }
            Event::Alias(_) => self.fault("aliases are not read"),
            Event::SequenceStart(..) => {
                self.fault(&format!("layer `{layer}` has a list in a list"))
            }
            _ => self.fault(&format!("layer `{layer}` has a mapping")),
        }
    }
}

/// A decimal number. Words for what is not finite are none.
fn parse(text: &str) -> Option<f64> {
    let digits = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
    text.parse().ok().filter(|number: &f64| digits && number.is_finite())
}
