//! The rules of the house that no lint can express.
//!
//! Each rule collects every fault before it fails, so that one run shows them all.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};

/// Crates from the ground up. A crate may depend only on those before it.
const LAYERS: &[&str] = &["os", "kernels", "tensor", "models", "quant", "pipeline", "cli"];

/// The only modules that may hold unsafe code. A module without `.rs` stands for its children too.
const UNSAFE: &[&str] = &[
    "kernels/src/isa",
    "kernels/src/matmul/tile.rs",
    "kernels/src/matmul/winograd/spaced.rs",
    "kernels/src/threads",
    "os/src/mapping.rs",
    "os/src/memory.rs",
    "os/src/thread.rs",
    "os/src/tiles.rs",
    "tensor/src/arena.rs",
];

/// File names that say nothing about what is inside.
const FORBIDDEN: &[&str] =
    &["utils", "util", "helpers", "common", "misc", "base", "types", "manager", "ext"];

/// Number formats and devices, of which model code has never heard.
const UNKNOWN_TO_MODELS: &[&str] = &["i8", "u8", "f16", "bf16", "int8", "cuda", "Bf16", "F16"];

/// The one file that reads the environment.
const KNOBS: &str = "cli/src/knobs.rs";

/// Length of a source file before its tests beyond which it is worth a second look.
const MAX_LINES: usize = 500;

/// Largest file in bytes, except in `models/`.
const MAX_BYTES: u64 = 16 << 20;

/// Words that announce work instead of doing it; words that only make sense where this was written.
const NOT_FOR_READERS: &[&str] =
    &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("/wo", "rk/")];

#[test]
fn dependencies_point_down() {
    let mut faults = Vec::new();
    for (height, name) in LAYERS.iter().enumerate() {
        let manifest = read(&crates().join(name).join("Cargo.toml"));
        // Tests may look up: only what is built for users counts.
        let built = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        for other in &LAYERS[height..] {
            let depends = |line: &str| line.split(['.', ' ', '=']).next() == Some(*other);
            if built.lines().any(depends) {
                faults.push(format!("{name} must not depend on {other}"));
            }
        }
    }
    for entry in fs::read_dir(crates()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !LAYERS.contains(&name.as_str()) {
            faults.push(format!("crates/{name} has no place in LAYERS"));
        }
    }
    report(&faults);
}

#[test]
fn files_open_with_their_docs() {
    let faults = rust_files()
        .filter(|path| !read(path).starts_with("//!"))
        .map(|path| format!("{} does not open with `//!`", path.display()));
    report(&faults.collect::<Vec<_>>());
}

#[test]
fn unsafe_code_stays_where_it_is_allowed() {
    let mut faults = Vec::new();
    let mut used = vec![false; UNSAFE.len()];
    for path in rust_files() {
        let Ok(inside) = path.strip_prefix(crates()) else { continue };
        let code = code(&read(&path));
        let holds = code.lines().any(|line| has_word(line, "unsafe"));
        let place = UNSAFE.iter().position(|module| belongs(inside, module));
        match place {
            Some(place) => used[place] |= holds,
            None if holds => faults.push(format!("{} holds unsafe code", path.display())),
            None => {}
        }
    }
    let idle = UNSAFE.iter().zip(used).filter(|(_, used)| !used);
    faults.extend(idle.map(|(module, _)| format!("{module} needs no place in UNSAFE")));
    report(&faults);
}

#[test]
fn names_of_files_say_what_is_inside() {
    let forbidden = |path: &PathBuf| {
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        stem.is_some_and(|stem| FORBIDDEN.contains(&stem))
    };
    let faults = rust_files().filter(forbidden).map(|path| path.display().to_string());
    report(&faults.collect::<Vec<_>>());
}

#[test]
fn models_have_never_heard_of_number_formats() {
    let mut faults = Vec::new();
    for path in rust_files() {
        let Ok(inside) = path.strip_prefix(crates().join("models/src")) else { continue };
        if inside.ends_with("tests.rs") {
            continue;
        }
        for (number, line) in code(&read(&path)).lines().enumerate() {
            let heard = UNKNOWN_TO_MODELS.iter().filter(|word| has_word(line, word));
            faults.extend(heard.map(|word| format!("{}:{}: {word}", path.display(), number + 1)));
        }
    }
    report(&faults);
}

#[test]
fn the_environment_is_read_in_one_place() {
    let mut faults = Vec::new();
    for path in rust_files() {
        let Ok(inside) = path.strip_prefix(crates()) else { continue };
        let tests = inside.components().any(|part| part.as_os_str() == "tests");
        if inside == Path::new(KNOBS) || tests {
            continue;
        }
        let code = code(&read(&path));
        if ["env::var", "env::vars"].iter().any(|call| code.contains(call)) {
            faults.push(format!("{} reads the environment; declare a knob", path.display()));
        }
    }
    report(&faults);
}

#[test]
fn files_are_small() {
    let faults = files(&root())
        .into_iter()
        .filter(|path| !path.starts_with(root().join("models")))
        .filter(|path| fs::metadata(path).unwrap().len() > MAX_BYTES)
        .map(|path| format!("{} is over 16 MiB", path.display()));
    report(&faults.collect::<Vec<_>>());
}

#[test]
fn text_is_written_for_readers() {
    let mut faults = Vec::new();
    for path in files(&root()) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if path.starts_with(root().join("testdata")) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let found = NOT_FOR_READERS.iter().filter(|word| line.contains(*word));
            faults.extend(found.map(|word| format!("{}:{}: {word}", path.display(), number + 1)));
        }
    }
    report(&faults);
}

#[test]
fn long_files_are_worth_a_second_look() {
    for path in rust_files() {
        let text = read(&path);
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        if lines > MAX_LINES {
            eprintln!("worth a second look: {} has {lines} lines", path.display());
        }
    }
}

fn report(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// A source file without its unit tests and without comments.
fn code(text: &str) -> String {
    let before_tests = text.lines().take_while(|line| *line != "#[cfg(test)]");
    before_tests.map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect()
}

/// Whether `word` stands in `line` on its own.
fn has_word(line: &str, word: &str) -> bool {
    line.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|part| part == word)
}

/// Whether a file is a listed module or lies inside one.
fn belongs(file: &Path, module: &str) -> bool {
    file == Path::new(module)
        || file == Path::new(&format!("{module}.rs"))
        || file.starts_with(module)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn crates() -> PathBuf {
    root().join("crates")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rust_files() -> impl Iterator<Item = PathBuf> {
    let all = files(&root()).into_iter();
    all.filter(|path| path.extension().is_some_and(|end| end == "rs"))
}

/// All files of the repository below `folder`, without what is built or downloaded.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let built = name.starts_with("target") || name == "dist";
        let foreign = built || name.starts_with(".venv");
        let cache = name == "__pycache__" || path.extension().is_some_and(|ending| ending == "tmp");
        // In a worktree `.git` is a file, which names a place outside.
        if path.is_symlink() || name == ".git" || ((foreign || cache) && path.is_dir()) {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}
