//! `mixdq sensitivity`, `quantize --target` and `evaluate` on a small random pipeline.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

const SMALL: [&str; 8] = ["-W", "64", "-H", "64", "--count", "1", "-b", "1"];

fn pipeline() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/pipelines/tiny-sdxl-turbo")
}

fn mixdq(folder: &TempDir, command: &str, more: &[&str]) -> Command {
    let mut mixdq = Command::new(env!("CARGO_BIN_EXE_mixdq"));
    mixdq.current_dir(folder.path()).arg(command).args(["-t", "2"]).args(more);
    mixdq
}

fn with_model(folder: &TempDir, command: &str, more: &[&str]) -> Command {
    let mut mixdq = mixdq(folder, command, &SMALL);
    mixdq.arg("-m").arg(pipeline()).args(more);
    mixdq
}

fn done(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn failed(command: &mut Command, code: i32) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(code));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{said}");
    said
}

fn read(folder: &TempDir, name: &str) -> Vec<u8> {
    fs::read(folder.path().join(name)).unwrap()
}

/// Layers of a few channels are padded to whole panels, so the least average of this model is beyond four bits.
const FIVE: [&str; 2] = ["--target", "w5a8"];

fn assert_same(folder: &TempDir, [a, b]: [&str; 2]) {
    let [of_a, of_b] = [a, b].map(|name| read(folder, name));
    let differs = of_a.iter().zip(&of_b).position(|(a, b)| a != b);
    assert!(of_a == of_b, "{a} and {b} differ at byte {differs:?}");
}

#[test]
fn shards_merge_to_the_bytes_of_one_run() {
    let folder = tempfile::tempdir().unwrap();
    done(&mut with_model(&folder, "sensitivity", &["-o", "all.jsonl", "--formats", "w8a8,w2a8"]));
    let mut names = Vec::new();
    for shard in ["1/3", "2/3", "3/3"] {
        let name = format!("{}.jsonl", shard.replace('/', "-"));
        let more = ["-o", &name, "--shard", shard, "--formats", "w8a8,w2a8"];
        done(&mut with_model(&folder, "sensitivity", &more));
        names.push(name);
    }
    let parts: Vec<&str> = names.iter().map(String::as_str).collect();
    let merge = [&["-o", "merged.jsonl", "--merge"], &parts[..]].concat();
    done(&mut mixdq(&folder, "sensitivity", &merge));
    assert_same(&folder, ["merged.jsonl", "all.jsonl"]);

    let merge = [&["-o", "less.jsonl", "--merge"], &parts[1..]].concat();
    assert!(failed(&mut mixdq(&folder, "sensitivity", &merge), 2).contains("name all shards"));
    assert!(!folder.path().join("less.jsonl").exists());
    let said = failed(&mut with_model(&folder, "sensitivity", &["-o", "x", "--shard", "4/3"]), 2);
    assert!(said.contains("is no shard"), "{said}");
}

#[test]
fn some_layers_are_measured_alike_with_and_without_what_comes_before_them() {
    let folder = tempfile::tempdir().unwrap();
    let measure = |more: &[&str]| {
        let some = ["--layers", "5", "--formats", "w4a8"];
        done(&mut with_model(&folder, "sensitivity", &[&some, more].concat()));
    };
    measure(&["-o", "some.jsonl"]);
    measure(&["-o", "anew.jsonl", "--no-prefix-cache"]);
    assert_same(&folder, ["some.jsonl", "anew.jsonl"]);
    let text = String::from_utf8(read(&folder, "some.jsonl")).unwrap();
    let record = |line: &str| serde_json::from_str::<Value>(line).unwrap()["place"].clone();
    let mut places: Vec<Value> = text.lines().skip(1).map(record).collect();
    places.dedup();
    assert_eq!(places.len(), 5);

    measure(&["-o", "1.jsonl", "--shard", "1/2"]);
    measure(&["-o", "2.jsonl", "--shard", "2/2"]);
    let merge = ["-o", "merged.jsonl", "--merge", "1.jsonl", "2.jsonl"];
    done(&mut mixdq(&folder, "sensitivity", &merge));
    assert_same(&folder, ["merged.jsonl", "some.jsonl"]);
}

#[test]
fn work_that_was_killed_ends_with_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let quantize =
        |name: &str| with_model(&folder, "quantize", &[&FIVE[..], &["-o", name]].concat());
    done(&mut quantize("once.mixdq"));
    // Two runs may end at the same step, none goes back.
    let mut wait = Duration::from_millis(60);
    loop {
        let mut child = quantize("again.mixdq").spawn().unwrap();
        std::thread::sleep(wait);
        if child.try_wait().unwrap().is_some_and(|status| status.success()) {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if folder.path().join("again.mixdq").exists() {
            assert_same(&folder, ["again.mixdq", "once.mixdq"]);
        }
        wait = wait.mul_f32(1.4);
    }
    assert_same(&folder, ["again.mixdq", "once.mixdq"]);
    for name in ["sensitivity.jsonl", "candidates.json", "activations.json", "plan.toml"] {
        let [again, once] = ["again", "once"].map(|run| format!("{run}.work/{name}"));
        assert_same(&folder, [&again, &once]);
    }
}

/// Layers of a file of scores, and the formats of them beside real numbers.
fn counts(folder: &TempDir, name: &str) -> [usize; 2] {
    let text = String::from_utf8(read(folder, name)).unwrap();
    let header: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let components = header["components"].as_array().unwrap();
    let count = |component: &Value, list: &str| component[list].as_array().unwrap().len();
    let layers = components.iter().map(|of| count(of, "layers"));
    let formats = components.iter().map(|of| count(of, "layers") * (count(of, "formats") - 1));
    let [layers, formats] = [layers.sum(), formats.sum()];
    assert_eq!(text.lines().count(), 1 + layers + formats);
    [layers, formats]
}

#[test]
fn time_that_is_given_is_spent_on_what_tells_most() {
    let folder = tempfile::tempdir().unwrap();
    let measure = |more: &[&str]| done(&mut with_model(&folder, "sensitivity", more));
    let said = |output: Output| String::from_utf8(output.stderr).unwrap();
    let said_of_all = said(measure(&["-o", "all.jsonl", "--time", "1h"]));
    let [layers, formats] = counts(&folder, "all.jsonl");
    assert!(said_of_all.contains(&format!("{layers} of {layers} layers fit")), "{said_of_all}");
    let agreement = |said: &str| said.lines().filter(|l| l.starts_with("rank correlation")).count();
    assert_eq!(agreement(&said_of_all), 2);
    let said_of_none = said(measure(&["-o", "none.jsonl", "--time", "0s"]));
    assert!(said_of_none.contains(&format!("0 of {layers} layers fit")), "{said_of_none}");
    let said_of_fast = said(measure(&["-o", "fast.jsonl", "--fast", "--against", "all.jsonl"]));
    assert_eq!(agreement(&said_of_fast), 4, "{said_of_fast}");
    let inferred = |name: &str| {
        let text = String::from_utf8(read(&folder, name)).unwrap();
        text.matches("\"inferred\":true").count()
    };
    // One format of each layer is measured, and real numbers are known.
    assert_eq!(inferred("all.jsonl"), formats - layers);
    assert_eq!(inferred("none.jsonl"), formats);
    assert_eq!(inferred("fast.jsonl"), formats - layers);
    done(&mut with_model(&folder, "quantize", &["--target", "w5a8", "--fast", "-o", "x.mixdq"]));
}

#[test]
fn all_that_is_measured_and_compared_keeps_to_the_time() {
    let folder = tempfile::tempdir().unwrap();
    let quantize = |name: &str| {
        let more = [&FIVE[..], &["--time", "1s", "--count", "2", "-b", "2", "-o", name]].concat();
        let quantize = ["-W", "64", "-H", "64"];
        let mut quantize = mixdq(&folder, "quantize", &[&quantize[..], &more].concat());
        let said = done(quantize.arg("-m").arg(pipeline()).args(["--work", "w"])).stderr;
        String::from_utf8(said).unwrap()
    };
    let said = quantize("x.mixdq");
    let fits = |what: &str| said.contains(&format!("{what} fit the time"));
    // Eight pictures are drawn at once, and the first plan is compared in any case.
    assert!(fits("what layers read: 8 pictures") && fits("1 of 4 pictures"), "{said}");
    assert!(said.contains(" plans fit the time"), "{said}");
    // What there was time for is done, and not done again.
    let again = quantize("again.mixdq");
    assert!(!again.contains("what layers read") && !again.contains("0 layers,"), "{again}");
    assert_same(&folder, ["again.mixdq", "x.mixdq"]);
}

#[test]
fn components_can_be_measured_alone() {
    let folder = tempfile::tempdir().unwrap();
    let measure = |more: &[&str]| with_model(&folder, "sensitivity", more);
    let more = ["-o", "vae.jsonl", "--components", "vae", "--formats", "w8a8,w4a8"];
    done(&mut measure(&more));
    let [layers, formats] = counts(&folder, "vae.jsonl");
    assert!(layers > 10 && formats == 2 * layers);
    let text = String::from_utf8(read(&folder, "vae.jsonl")).unwrap();
    assert!(text.lines().skip(1).all(|line| line.contains("\"component\":\"vae\"")));
    let said = failed(&mut measure(&["-o", "x.jsonl", "--components", "vea"]), 2);
    assert!(said.contains("no component `vea`"), "{said}");
}

#[test]
fn weights_and_activations_are_measured_apart() {
    let folder = tempfile::tempdir().unwrap();
    let more = ["-o", "x.jsonl", "--components", "unet", "--formats", "w4a16,a8,a4"];
    done(&mut with_model(&folder, "sensitivity", &more));
    let text = String::from_utf8(read(&folder, "x.jsonl")).unwrap();
    let records = text.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of = |format: &str, field: &str| -> Vec<f64> {
        let records = records.clone().filter(|record| record["format"] == format);
        records.map(|record| record[field].as_f64().unwrap()).collect()
    };
    // Rounding activations changes no weight.
    assert_eq!(of("a8", "bytes"), of("float", "bytes"));
    let (fine, coarse) = (of("a8", "sqnr"), of("a4", "sqnr"));
    let finer = fine.iter().zip(&coarse).filter(|(fine, coarse)| fine > coarse).count();
    assert!(finer * 10 > fine.len() * 9, "{finer} of {}", fine.len());
    let said = failed(&mut with_model(&folder, "sensitivity", &["-o", "x", "--formats", "a16"]), 2);
    assert!(said.contains("a16 rounds nothing"), "{said}");
}

#[test]
fn a_target_is_kept_and_proved() {
    let folder = tempfile::tempdir().unwrap();
    done(&mut with_model(&folder, "quantize", &["--target", "w7a8", "-o", "mixed.mixdq"]));
    let report: Value = serde_json::from_slice(&read(&folder, "mixed.work/report.json")).unwrap();
    assert_eq!(report["contenders"].as_array().unwrap().len(), 4);
    let page = String::from_utf8(read(&folder, "mixed.work/report.html")).unwrap();
    assert!(page.contains("data:image/png") && !page.contains("http") && !page.contains("<script"));
    assert_eq!(page.matches("<svg").count(), 6);
    assert!(page.contains("What each layer reads"));

    let evaluate = |more: &[&str]| {
        let reference = pipeline();
        let mut command = mixdq(&folder, "evaluate", &SMALL);
        command.args(["-m", "mixed.mixdq", "-r", reference.to_str().unwrap()]).args(more);
        command
    };
    let more = ["--beside", "w4a8", "--require", "ssim=0.2,psnr=5", "--json", "-"];
    let found: Value = serde_json::from_slice(&done(&mut evaluate(&more)).stdout).unwrap();
    let ssim = |i: usize| found["contenders"][i]["mean"]["ssim"].as_f64().unwrap();
    // As many bytes, padding included, but where they are felt.
    assert!(ssim(2) > ssim(1), "{} {}", ssim(2), ssim(1));
    let [model, clip] = [pipeline(), pipeline().join("../../clip")];
    let more =
        ["-W", "64", "-H", "64", "--count", "3", "-b", "1", "--json", "x.json", "--html", "x.html"];
    let mut judge = mixdq(&folder, "evaluate", &more);
    judge.args(["-m", "mixed.mixdq", "-r"]).arg(model).arg("--clip").arg(clip);
    let said = String::from_utf8(done(&mut judge).stdout).unwrap();
    assert!(said.contains("R-prec."), "{said}");
    let found: Value = serde_json::from_slice(&read(&folder, "x.json")).unwrap();
    for contender in found["contenders"].as_array().unwrap() {
        let thirds = 3.0 * contender["r_precision"].as_f64().unwrap();
        assert!(
            [0.0, 1.0, 2.0, 3.0].contains(&thirds.round())
                && (thirds - thirds.round()).abs() < 1e-9
        );
    }
    assert!(
        String::from_utf8(read(&folder, "x.html")).unwrap().contains("R-precision is the share")
    );
    let said = failed(&mut evaluate(&["--require", "sqnr=149"]), 3);
    assert!(said.contains("sqnr is") && said.contains("149 is required"), "{said}");
}

#[test]
fn what_cannot_be_had_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let quantize = |more: &[&str]| with_model(&folder, "quantize", more);
    let said = failed(
        quantize(&["-o", "x.mixdq", "--target", "w4a8", "--budget", "20k"]).arg("--work=w"),
        3,
    );
    assert!(said.contains("the least is"), "{said}");
    assert!(!folder.path().join("x.mixdq").exists());
    let said = failed(&mut quantize(&["-o", "x.mixdq", "--target", "w4a9"]), 2);
    assert!(said.contains("unknown target"), "{said}");
    let more = ["-o", "x.mixdq", "--target", "w4a8", "--count", "300"];
    let said = failed(mixdq(&folder, "quantize", &more).arg("-m").arg(pipeline()), 2);
    assert!(said.contains("prompts are needed"), "{said}");
    // A budget for the file is kept.
    done(quantize(&["-o", "x.mixdq", "--target", "w4a8", "--budget", "1500k"]).arg("--work=w"));
    assert!(read(&folder, "x.mixdq").len() <= 1_500_000);
}

#[test]
fn formats_can_be_offered() {
    let folder = tempfile::tempdir().unwrap();
    let offered = |formats: &str| {
        let more = ["-o", "x.mixdq", "--target", "w7a8", "--fast", "--formats", formats];
        let more = [&more[..], &["--text-formats", "w8a16,w8a8", "--work", "w"]].concat();
        with_model(&folder, "quantize", &more)
    };
    done(&mut offered("w8a8,w4ca8"));
    let plan = String::from_utf8(read(&folder, "w/plan.toml")).unwrap();
    assert!(
        plan.contains("\"w4ca8\"") && !plan.contains("\"w4a8\"") && !plan.contains("\"w2"),
        "{plan}"
    );
    let said = failed(&mut offered("w8a8,w4a8s"), 2);
    assert!(said.contains("needs ranges"), "{said}");
    let said = failed(&mut offered("w8a8,a8"), 2);
    assert!(said.contains("unknown scheme"), "{said}");
}

/// A budget of time is for this machine: with next to none there is nothing, with plenty all stays real in which rounding shows.
#[test]
fn pictures_may_have_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let within = |budget: &str| {
        let more = ["-o", "x.mixdq", "--target", "w8a8", "--budget", budget, "--work", "w"];
        // What is measured is kept in this rounding, too.
        let more = [&more[..], &["--rounding", "nearest"]].concat();
        with_model(&folder, "quantize", &more)
    };
    let said = failed(&mut within("0.001ms"), 3);
    assert!(said.contains("in 0.001 ms") && said.contains("the least"), "{said}");
    assert!(!folder.path().join("x.mixdq").exists());
    let said = String::from_utf8(done(&mut within("1000s")).stderr).unwrap();
    // Times are taken once, for the same plan after an interruption.
    assert!(!said.contains("a picture with real numbers takes"), "{said}");
    let plan = String::from_utf8(read(&folder, "w/plan.toml")).unwrap();
    // Few layers of this small model show no rounding; which of these are faster in whole numbers is the machine's to say.
    let layers = |format: &str| plan.matches(&format!("\"{format}\"")).count();
    assert!(layers("float") > 10 * (layers("w4a8") + layers("w8a8")), "{plan}");
}

/// What layers read, found once; scores by it in shards; and a plan by these, without measuring again.
#[test]
fn scores_of_calibrated_shards_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let run = |command: &str, more: &[&str]| done(&mut with_model(&folder, command, more));
    run("calibrate", &["--moments", "-o", "m.safetensors"]);
    let alone = [&FIVE[..], &["--moments", "m.safetensors", "-o", "alone.mixdq"]].concat();
    run("quantize", &alone);
    for shard in ["1/2", "2/2"] {
        let name = format!("{}.jsonl", &shard[..1]);
        run("sensitivity", &["--moments", "m.safetensors", "--shard", shard, "-o", &name]);
    }
    fs::create_dir(folder.path().join("w")).unwrap();
    let merge = ["-o", "w/sensitivity.jsonl", "--merge", "1.jsonl", "2.jsonl"];
    done(&mut mixdq(&folder, "sensitivity", &merge));
    assert_same(&folder, ["w/sensitivity.jsonl", "alone.work/sensitivity.jsonl"]);
    let taken = [&FIVE[..], &["--moments", "m.safetensors", "--work", "w", "-o", "taken.mixdq"]];
    let said = String::from_utf8(run("quantize", &taken.concat()).stderr).unwrap();
    // What is said before measuring is said for activations alone.
    assert_eq!(said.matches("formats of them").count(), 1, "{said}");
    assert_same(&folder, ["taken.mixdq", "alone.mixdq"]);

    // First tokens are no larger than others here, so they are treated apart where that is said; then all is measured so.
    let has = |work: &str| {
        let plan = String::from_utf8(read(&folder, &format!("{work}/plan.toml"))).unwrap();
        plan.contains("first_token = \"float\"")
    };
    let apart = ["--first-token", "float", "-o", "apart.mixdq"];
    run("quantize", &[&FIVE[..], &["--moments", "m.safetensors"], &apart].concat());
    assert!(!has("alone.work") && has("apart.work"));
    let scores = |work: &str| read(&folder, &format!("{work}/sensitivity.jsonl"));
    assert_ne!(scores("alone.work"), scores("apart.work"));

    let moments = ["--moments", "m.safetensors", "-o", "x"];
    let refused = |more: &[&str]| {
        failed(&mut with_model(&folder, "quantize", &[&moments[..], more].concat()), 2)
    };
    assert!(refused(&["--rounding", "nearest"]).contains("leave one of them out"));
    let absent = ["--moments", "no.safetensors", "-o", "x"];
    let said = failed(&mut with_model(&folder, "sensitivity", &absent), 2);
    assert!(said.contains("it is not there"), "{said}");
    let other = pipeline().with_file_name("tiny-sd-turbo");
    let mut foreign = mixdq(&folder, "sensitivity", &[&SMALL[..], &moments].concat());
    assert!(failed(foreign.arg("-m").arg(other), 2).contains("calibrate --moments"));
    assert!(!folder.path().join("x").exists());
}

#[test]
fn what_layers_read_is_kept_and_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let words = ["--rounding", "calibrated", "--calibration-prompts", "3", "--weights", "4", "-o"];
    let quantize = |name: &str| with_model(&folder, "quantize", &[&words[..], &[name]].concat());
    done(&mut quantize("once.mixdq"));
    done(quantize("again.mixdq").args(["--work", "once.work"]));
    done(&mut quantize("anew.mixdq"));
    assert_same(&folder, ["again.mixdq", "once.mixdq"]);
    assert_same(&folder, ["anew.mixdq", "once.mixdq"]);
    assert_same(&folder, ["anew.work/moments.safetensors", "once.work/moments.safetensors"]);
    done(&mut with_model(&folder, "quantize", &["--weights", "4", "-o", "nearest.mixdq"]));
    let [calibrated, nearest] = ["once.mixdq", "nearest.mixdq"].map(|name| read(&folder, name));
    assert!(calibrated != nearest && calibrated.len().abs_diff(nearest.len()) <= 4096);

    let moments = folder.path().join("anew.work/moments.safetensors");
    fs::write(&moments, &read(&folder, "once.work/moments.safetensors")[..5000]).unwrap();
    let said = failed(&mut quantize("anew.mixdq"), 2);
    assert!(said.contains("moments.safetensors") && said.contains("delete it"), "{said}");
    let said = failed(with_model(&folder, "quantize", &["-o", "x.mixdq"]).args(["--work", "w"]), 2);
    assert!(said.contains("--work keeps what is measured"), "{said}");
    assert!(!folder.path().join("x.mixdq").exists() && !folder.path().join("w").exists());
}
