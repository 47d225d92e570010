//! `cargo xtask dist`: a tarball that works wherever it is unpacked.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::command::{build, program, read, root, run};
use crate::console::say;

const TEXTS: &[&str] = &["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"];

/// Builds `dist/mixdq-VERSION-TARGET.tar.gz` and tries the binary in it.
pub(crate) fn write() -> Result<()> {
    let binary = build(&["--release"])?;
    let version = env!("CARGO_PKG_VERSION");
    let name = format!("mixdq-{version}-{}", target()?);
    let dist = root().join("dist");
    let folder = dist.join(&name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fill(&folder, &binary)?;
    let archive = format!("{name}.tar.gz");
    let words = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "-czf"];
    run(program("tar", &words).arg(&archive).arg(&name).current_dir(&dist))?;
    fs::remove_dir_all(&folder)?;
    try_out(&dist, &archive, &name)?;
    let bytes = fs::metadata(dist.join(&archive))?.len();
    say(&format!("dist/{archive}: {:.1} MB", bytes as f64 / 1e6));
    Ok(())
}

fn fill(folder: &Path, binary: &Path) -> Result<()> {
    fs::create_dir_all(folder.join("bin"))?;
    fs::copy(binary, folder.join("bin/mixdq")).context("cannot copy the binary")?;
    for text in TEXTS {
        fs::copy(root().join(text), folder.join(text))
            .with_context(|| format!("cannot copy {text}"))?;
    }
    copy_folder(&root().join("docs"), &folder.join("docs"))?;
    let models = root().join("models");
    if models.is_dir() {
        copy_folder(&models, &folder.join("share/mixdq/models"))?;
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &place)?;
        } else {
            fs::copy(entry.path(), &place)
                .with_context(|| format!("cannot copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// Unpacks the archive elsewhere and starts what comes out.
fn try_out(dist: &Path, archive: &str, name: &str) -> Result<()> {
    let place = std::env::temp_dir().join(format!("mixdq-dist-{}", std::process::id()));
    fs::create_dir_all(&place)?;
    let unpacked = run(program("tar", &["-xzf"]).arg(dist.join(archive)).arg("-C").arg(&place));
    let started = unpacked.and_then(|()| {
        let binary = place.join(name).join("bin/mixdq");
        read(program(binary, &["doctor"]).current_dir(&place))
    });
    fs::remove_dir_all(&place)?;
    started.map(drop).context("the unpacked binary does not start")
}

fn target() -> Result<String> {
    let text = read(&mut program("rustc", &["-vV"]))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not name its host")
}
