//! What the reference implementation computed.

use std::path::Path;

use safetensors::SafeTensors;
use tensor::Shape;
use tensor::file::Checkpoint;

/// A file of golden tensors.
pub(crate) struct Expected {
    checkpoint: Checkpoint,
    bytes: Vec<u8>,
}

/// Numbers with channels last.
pub(crate) struct Numbers {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

impl Numbers {
    pub(crate) fn shape(&self) -> Shape {
        Shape::new(&self.shape)
    }
}

impl Expected {
    pub(crate) fn open(pipeline: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/tensors");
        let path = folder.join(format!("{pipeline}.safetensors"));
        Self { checkpoint: Checkpoint::open(&path).unwrap(), bytes: std::fs::read(&path).unwrap() }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.checkpoint.names()
    }

    /// Real numbers. Images are turned from channels first to channels last.
    pub(crate) fn get(&self, name: &str) -> Numbers {
        let view = self.checkpoint.tensor(name).unwrap();
        let values = view.to_f32();
        let [batch, channels, height, width] = view.shape[..] else {
            return Numbers { shape: view.shape.clone(), values };
        };
        let pixels = height * width;
        let at = |i: usize| {
            let (b, p, c) = (i / (pixels * channels), i / channels % pixels, i % channels);
            values[(b * channels + c) * pixels + p]
        };
        let shape = vec![batch, height, width, channels];
        Numbers { shape, values: (0..values.len()).map(at).collect() }
    }

    /// Token numbers.
    pub(crate) fn ids(&self, name: &str) -> Vec<u32> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let chunks = file.tensor(name).unwrap().data().to_vec();
        chunks.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
    }
}
