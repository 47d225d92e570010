//! A made-up vocabulary in CLIP's format and size.
//!
//! The real one belongs to the published models. This one has the same 49,408 entries in the same order:
//! bytes, bytes that end a word, merges, begin, end. The merges are all pairs of letters,
//! then all triples, then some quadruples, so that every word of a prompt has tokens of its own.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value, json};

const ENTRIES: usize = 49408;
const MERGES: usize = ENTRIES - 2 * 256 - 2;
const BEGIN: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// Writes a tokenizer folder; `pad` is the token that fills a short prompt.
pub(crate) fn write(folder: &Path, pad: &str) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let merges = merges();
    let vocabulary = Value::Object(vocabulary(&merges));
    std::fs::write(folder.join("vocab.json"), vocabulary.to_string())?;
    let mut lines = String::from("#version: 0.2\n");
    for (left, right) in &merges {
        writeln!(lines, "{left} {right}")?;
    }
    std::fs::write(folder.join("merges.txt"), lines)?;
    let special =
        json!({ "bos_token": BEGIN, "eos_token": END, "pad_token": pad, "unk_token": END });
    super::write_json(&folder.join("special_tokens_map.json"), &special)?;
    super::write_json(&folder.join("tokenizer_config.json"), &settings(pad))
}

fn settings(pad: &str) -> Value {
    json!({
        "add_prefix_space": false,
        "bos_token": BEGIN,
        "do_lower_case": true,
        "eos_token": END,
        "errors": "replace",
        "model_max_length": 77,
        "pad_token": pad,
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": END,
    })
}

fn vocabulary(merges: &[(String, String)]) -> Map<String, Value> {
    let letters = letters();
    let whole = letters.iter().map(char::to_string);
    let last = letters.iter().map(|letter| format!("{letter}</w>"));
    let merged = merges.iter().map(|(left, right)| format!("{left}{right}"));
    let special = [BEGIN.to_owned(), END.to_owned()];
    let tokens = whole.chain(last).chain(merged).chain(special);
    tokens.enumerate().map(|(index, token)| (token, json!(index))).collect()
}

/// The printable stand-in of each byte, in the order of CLIP's vocabulary.
fn letters() -> Vec<char> {
    let printable = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let plain = (0..256).filter(|byte| printable(*byte));
    let unprintable = (0..256).filter(|byte| !printable(*byte)).count() as u32;
    plain.chain(256..256 + unprintable).filter_map(char::from_u32).collect()
}

fn merges() -> Vec<(String, String)> {
    let single: Vec<String> = ('a'..='z').map(String::from).collect();
    let pairs = products(&single, &single);
    let doubles: Vec<String> = pairs.iter().map(|(a, b)| format!("{a}{b}")).collect();
    let triples = products(&doubles, &single);
    let quadruples = products(&doubles, &doubles);
    let lengths = [pairs, triples, quadruples];
    lengths.into_iter().flat_map(with_endings).take(MERGES).collect()
}

fn products(left: &[String], right: &[String]) -> Vec<(String, String)> {
    left.iter().flat_map(|a| right.iter().map(move |b| (a.clone(), b.clone()))).collect()
}

/// Each merge inside a word, then each at the end of one.
fn with_endings(pairs: Vec<(String, String)>) -> Vec<(String, String)> {
    let ends = pairs.iter().map(|(a, b)| (a.clone(), format!("{b}</w>")));
    let mut ends: Vec<_> = ends.collect();
    // Triples at the end of a word come before triples inside: they split more prompts apart.
    ends.extend(pairs);
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_entry_is_there_once() {
        let merges = merges();
        assert_eq!(merges.len(), MERGES);
        assert_eq!(vocabulary(&merges).len(), ENTRIES);
    }

    #[test]
    fn merges_join_tokens_that_exist() {
        let mut known: HashSet<String> =
            letters().iter().flat_map(|l| [l.to_string(), format!("{l}</w>")]).collect();
        for (left, right) in merges() {
            assert!(known.contains(&left) && known.contains(&right), "{left} {right}");
            known.insert(format!("{left}{right}"));
        }
    }
}
