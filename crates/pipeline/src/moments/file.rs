//! The file of second moments: safetensors, one tensor for each value that layers read, as [`Moments::sums`] has them. Its
//! metadata has the request, and who reads which.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::iter;
use std::path::Path;

use quant::calibration::Header;
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use tensor::file::{Checkpoint, SafeTensors};
use tensor::moments::{Blocks, Moments};

use super::{BLOCKS, Found, Name};
use crate::Error;

/// The key of all metadata: one, since the order of several is left open.
const KEY: &str = "mixdq.moments";

/// What is there beside the numbers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Notes {
    drawn: Header,
    /// Channels that were looked at together, at most.
    block: usize,
    layers: Vec<Layer>,
}

/// A layer of the list.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layer {
    name: Name,
    channels: usize,
    /// That were seen.
    rows: u64,
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
            rows: self.sums[of].rows(),
            same: (of != name).then(|| of.clone()),
        };
        let own = self.sums.keys().map(|name| layer(name, name));
        let shared = self.same.iter().map(|(name, first)| layer(name, first));
        let (drawn, block) = (self.header.clone(), self.block);
        let notes = Notes { drawn, block, layers: own.chain(shared).collect() };
        let metadata = HashMap::from([(KEY.to_owned(), serde_json::to_string(&notes)?)]);
        let tensors = self.sums.iter().flat_map(|(name, of)| {
            let taps = (!of.taps().is_empty()).then(|| (taps(name), of.taps()));
            iter::once((key(name), of.sums())).chain(taps)
        });
        let views = tensors.map(|(key, numbers)| {
            let bytes: &[u8] = bytemuck::cast_slice(numbers);
            Ok((key, TensorView::new(Dtype::F32, vec![numbers.len()], bytes)?))
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
                "it is damaged, of an older version, or no file of what layers read; delete it"
            } else {
                "it is not there; name another file, or make it with `mixdq calibrate --moments`"
            };
            Error::Folder { path: path.to_owned(), fault: fault.into() }
        };
        let file = SafeTensors::open(path).map_err(|_| fault())?;
        let notes = file.metadata().get(KEY).ok_or_else(fault)?;
        let notes: Notes = serde_json::from_str(notes).map_err(|_| fault())?;
        let tensors = Checkpoint::from_file(&file);
        let Notes { drawn, block, layers } = notes;
        if !BLOCKS.contains(&block) {
            return Err(fault());
        }
        let (sums, same) = (BTreeMap::new(), BTreeMap::new());
        let mut found = Self { header: drawn, block, sums, same };
        for Layer { name, channels, rows, same } in layers {
            if let Some(first) = same {
                found.sums.contains_key(&first).then_some(()).ok_or_else(fault)?;
                found.same.insert(name, first);
            } else {
                let sums = tensors.tensor(&key(&name)).map_err(|_| fault())?;
                // Each channel has a sum at least.
                (channels <= sums.count()).then_some(()).ok_or_else(fault)?;
                let blocks = Blocks::new(channels, block);
                let mut sums = Moments::from_sums((rows, blocks), sums).ok_or_else(fault)?;
                if let Ok(of_taps) = tensors.tensor(&taps(&name)) {
                    sums = sums.with_taps(of_taps.to_f32()).ok_or_else(fault)?;
                }
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

/// The key of its taps.
fn taps(name: &Name) -> String {
    format!("{}:taps", key(name))
}
