//! The README's first command: a picture of what was asked for, with the model that comes along.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Width and pixels of a picture.
fn read(path: &Path) -> (usize, Vec<[u8; 3]>) {
    let mut reader =
        png::Decoder::new(BufReader::new(File::open(path).unwrap())).read_info().unwrap();
    let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
    let width = reader.next_frame(&mut rgb).unwrap().width as usize;
    (width, rgb.as_chunks().0.to_vec())
}

#[test]
fn a_red_apple_on_a_blue_background_is_just_that() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |name: &str, more: &[&str]| {
        let path = folder.path().join(name);
        let prompt = ["generate", "-p", "a red apple on a blue background", "-o"];
        let mut mixdq = Command::new(env!("CARGO_BIN_EXE_mixdq"));
        let output = mixdq.args(prompt).arg(&path).args(more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        read(&path)
    };
    for (name, more) in [
        ("bf16.png", &[][..]),
        ("f32.png", &["--precision", "f32", "-s", "5"]),
        ("four.png", &["--steps", "4"]),
        ("w8a8.png", &["--scheme", "w8a8"]),
    ] {
        let (width, pixels) = draw(name, more);
        assert_eq!((width, pixels.len()), (64, 64 * 64));
        let at = |x: usize, y: usize| pixels[y * width + x].map(i32::from);
        for [red, green, blue] in [at(2, 2), at(61, 2), at(2, 61), at(61, 61)] {
            assert!(blue > green + 60 && green > red, "{name}: a corner is {red} {green} {blue}");
        }
        let [red, green, blue] = at(32, 34);
        assert!(red > 150 && red > green + 60 && red > blue + 60, "{name}: {red} {green} {blue}");
    }
}

#[test]
fn a_judge_finds_what_prompts_name() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    let run = |words: &[&str]| {
        let mut mixdq = Command::new(env!("CARGO_BIN_EXE_mixdq"));
        mixdq.args(["evaluate", "--json", "-", "-b", "1"]).args(words);
        for (flag, name) in [
            ("-m", "pocket-turbo"),
            ("-r", "pocket-turbo"),
            ("--scorer", "pocket-scorer"),
            ("--prompts", "pocket-turbo/prompts.txt"),
        ] {
            mixdq.arg(flag).arg(models.join(name));
        }
        mixdq.output().unwrap()
    };
    let done = run(&["--count", "16"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let found: Value = serde_json::from_slice(&done.stdout).unwrap();
    for contender in found["contenders"].as_array().unwrap() {
        let right = 16.0 * contender["concepts"].as_f64().unwrap();
        assert!(right.fract() == 0.0 && right > 8.0, "{right} of 16");
    }
    let done = run(&["--count", "1", "-W", "32"]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(!done.status.success() && said.contains("64x64 pixels, not 32x64"), "{said}");
}
