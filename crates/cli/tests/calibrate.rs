//! `mixdq calibrate`, `quantize --static` and `evaluate --beside PLAN` on a small random pipeline.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

fn pipeline(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/pipelines").join(name)
}

fn mixdq(folder: &TempDir, command: &str, more: &[&str]) -> Command {
    let mut mixdq = Command::new(env!("CARGO_BIN_EXE_mixdq"));
    mixdq.current_dir(folder.path()).arg(command).args(["-W", "64", "-H", "64"]);
    mixdq.arg("-m").arg(pipeline("tiny-sdxl-turbo")).args(more);
    mixdq
}

fn done(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn failed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{said}");
    said
}

fn read(folder: &TempDir, name: &str) -> Vec<u8> {
    fs::read(folder.path().join(name)).unwrap()
}

#[test]
fn work_that_was_killed_ends_with_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let calibrate = |name: &str, threads: &str| {
        let more = ["--count", "12", "--steps", "2", "--cfg-scale", "2", "-o", name, "-t", threads];
        mixdq(&folder, "calibrate", &more)
    };
    done(&mut calibrate("once.jsonl", "1"));
    let mut wait = Duration::from_millis(60);
    loop {
        let mut child = calibrate("again.jsonl", "2").spawn().unwrap();
        std::thread::sleep(wait);
        if child.try_wait().unwrap().is_some_and(|status| status.success()) {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        wait = wait.mul_f32(1.6);
    }
    assert!(read(&folder, "again.jsonl") == read(&folder, "once.jsonl"));
    assert!(!folder.path().join("again.jsonl.part").exists());
    // What is finished is not done again.
    let before = fs::metadata(folder.path().join("once.jsonl")).unwrap().modified().unwrap();
    done(&mut calibrate("once.jsonl", "2"));
    assert_eq!(fs::metadata(folder.path().join("once.jsonl")).unwrap().modified().unwrap(), before);
    let header: Value =
        serde_json::from_slice(read(&folder, "once.jsonl").split(|b| *b == b'\n').next().unwrap())
            .unwrap();
    assert_eq!((&header["done"], &header["guidance"]), (&12.into(), &2.0.into()));
}

#[test]
fn static_plans_are_packed_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let few = ["--count", "2", "-b", "1", "-t", "2"];
    let quantize = |more: &[&str]| mixdq(&folder, "quantize", &[&few[..], more].concat());
    done(&mut mixdq(&folder, "calibrate", &["--count", "2", "-o", "r.jsonl", "-t", "2"]));
    done(&mut quantize(&["--static", "-o", "own.mixdq"]));
    done(&mut quantize(&["--static", "--ranges", "r.jsonl", "-o", "given.mixdq"]));
    assert!(read(&folder, "own.mixdq") == read(&folder, "given.mixdq"));
    assert!(read(&folder, "own.work/ranges.jsonl") == read(&folder, "r.jsonl"));
    let plan = String::from_utf8(read(&folder, "own.work/plan.toml")).unwrap();
    for line in
        ["version = 2", "default = \"w8a8s\"", "first_token = \"float\"", "shortcuts = \"apart\""]
    {
        assert!(plan.contains(line), "{line}");
    }
    let naive = ["--first-token", "as-others", "--shortcuts", "together", "--rule", "average"];
    done(&mut quantize(
        &[&["--static", "--weights", "4", "-o", "naive.mixdq"], &naive[..]].concat(),
    ));
    let plan = String::from_utf8(read(&folder, "naive.work/plan.toml")).unwrap();
    assert!(plan.contains("w4a8s") && !plan.contains("first_token") && !plan.contains("shortcuts"));

    // First tokens can be real whatever the ranges are.
    done(&mut quantize(&["--first-token", "float", "-o", "float.mixdq"]));
    done(&mut quantize(&["-o", "plain.mixdq"]));
    let holds = |name: &str| read(&folder, name).windows(11).any(|bytes| bytes == b"first_token");
    assert!(holds("float.mixdq") && !holds("plain.mixdq"));

    let reference = pipeline("tiny-sdxl-turbo");
    let mut evaluate = Command::new(env!("CARGO_BIN_EXE_mixdq"));
    let words = ["evaluate", "-m", "own.mixdq", "-W", "64", "-H", "64", "--json", "-"];
    evaluate.current_dir(folder.path()).args(words).args(few).arg("-r").arg(&reference);
    evaluate.args(["--beside", "w8a8,naive.work/plan.toml,own.work/plan.toml"]);
    let found: Value = serde_json::from_slice(&done(&mut evaluate).stdout).unwrap();
    let of = |at: usize, field: &str| found["contenders"][at]["mean"][field].as_f64().unwrap();
    assert_eq!(found["contenders"].as_array().unwrap().len(), 5);
    assert!(of(2, "sqnr") < of(1, "sqnr"));
    // The packed model and its plan on the original are one.
    assert_eq!(found["contenders"][3]["bytes"], found["contenders"][4]["bytes"]);
    assert!((of(3, "ssim") - of(4, "ssim")).abs() < 0.02);

    let picture = ["-o", "x.png", "-t", "2", "-W", "64", "-H", "64", "a fox"];
    let mut generate = Command::new(env!("CARGO_BIN_EXE_mixdq"));
    generate.current_dir(folder.path()).args(["generate", "-m", "own.mixdq"]).args(picture);
    done(&mut generate);
    assert!(failed(generate.args(["--clip-skip", "1"])).contains("leave it out"));
    done(Command::new(env!("CARGO_BIN_EXE_mixdq")).current_dir(folder.path()).args([
        "inspect",
        "own.mixdq",
        "-v",
        "--verify",
    ]));
}

#[test]
fn a_packed_model_draws_as_it_was_calibrated() {
    let folder = tempfile::tempdir().unwrap();
    let run = ["--steps", "2", "--cfg-scale", "1.5", "--sampling-method", "euler"];
    let run = [&run[..], &["--scheduler", "karras"]].concat();
    let few = ["--count", "1", "-t", "2", "-o"];
    done(&mut mixdq(&folder, "calibrate", &[&run[..], &few, &["r.jsonl"]].concat()));
    let known = ["--static", "--ranges", "r.jsonl"];
    done(&mut mixdq(&folder, "quantize", &[&known[..], &few, &["x.mixdq"]].concat()));
    let generate = |name: &str, more: &[&str]| {
        let mut mixdq = Command::new(env!("CARGO_BIN_EXE_mixdq"));
        mixdq.current_dir(folder.path()).args(["generate", "-m", "x.mixdq", "-t", "2", "a fox"]);
        let said = done(mixdq.args(["-o", name]).args(more)).stderr;
        (String::from_utf8(said).unwrap(), read(&folder, name))
    };
    let (said, own) = generate("own.png", &[]);
    assert!(said.contains("defaults: 2 steps (the run that it was calibrated for)"), "{said}");
    let (_, told) = generate("told.png", &[&run[..], &["-W", "64", "-H", "64"]].concat());
    assert!(own == told);
    assert!(own != generate("other.png", &["--scheduler", "exponential"]).1);
    // The spacing belongs to the method that it was wanted with.
    generate("lcm.png", &["--sampling-method", "lcm"]);
    // The original draws the same beside it.
    let reference = pipeline("tiny-sdxl-turbo");
    let mut evaluate = Command::new(env!("CARGO_BIN_EXE_mixdq"));
    evaluate.current_dir(folder.path()).args(["evaluate", "-m", "x.mixdq", "--json", "-"]);
    evaluate.args(["--count", "2", "-b", "1", "-t", "2"]).arg("-r").arg(&reference);
    let page = ["--html", "x.html", "--ranges", "r.jsonl"];
    let found: Value = serde_json::from_slice(&done(evaluate.args(page)).stdout).unwrap();
    assert_eq!((&found["steps"], &found["width"]), (&2.into(), &64.into()));
    let page = String::from_utf8(read(&folder, "x.html")).unwrap();
    assert!(page.contains("The first token of texts is") && page.contains("up_blocks"));
    assert_eq!(page.matches("<svg").count(), 3);
}

#[test]
fn what_cannot_be_had_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let quantize = |more: &[&str]| failed(&mut mixdq(&folder, "quantize", more));
    assert!(quantize(&["--scheme", "w8a8s", "-o", "x"]).contains("use --static"));
    assert!(quantize(&["--static", "--acts", "16", "-o", "x"]).contains("leave --acts out"));
    assert!(quantize(&["--static", "--ranges", "no", "-o", "x"]).contains("mixdq calibrate"));
    assert!(quantize(&["--ranges", "no", "-o", "x"]).contains("--static"));
    assert!(quantize(&["--work", "no", "-o", "x"]).contains("--static"));
    let said = failed(&mut mixdq(&folder, "sensitivity", &["--formats", "w8a8s", "-o", "x"]));
    assert!(said.contains("needs ranges"), "{said}");
    // Ranges of another model.
    done(&mut mixdq(&folder, "calibrate", &["--count", "1", "-o", "r.jsonl", "-t", "2"]));
    let other = pipeline("tiny-sd-turbo");
    let mut quantize = Command::new(env!("CARGO_BIN_EXE_mixdq"));
    quantize
        .current_dir(folder.path())
        .args(["quantize", "--static", "--ranges", "r.jsonl", "-o", "x"]);
    assert!(failed(quantize.arg("-m").arg(other)).contains("other weights"));
    // Nothing but the ranges was left behind.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
