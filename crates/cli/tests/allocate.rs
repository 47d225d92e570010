//! `mixdq allocate`: the best bits, in the published files' formats, and one clear line where there are none.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Layers with their sizes and their scores at 2, 4 and 8 bits.
const LAYERS: [(&str, f64, [f64; 3]); 6] = [
    ("model.conv_in", 2.0, [3.0, 12.25, 39.5]),
    ("model.mid_block.attentions.0.transformer_blocks.0.attn1.to_q", 4.0, [20.0, 41.0, 70.0]),
    ("model.mid_block.attentions.0.transformer_blocks.0.attn1.to_k", 2.0, [21.0, 44.0, 69.0]),
    ("model.mid_block.attentions.0.transformer_blocks.0.attn2.to_k", 3.0, [0.75, 0.875, 0.9375]),
    ("model.mid_block.attentions.0.transformer_blocks.0.attn2.to_v", 3.0, [0.5, 0.8125, 0.875]),
    ("model.mid_block.attentions.0.transformer_blocks.0.ff.net.2", 6.0, [0.25, 0.625, 0.96875]),
];

/// Files of scores and costs.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let (mut scores, mut costs) = (String::new(), String::new());
        for (layer, cost, [two, four, eight]) in LAYERS {
            writeln!(scores, "{layer}:\n- {two}\n- {four}\n- {eight}").unwrap();
            writeln!(costs, "{layer}: {cost}").unwrap();
        }
        let files = Self(tempfile::tempdir().unwrap());
        fs::write(files.path("content.yaml"), &scores).unwrap();
        fs::write(files.path("quality.yaml"), &scores).unwrap();
        fs::write(files.path("costs.yaml"), &costs).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Change the text of a file.
    fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{name} has {from}");
        fs::write(self.path(name), text.replacen(from, to, 1)).unwrap();
    }

    fn allocate(&self, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_mixdq"))
            .current_dir(self.0.path())
            .args(["allocate", "--content-scores", "content.yaml"])
            .args(["--quality-scores", "quality.yaml", "--costs", "costs.yaml"])
            .args(more)
            .output()
            .unwrap()
    }

    /// The names of all files but those that were given.
    fn made(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.map(|name| name.into_string().unwrap());
        let given = ["content.yaml", "quality.yaml", "costs.yaml"];
        names.filter(|name| !given.contains(&&name[..])).collect()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn refused(output: &Output, code: i32, expected: &str) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(code), "{expected}: {said}");
    assert_eq!(said.lines().count(), 1, "{expected}: not one line: {said}");
    assert!(said.starts_with("error: ") && said.contains(expected), "{expected}: {said}");
}

/// Half of each group's bits beyond 4, where they are worth most.
const BUDGET: [&str; 4] = ["--average-bits", "6", "--ratio", "1"];

const WEIGHT: [&str; 2] = ["--kind", "weight"];

fn name(end: &str) -> String {
    format!("model.mid_block.attentions.0.transformer_blocks.0.{end}")
}

#[test]
fn the_best_bits_are_printed_as_json() {
    let files = Files::new();
    let args = [&WEIGHT[..], &BUDGET, &["--json", "-", "-o", "bits.yaml"]].concat();
    let printed: Value = serde_json::from_str(&succeeded(&files.allocate(&args))).unwrap();
    let group = |objective: f64| json!({"status": "optimal", "target": 6.0, "average": 6.0, "objective": objective});
    let expected = json!({
        "groups": {"content": group(2.65625), "quality": group(149.5)},
        "protected": [],
        "bits": {
            "model.conv_in": 8,
            name("attn1.to_k"): 8,
            name("attn1.to_q"): 4,
            name("attn2.to_k"): 4,
            name("attn2.to_v"): 4,
            name("ff.net.2"): 8,
        },
    });
    assert_eq!(printed, expected);
    let yaml = fs::read_to_string(files.path("bits.yaml")).unwrap();
    assert_eq!(yaml.lines().count(), 6);
    assert!(yaml.starts_with("model.conv_in: 8\n"), "{yaml}");
    assert!(yaml.contains(".ff.net.2: 8\n") && yaml.contains(".attn1.to_q: 4\n"), "{yaml}");
    assert_eq!(files.made(), ["bits.yaml"]);
}

#[test]
fn a_table_is_printed_for_people() {
    let files = Files::new();
    let args = [&WEIGHT[..], &BUDGET].concat();
    let rows = succeeded(&files.allocate(&args));
    let words = |row: &str| row.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = rows.lines().map(words).collect();
    assert_eq!(rows[1], ["content", "3", "0", "2", "1", "6.0000", "6.0000", "2.656250"]);
    assert_eq!(rows[2], ["quality", "3", "-", "1", "2", "6.0000", "6.0000", "149.500000"]);
    assert_eq!((rows.len(), files.made().len()), (3, 0));
    // What goes elsewhere leaves the table alone, what goes to standard output takes its place.
    let args = [&args[..], &["--json", "all.json", "-o", "-"]].concat();
    assert!(succeeded(&files.allocate(&args)).starts_with("model.conv_in: 8\n"));
    assert_eq!(files.made(), ["all.json"]);
}

#[test]
fn the_most_sensitive_layers_are_protected() {
    let files = Files::new();
    let budget = ["--average-bits", "8", "--ratio", "1", "--protect", "0.01", "--json", "-"];
    let output = files.allocate(&[&["--kind", "act"], &budget[..]].concat());
    let printed: Value = serde_json::from_str(&succeeded(&output)).unwrap();
    assert_eq!(printed["protected"], json!(["model.conv_in", name("attn2.to_v")]));
    let bits = printed["bits"].as_object().unwrap();
    assert!(bits.len() == 4 && bits.values().all(|bits| bits == 8), "{bits:?}");
    assert_eq!(printed["groups"]["quality"]["objective"], json!(139.0));
}

#[test]
fn a_budget_without_solution_is_said() {
    let files = Files::new();
    let args = ["--average-bits", "5.9", "--ratio", "1", "--json", "all.json", "-o", "bits.yaml"];
    let output = files.allocate(&[&WEIGHT[..], &args].concat());
    refused(&output, 3, "no choice of bits leaves content layers at 5.9000 bits (2 to 8");
    assert_eq!(files.made(), ["all.json"]);
    let printed = fs::read_to_string(files.path("all.json")).unwrap();
    let printed: Value = serde_json::from_str(&printed).unwrap();
    let empty = json!({"status": "infeasible", "target": 5.9, "average": null, "objective": null});
    assert_eq!(printed["groups"], json!({"content": empty, "quality": empty}));
    assert_eq!(printed["bits"], json!({}));
    // Beyond 8 bits, or below 4 for the quality layers, nothing is asked for.
    for average in ["8.01", "3.99", "100"] {
        let output =
            files.allocate(&[&WEIGHT[..], &["--average-bits", average, "--ratio", "1"]].concat());
        refused(&output, 3, "no choice of bits");
    }
}

#[test]
fn a_sweep_writes_one_file_for_each_budget() {
    let files = Files::new();
    let sweep = |average| {
        files.allocate(&[&WEIGHT[..], &["--sweep", "many", "--average-bits", average]].concat())
    };
    // Six layers have few averages.
    refused(&sweep("6"), 3, "no ratio has a choice of bits with averages up to 6");
    assert!(files.made().is_empty());
    let (mut scores, mut costs) = (String::new(), String::new());
    for i in 0..80 {
        let layer = format!("block.{i}.{}", ["conv", "ff"][i % 2]);
        writeln!(scores, "{layer}: [{}, {}, 90]", i % 7, 20 + i % 11).unwrap();
        writeln!(costs, "{layer}: {}", 1 + i % 5).unwrap();
    }
    fs::write(files.path("content.yaml"), &scores).unwrap();
    fs::write(files.path("quality.yaml"), &scores).unwrap();
    fs::write(files.path("costs.yaml"), &costs).unwrap();
    let output = sweep("6");
    succeeded(&output);
    let made: Vec<_> = fs::read_dir(files.path("many")).unwrap().collect();
    assert!(made.len() > 50, "{}", made.len());
    assert!(said(&output).starts_with(&format!("many: {} files; ", made.len())), "{output:?}");
    for entry in made {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 80, "{}", path.display());
    }
}

#[test]
fn faults_in_files_are_named() {
    let check = |file: &str, from: &str, to: &str, expected: &str| {
        let files = Files::new();
        files.edit(file, from, to);
        let args = [&WEIGHT[..], &BUDGET, &["--json", "all.json", "-o", "bits.yaml"]].concat();
        refused(&files.allocate(&args), 2, expected);
        assert!(files.made().is_empty(), "{expected}");
    };
    check("content.yaml", "- 0.25\n", "", "content.yaml, line 21: layer `model.mid");
    check("content.yaml", "0.25", ".nan", "content.yaml, line 22: layer `model.mid");
    check("content.yaml", "0.25", "much", "has `much`, which is no number; give a YAML file");
    check("quality.yaml", "model.conv_in", "model.conv_out", "no scores of layer `model.conv_in`");
    check("costs.yaml", "model.conv_in: 2\n", "", "costs.yaml: no cost of layer `model.conv_in`");
    check("costs.yaml", "model.conv_in: 2", "model.conv_in: -2", "costs.yaml, line 1: layer");
    check("costs.yaml", "model.conv_in: 2", "model.conv_in: [2]", "costs.yaml, line 1: layer");
    check("costs.yaml", "model.conv_in: 2", "model.conv_in: {2", "costs.yaml, line");
    let files = Files::new();
    fs::remove_file(files.path("costs.yaml")).unwrap();
    let args = [&WEIGHT[..], &BUDGET].concat();
    let output = files.allocate(&args);
    refused(&output, 2, "cannot read costs.yaml: ");
    // The reason once, and what to do last.
    assert!(said(&output).ends_with("; give a YAML file of costs (layer: size)\n"), "{output:?}");
}

#[test]
fn impossible_requests_are_refused() {
    let files = Files::new();
    let check = |args: &[&str], expected: &str| {
        refused(&files.allocate(args), 2, expected);
        assert!(files.made().is_empty(), "{expected}");
    };
    let with = |more: &[&'static str]| [&WEIGHT[..], &BUDGET, more].concat();
    check(&[&["--kind", "bias"], &BUDGET[..]].concat(), "[possible values: weight, act]");
    check(&WEIGHT, "--average-bits");
    check(&["--kind", "act", "--average-bits", "8"], "--ratio");
    check(&["--kind", "act", "--average-bits", "8", "--ratio", "-1"], "cannot be the ratio");
    check(&["--kind", "act", "--average-bits", "nan", "--ratio", "1"], "cannot be the average");
    check(&["--kind", "act", "--average-bits", "nan", "--sweep", "many"], "cannot be the average");
    check(&with(&["--protect", "1"]), "a share of 1 cannot be protected");
    check(&with(&["--json", "-", "-o", "-"]), "cannot both be `-`");
    check(&with(&["-o", "/nowhere/bits.yaml"]), "cannot write in /nowhere");
    check(&with(&["--json", "/"]), "is a folder");
    check(&with(&["--sweep", "many"]), "--sweep");
}
