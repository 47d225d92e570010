//! The file of second moments: safetensors, one tensor for each value that layers read, as [`Moments::sums`] has them. Its
//! metadata has the request, and who reads which.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::path::Path;

use quant::calibration::Header;
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use tensor::file::{Checkpoint, SafeTensors};
use tensor::moments::Moments;

use super::{Found, Name};
use crate::Error;

/// The key of all metadata: one, since the order of several is left open.
const KEY: &str = "mixdq.moments";

/// What is there beside the numbers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Notes {
    drawn: Header,
    layers: Vec<Layer>,
}

/// A layer of the list.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layer {
    name: Name,
    channels: usize,
    /// The layer whose tensor it shares.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    same: Option<Name>,
}

impl Found {
    /// Write a file. Its bytes depend on what was found alone.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let layer = |name: &Name, of: &Name| Layer {
            name: name.clone(),
            channels: self.sums[of].channels(),
            same: (of != name).then(|| of.clone()),
        };
        let own = self.sums.keys().map(|name| layer(name, name));
        let shared = self.same.iter().map(|(name, first)| layer(name, first));
        let notes = Notes { drawn: self.header.clone(), layers: own.chain(shared).collect() };
        let metadata = HashMap::from([(KEY.to_owned(), serde_json::to_string(&notes)?)]);
        let views = self.sums.iter().map(|(name, sums)| {
            let bytes: &[u8] = bytemuck::cast_slice(sums.sums());
            Ok((key(name), TensorView::new(Dtype::F32, vec![sums.sums().len()], bytes)?))
        });
        let views: Result<Vec<_>, SafeTensorError> = views.collect();
        let written =
            views.and_then(|views| safetensors::serialize_to_file(views, Some(metadata), path));
        written.map_err(io::Error::other)?;
        File::open(path)?.sync_all()
    }

    /// Read a file. Sums of finished work stay in it until they are used.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is none of second moments.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let fault = || {
            let fault = if path.exists() {
                "it is damaged, or no file of what layers read; delete it"
            } else {
                "it is not there; name another file, or make it with `mixdq calibrate --moments`"
            };
            Error::Folder { path: path.to_owned(), fault: fault.into() }
        };
        let file = SafeTensors::open(path).map_err(|_| fault())?;
        let notes = file.metadata().get(KEY).ok_or_else(fault)?;
        let notes: Notes = serde_json::from_str(notes).map_err(|_| fault())?;
        let tensors = Checkpoint::from_file(&file);
        let mut found = Self { header: notes.drawn, sums: BTreeMap::new(), same: BTreeMap::new() };
        for Layer { name, channels, same } in notes.layers {
            if let Some(first) = same {
                found.sums.contains_key(&first).then_some(()).ok_or_else(fault)?;
                found.same.insert(name, first);
            } else {
                let sums = tensors.tensor(&key(&name)).map_err(|_| fault())?;
                let mut sums = Moments::from_sums(channels, sums).ok_or_else(fault)?;
                if !found.is_whole() {
                    // The file will be replaced.
                    sums.grow();
                }
                found.sums.insert(name, sums);
            }
        }
        Ok(found)
    }
}

fn key((component, layer): &Name) -> String {
    format!("{component}/{layer}")
}
