//! Whatever is wrong with what the user gives: one clear line, a non-zero exit, nothing half-written.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A small model with random weights.
fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/pipelines/tiny-sd-turbo")
}

const UNET: &str = "unet/diffusion_pytorch_model.fp16.safetensors";

/// A copy of the small model that can be damaged.
fn model() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&fixture(), folder.path());
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn mixdq(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mixdq"))
        .args(args)
        .env_remove("MIXDQ_MODELS")
        .output()
        .unwrap()
}

/// Draw with a damaged model and check how that fails.
fn fails(folder: &Path, extra: &[&str], expected: &str) {
    let place = tempfile::tempdir().unwrap();
    let output = place.path().join("out.png");
    let (model, path) = (folder.to_str().unwrap(), output.to_str().unwrap());
    let mut args = vec!["generate", "-m", model, "-p", "a fox", "-o", path, "-t", "1"];
    args.extend(extra);
    refused(&mixdq(&args), expected);
    assert_eq!(
        fs::read_dir(place.path()).unwrap().count(),
        0,
        "{expected}: something was left behind"
    );
}

fn refused(output: &Output, expected: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{expected}: {said}");
    let errors: Vec<&str> = said.lines().filter(|line| !line.starts_with("defaults:")).collect();
    assert_eq!(errors.len(), 1, "{expected}: not one line: {said}");
    assert!(errors[0].starts_with("error: ") && errors[0].contains(expected), "{expected}: {said}");
}

/// Change the bytes of a file.
fn damage(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).unwrap();
    change(&mut bytes);
    fs::write(file, bytes).unwrap();
}

/// Change the text of a file.
fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{} has {from}", file.display());
    fs::write(file, text.replacen(from, to, 1)).unwrap();
}

/// Change the header of a safetensors file; the data begin on a page after it, as in packed models.
fn edit_header(file: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    damage(file, |bytes| {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        change(&mut header);
        let mut header = serde_json::to_vec(&header).unwrap();
        header.resize((8 + header.len()).next_multiple_of(4096) - 8, b' ');
        let mut changed = (header.len() as u64).to_le_bytes().to_vec();
        changed.extend(header);
        changed.extend(&bytes[8 + length..]);
        *bytes = changed;
    });
}

#[test]
fn damaged_weights_are_refused() {
    let folder = model();
    damage(&folder.path().join(UNET), |bytes| bytes.truncate(bytes.len() / 2));
    fails(folder.path(), &[], UNET);

    let folder = model();
    damage(&folder.path().join(UNET), |bytes| bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes()));
    fails(folder.path(), &[], UNET);

    let folder = model();
    edit_header(&folder.path().join(UNET), |header| {
        header["conv_in.bias"]["data_offsets"] = header["conv_out.bias"]["data_offsets"].clone();
    });
    fails(folder.path(), &[], UNET);

    let folder = model();
    edit_header(&folder.path().join(UNET), |header| {
        header["conv_in.bias"]["data_offsets"] = serde_json::json!([0, 1u64 << 60]);
    });
    fails(folder.path(), &[], UNET);
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let folder = model();
    edit_header(&folder.path().join(UNET), |header| {
        let fields = header.as_object_mut().unwrap();
        let tensor = fields.remove("conv_in.weight").unwrap();
        fields.insert("conv_inn.weight".into(), tensor);
    });
    fails(folder.path(), &[], "conv_in.weight");

    let folder = model();
    edit_header(&folder.path().join(UNET), |header| {
        let shape = header["conv_in.weight"]["shape"].as_array_mut().unwrap();
        shape.reverse();
    });
    fails(folder.path(), &[], "conv_in.weight");
}

#[test]
fn weights_that_are_not_numbers_are_named() {
    let folder = model();
    let file = folder.path().join(UNET);
    let mut place = 0;
    edit_header(&file, |header| {
        place = header["conv_in.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
    });
    damage(&file, |bytes| {
        let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize + place;
        bytes[start..start + 2].copy_from_slice(&[0x00, 0x7e]);
    });
    fails(folder.path(), &[], "`conv_in.weight`");
}

#[test]
fn unknown_configurations_are_named() {
    let folder = model();
    edit(
        &folder.path().join("scheduler/scheduler_config.json"),
        "EulerDiscreteScheduler",
        "OtherScheduler",
    );
    fails(folder.path(), &[], "unknown scheduler `OtherScheduler`");

    let folder = model();
    edit(&folder.path().join("unet/config.json"), "\"CrossAttnDownBlock2D\"", "\"OtherBlock2D\"");
    fails(folder.path(), &[], "OtherBlock2D");

    let folder = model();
    edit(&folder.path().join("model_index.json"), "StableDiffusionPipeline", "OtherPipeline");
    fails(folder.path(), &[], "OtherPipeline is not in this version");

    let folder = model();
    fs::write(folder.path().join("unet/config.json"), "{").unwrap();
    fails(folder.path(), &[], "unet/config.json: not JSON");

    let folder = model();
    fs::remove_file(folder.path().join("vae/config.json")).unwrap();
    fails(folder.path(), &[], "vae/config.json");
}

#[test]
fn impossible_requests_are_refused() {
    let folder = fixture();
    fails(&folder, &["-W", "500"], "width 500 is not a multiple of 8; use 496 or 504");
    fails(&folder, &["-H", "0"], "height 0 is not a multiple of 8");
    fails(&folder, &["-s", "-7"], "a seed is -1 or a number");
    fails(&folder, &["--sampling-method", "magic"], "unknown sampling method `magic`");
    fails(&folder, &["--scheduler", "magic"], "unknown noise schedule `magic`");
    fails(&folder, &["--steps", "5000"], "1000");
    fails(&folder, &["--cfg-scale", "nan"], "guidance scale");
    fails(&folder, &["--lora", "nowhere.safetensors"], "nowhere.safetensors");
    fails(&folder, &["--vae", "nowhere"], "nowhere");
    fails(&folder, &["--clip-skip", "99"], "99");
    fails(Path::new("nowhere"), &[], "no model at nowhere");
    for flag in ["--max-vram", "-i", "--control-net=x"] {
        fails(&folder, &[flag], "is not in this version");
    }
}

#[test]
fn pickles_are_refused_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.ckpt");
    fs::write(&file, b"PK\x03\x04 not read").unwrap();
    fails(&file, &[], "convert it to safetensors");
}

#[test]
fn what_cannot_be_written_is_said_before_the_work() {
    let model = fixture();
    let args = |output| {
        ["generate", "-m", model.to_str().unwrap(), "-p", "a fox", "-t", "1", "-o", output]
    };
    refused(&mixdq(&args("/nowhere/out.png")), "cannot write in /nowhere");
    refused(&mixdq(&args("/")), "is a folder");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let model = fixture();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_mixdq"))
        .args(["generate", "-m", model.to_str().unwrap(), "-p", "a fox", "-t", "1", "-o", "-"])
        .stdout(Stdio::from(full))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    refused(&output, "cannot write to standard output");
}

#[test]
fn no_prompt_and_no_model_are_said() {
    let model = fixture();
    refused(&mixdq(&["generate", "-m", model.to_str().unwrap()]), "no prompt");
    let empty = tempfile::NamedTempFile::new().unwrap();
    let list = empty.path().to_str().unwrap();
    refused(
        &mixdq(&["generate", "-m", model.to_str().unwrap(), "--prompts", list]),
        "has no prompts",
    );
}

#[test]
#[cfg(unix)]
fn an_interrupted_run_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_mixdq"))
        .args(["generate", "-p", "a fox", "-t", "1", "--steps", "999", "-v", "-m"])
        .arg(fixture())
        .arg("-o")
        .arg(place.path().join("out.png"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It says its defaults before it starts to draw.
    let mut said = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupt.unwrap().success());
    let status = child.wait().unwrap();
    std::io::Read::read_to_string(&mut said, &mut line).unwrap();
    assert!(!status.success(), "{line}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "{line}");
    assert!(line.lines().last().unwrap().contains("cancelled"), "{line}");
}

#[test]
fn a_scheme_is_checked_and_draws() {
    let place = tempfile::tempdir().unwrap();
    let output = place.path().join("out.png");
    let (model, path) = (fixture(), output.to_str().unwrap().to_owned());
    let draw = |scheme| {
        let model = model.to_str().unwrap();
        mixdq(&["generate", "-m", model, "-p", "a fox", "-o", &path, "--scheme", scheme])
    };
    assert_eq!(draw("w9a9").status.code(), Some(2));
    assert!(String::from_utf8_lossy(&draw("w9a9").stderr).contains("use w8a8"));
    assert!(!output.exists());
    assert!(draw("w4a8").status.success());
    assert!(output.exists());
}

/// The small model, packed in this folder.
fn packed(place: &Path) -> PathBuf {
    let path = place.join("model.mixdq");
    let output = mixdq(&[
        "quantize",
        "-m",
        fixture().to_str().unwrap(),
        "-o",
        path.to_str().unwrap(),
        "--weights",
        "4",
        "-t",
        "1",
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    path
}

#[test]
fn a_packed_model_is_verified_and_draws() {
    let place = tempfile::tempdir().unwrap();
    let model = packed(place.path());
    let output = place.path().join("out.png");
    let (model, path) = (model.to_str().unwrap(), output.to_str().unwrap());
    assert!(mixdq(&["generate", "-m", model, "-p", "a fox", "-o", path]).status.success());
    assert!(output.exists());
    let shown = mixdq(&["inspect", model, "--verify", "-v"]);
    assert!(shown.status.success());
    let (layers, said) = (shown.stdout, String::from_utf8(shown.stderr).unwrap());
    assert!(said.contains("all checksums agree"), "{said}");
    let layers = String::from_utf8(layers).unwrap();
    let rows = || layers.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let of = |scheme: &'static str| rows().filter(move |row| row.get(1) == Some(&scheme));
    // What has whole activations multiplies whole numbers, and none fell back to real ones.
    assert!(of("w4a8").count() > 100, "{layers}");
    assert!(of("w4a8").chain(of("w8a8")).all(|row| row.contains(&"u8")), "{layers}");
    // Only text encoders, the first layer and the last have real ones.
    let is_careful = |name: &str| name.starts_with("text_model") || name.starts_with("conv_");
    assert!(of("w8a16").all(|row| is_careful(row[0])), "{layers}");
    assert!(rows().filter(|row| row.contains(&"x")).all(|row| row[1] != "float"), "{layers}");
}

#[test]
fn damaged_packed_models_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let model = packed(place.path());
    let whole = fs::read(&model).unwrap();

    fs::write(&model, &whole[..whole.len() - 1]).unwrap();
    fails(&model, &[], "its header promises");

    let mut flipped = whole.clone();
    let at = whole.len() * 3 / 4;
    flipped[at] ^= 4;
    fs::write(&model, &flipped).unwrap();
    refused(&mixdq(&["inspect", model.to_str().unwrap(), "--verify"]), "is damaged");

    let changed = |key: &str, value: &str| {
        fs::write(&model, &whole).unwrap();
        edit_header(&model, |header| header["__metadata__"][key] = value.into());
    };
    changed("mixdq.version", "9");
    fails(&model, &[], "has version 9");
    changed("mixdq.plan", "version = 1\n[unet]\ndefault = 'w4a8'\n[unet.layers]\nno = 'w8a8'\n");
    fails(&model, &[], "`unet` has no layer `no`");
    changed("mixdq.weights", "{}");
    fails(&model, &[], "has no layer `conv_in`; pack the model again");

    fs::write(&model, &whole).unwrap();
    fails(&model, &["--scheme", "w8a8"], "is packed already");
    let again = place.path().join("again.mixdq");
    let again = ["quantize", "-m", model.to_str().unwrap(), "-o", again.to_str().unwrap()];
    refused(&mixdq(&again), "is packed already");
}

#[test]
fn plans_are_checked_before_anything_is_packed() {
    let place = tempfile::tempdir().unwrap();
    let plan = place.path().join("plan.toml");
    let quantize = |text: &str| {
        fs::write(&plan, text).unwrap();
        let output = place.path().join("model.mixdq");
        let (model, output) = (fixture(), output.to_str().unwrap().to_owned());
        mixdq(&[
            "quantize",
            "-m",
            model.to_str().unwrap(),
            "-o",
            &output,
            "--plan",
            plan.to_str().unwrap(),
        ])
    };
    refused(&quantize("[unet]\ndefault = 'w8a8'\n"), "version");
    refused(&quantize("version = 1\n[unet]\ndefault = 'w9a9'\n"), "w9a9");
    let unknown = "version = 1\n[unet]\ndefault = 'w8a8'\n[unet.layers]\nno = 'w8a8'\n";
    refused(&quantize(unknown), "`unet` has no layer `no`");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "something was left behind");
}

#[test]
#[cfg(unix)]
fn interrupted_packing_leaves_nothing_half_written() {
    let place = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_mixdq"))
        .args(["quantize", "-t", "1", "--weights", "4", "-m"])
        .arg(fixture())
        .arg("-o")
        .arg(place.path().join("model.mixdq"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while fs::read_dir(place.path()).unwrap().count() == 0 && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    let status = child.wait().unwrap();
    let left: Vec<_> =
        fs::read_dir(place.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    let expected: &[&str] = if status.success() { &["model.mixdq"] } else { &[] };
    assert_eq!(left, expected);
}
