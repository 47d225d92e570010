//! Pictures and texts → files, whole or not at all.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use pipeline::Picture;

/// Where pictures or texts go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Standard output.
    Stdout,
    /// A file; further pictures get a number before the ending.
    File(PathBuf),
}

impl Target {
    /// What was typed: `-` is standard output.
    pub(crate) fn new(typed: &Path) -> Self {
        if typed.as_os_str() == "-" { Self::Stdout } else { Self::File(typed.to_owned()) }
    }

    /// Fail now rather than after minutes of work, if nothing can be written there.
    pub(crate) fn check(&self) -> Result<()> {
        let Self::File(path) = self else { return Ok(()) };
        anyhow::ensure!(!path.is_dir(), "{} is a folder; name a file", path.display());
        temporary(path).map(drop)
    }

    /// Write picture number `index` (from 0) with its description.
    pub(crate) fn write(&self, index: usize, picture: &Picture, parameters: &str) -> Result<()> {
        let png = encode(picture, parameters)?;
        match self {
            Self::Stdout => to_stdout(&png),
            Self::File(path) => save(&numbered(path, index), &png),
        }
    }

    /// Write a text.
    pub(crate) fn write_text(&self, text: &str) -> Result<()> {
        match self {
            Self::Stdout => to_stdout(text.as_bytes()),
            Self::File(path) => save(path, text.as_bytes()),
        }
    }
}

fn to_stdout(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// `out.png`, `out-2.png`, `out-3.png`, ….
fn numbered(path: &Path, index: usize) -> PathBuf {
    if index == 0 {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let ending = path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{}{ending}", index + 1))
}

/// Write beside the target and rename, so that nothing half-written ever has the name.
pub(crate) fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = temporary(path)?;
    file.write_all(bytes).with_context(|| failed(path))?;
    keep(file, path)
}

/// Give a finished temporary file its name.
pub(crate) fn keep(file: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    file.as_file().sync_all().with_context(|| failed(path))?;
    file.persist(path).map_err(|e| e.error).with_context(|| failed(path))?;
    Ok(())
}

pub(crate) fn failed(path: &Path) -> String {
    format!("cannot write {}; free some space or choose another place with -o", path.display())
}

/// A file beside the target, which is gone when it is dropped.
pub(crate) fn temporary(path: &Path) -> Result<tempfile::NamedTempFile> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".mixdq-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o644));
    }
    builder.tempfile_in(folder).with_context(|| {
        format!("cannot write in {}; choose another place with -o", folder.display())
    })
}

/// A PNG with the picture's description under the key `parameters`, as other programs read it.
pub(crate) fn encode(picture: &Picture, parameters: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, picture.width as u32, picture.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let latin = parameters.chars().all(|c| matches!(c, '\n' | ' '..='~' | '\u{a1}'..='\u{ff}'));
    if latin {
        encoder.add_text_chunk("parameters".into(), parameters.into())?;
    } else {
        encoder.add_itxt_chunk("parameters".into(), parameters.into())?;
    }
    encoder.write_header()?.write_image_data(&picture.rgb)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{Target, encode, numbered};
    use pipeline::Picture;

    #[test]
    fn further_pictures_are_numbered_from_two() {
        let names: Vec<PathBuf> = (0..3).map(|i| numbered(Path::new("a/out.png"), i)).collect();
        assert_eq!(names, ["a/out.png", "a/out-2.png", "a/out-3.png"].map(PathBuf::from));
        assert_eq!(numbered(Path::new("plain"), 1), PathBuf::from("plain-2"));
    }

    #[test]
    fn a_dash_is_standard_output() {
        assert_eq!(Target::new(Path::new("-")), Target::Stdout);
    }

    #[test]
    fn the_description_survives_in_any_script() {
        let picture = Picture { width: 2, height: 1, rgb: vec![0, 1, 2, 3, 4, 5] };
        for text in ["a cat\nSteps: 1", "кот на крыше\nSteps: 1"] {
            let bytes = encode(&picture, text).unwrap();
            let reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
            let info = reader.info();
            let plain = info.uncompressed_latin1_text.iter().map(|t| t.text.clone());
            let utf8 = info.utf8_text.iter().map(|t| t.get_text().unwrap());
            assert_eq!(plain.chain(utf8).collect::<Vec<_>>(), [text]);
        }
    }
}
