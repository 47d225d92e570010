//! The memory promise: what is planned is not exceeded, and pictures do not change.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::Path;
use std::process::{Command, Output};

fn mixdq(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mixdq")).args(words).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asks for the pictures that all tests of a limit draw.
fn ask(model: &str, picture: &Path, limit: Option<&str>) -> Output {
    let picture = picture.to_str().unwrap();
    let mut words = vec!["generate", "-m", model, "-p", "a fox", "-v", "-t", "2"];
    words.extend(["-W", "64", "-H", "64", "--steps", "2", "-b", "3", "-o", picture]);
    words.extend(limit.iter().flat_map(|limit| ["--max-ram", limit]));
    mixdq(&words)
}

/// Draws and returns the planned and the measured peak in MB.
fn draw(model: &str, picture: &Path, limit: Option<&str>) -> (f64, f64) {
    let output = ask(model, picture, limit);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    let last = |name: &str| text.lines().rfind(|line| line.starts_with(name)).unwrap().to_owned();
    let numbers = |line: String| -> Vec<f64> {
        line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    };
    let planned = numbers(last("peak"))[0] * f64::from(1 << 20) / 1e6;
    (planned, *numbers(last("total")).last().unwrap())
}

#[test]
fn every_limit_is_kept_and_draws_the_same() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/pipelines");
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("tiny.mixdq");
    let model = model.to_str().unwrap();
    let original = root.join("tiny-sdxl-turbo");
    let original = original.to_str().unwrap();
    let packed = mixdq(&["quantize", "-m", original, "-o", model, "--weights", "8"]);
    assert!(packed.status.success(), "{}", said(&packed));

    let refused = mixdq(&["generate", "-m", model, "-p", "a fox", "--max-ram", "1M"]);
    let text = said(&refused);
    assert!(!refused.status.success() && text.lines().count() == 1, "{text}");
    // What is the least depends on what is drawn.
    let picture = folder.path().join("refused.png");
    let refused = ask(model, &picture, Some("1M"));
    let text = said(&refused);
    assert!(!refused.status.success() && !picture.exists(), "{text}");
    let text = text.lines().find(|line| line.contains("at least ")).unwrap();
    let least = text.split("at least ").nth(1).unwrap().split(&[' ', ',', '\n']).next().unwrap();

    let free = folder.path().join("free.png");
    let (planned, peak) = draw(model, &free, None);
    assert!(peak <= planned, "{peak} of {planned} MB");
    for limit in [least, "200M"] {
        let picture = folder.path().join(format!("{limit}.png"));
        let (planned, peak) = draw(model, &picture, Some(limit));
        let most: f64 = limit.trim_end_matches('M').parse().unwrap();
        assert!(peak <= planned && planned <= most + 0.1, "{peak} of {planned} of {most} MB");
        assert_eq!(std::fs::read(&picture).unwrap(), std::fs::read(&free).unwrap(), "{limit}");
    }
}

#[test]
fn a_model_that_is_not_packed_fits_or_is_refused() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/pipelines");
    let model = root.join("tiny-sd15");
    let output = mixdq(&["inspect", model.to_str().unwrap(), "--max-ram", "1M"]);
    let text = said(&output);
    assert!(!output.status.success() && text.contains("mixdq quantize"), "{text}");
    let output = mixdq(&["inspect", model.to_str().unwrap(), "--max-ram", "much"]);
    assert!(!output.status.success() && said(&output).contains("much"));
}
