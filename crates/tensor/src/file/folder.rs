//! Which file a model component's folder means: one file, or shards listed by an index, in full
//! precision if both are there, else the `fp16` variant.

use super::safetensors::named_as_pickle;
use super::{Checkpoint, Error, SafeTensors};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Names of weights in diffusers and in transformers folders, in order of preference.
const FILES: [&str; 10] = [
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.safetensors.index.fp16.json",
    "diffusion_pytorch_model.fp16.safetensors.index.json",
    "model.fp16.safetensors",
    "model.safetensors.index.fp16.json",
    "model.fp16.safetensors.index.json",
];

/// The longest index that is read, bytes.
const MAX_INDEX: u64 = 64 << 20;

/// Opens a file of weights, an index of shards, or a folder that holds either.
///
/// # Errors
///
/// Whatever keeps any of the files from being used.
pub fn open(path: &Path) -> Result<Checkpoint, Error> {
    if path.is_dir() {
        return open(&weights_of(path)?);
    }
    if path.extension().is_some_and(|ending| ending == "json") {
        return open_index(path);
    }
    Ok(Checkpoint::from_file(&SafeTensors::open(path)?))
}

/// The file of weights that a component's folder means.
///
/// # Errors
///
/// [`Error::NoWeights`], [`Error::Pickle`] or [`Error::Ambiguous`].
pub fn weights_of(folder: &Path) -> Result<PathBuf, Error> {
    if let Some(found) = FILES.iter().map(|name| folder.join(name)).find(|path| path.is_file()) {
        return Ok(found);
    }
    let files = listing(folder)?;
    let safe: Vec<&PathBuf> =
        files.iter().filter(|path| path.extension() == Some(OsStr::new("safetensors"))).collect();
    match safe.as_slice() {
        [only] => Ok((*only).clone()),
        [] => Err(files.iter().find(|path| named_as_pickle(path)).map_or_else(
            || Error::NoWeights { folder: folder.to_owned() },
            |pickle| Error::Pickle { path: pickle.clone() },
        )),
        several => Err(Error::Ambiguous {
            folder: folder.to_owned(),
            files: several.iter().map(|path| file_name(path)).collect(),
        }),
    }
}

/// The shards that an index names: tensor → file.
///
/// # Errors
///
/// A clause that says what is wrong with it.
pub fn parse_index(json: &[u8]) -> Result<BTreeMap<String, String>, String> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index: Index = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    if index.weight_map.is_empty() {
        return Err("it lists no tensors".to_owned());
    }
    // A shard lies beside its index; a path that leads elsewhere is not followed.
    let outside = |file: &&String| Path::new(file).file_name() != Some(OsStr::new(file.as_str()));
    match index.weight_map.values().find(outside) {
        Some(file) => Err(format!("`{file}` is not the name of a file beside it")),
        None => Ok(index.weight_map),
    }
}

fn open_index(path: &Path) -> Result<Checkpoint, Error> {
    let fault = |fault: String| Error::Index { path: path.to_owned(), fault };
    let read = |error| Error::Read { path: path.to_owned(), error };
    if std::fs::metadata(path).map_err(read)?.len() > MAX_INDEX {
        return Err(fault("it is too long to be one".to_owned()));
    }
    let index = parse_index(&std::fs::read(path).map_err(read)?).map_err(fault)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut shards: BTreeMap<&str, Arc<SafeTensors>> = BTreeMap::new();
    for file in index.values() {
        if !shards.contains_key(file.as_str()) {
            let shard = folder.join(file);
            if !shard.exists() {
                return Err(fault(format!("its shard `{file}` is not there")));
            }
            shards.insert(file, Arc::new(SafeTensors::open(&shard)?));
        }
    }
    let named = |(name, file): (&String, &String)| (name.clone(), Arc::clone(&shards[&**file]));
    Checkpoint::from_shards(path, index.iter().map(named))
}

/// The files of a folder, sorted.
fn listing(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let read = |error| Error::Read { path: folder.to_owned(), error };
    let entries = std::fs::read_dir(folder).map_err(read)?;
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(read)?;
    files.sort();
    Ok(files)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
