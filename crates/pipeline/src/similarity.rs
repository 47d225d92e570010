//! How well a picture shows what a text says, by any `CLIPModel`.

mod fit;
mod preprocess;

use std::path::Path;

use models::Params;
use models::clip::{ClipConfig, ClipModel, normalized};
use tensor::file::Checkpoint;
use tensor::{Control, Device, Graph, Plan, Precision, Session};

use crate::files::Files;
use crate::model::json;
use crate::prompt::{Prompt, Tokenizer};
use crate::{Error, Picture};
use preprocess::Preprocess;

pub use fit::Fit;

/// Two towers in memory, in single precision.
pub struct Judge<'a, D: Device> {
    preprocess: Preprocess,
    tokenizer: Tokenizer,
    config: ClipConfig,
    text: Session<'a, D>,
    vision: Session<'a, D>,
    weights: D::Weights,
}

impl<'a, D: Device> Judge<'a, D> {
    /// Open a folder as transformers writes it: `config.json`, weights, the tokenizer's files and, where it is not the
    /// usual one, `preprocessor_config.json`.
    ///
    /// # Errors
    ///
    /// If a file is missing or unsound, or memory is short.
    pub fn open(device: &'a D, folder: &Path) -> Result<Self, Error> {
        let files = Files::folder(folder);
        let config = ClipConfig::read(&json(&files, "config.json")?)?;
        let preprocess = Preprocess::read(&files, config.vision.image_size)?;
        let tokenizer = Tokenizer::read(&files)?;
        let checkpoint = Checkpoint::open(folder)?;
        let model = ClipModel::load(&Params::new(&checkpoint), &config)?;
        let plan = Plan::uniform(Precision::F32);
        let graph = Graph::new();
        let ids = graph.index("ids", [1, tokenizer.limit()]);
        let output = model.text_model.forward(ids, graph.index("eos", [1]));
        let embedding = output.projected().unwrap_or_else(|| output.pooled());
        let recording = graph.finish(&[("embedding", embedding)]).map_err(tensor::Error::from)?;
        let text = Session::new(device, &recording, &plan)?;
        let graph = Graph::new();
        let output = model.vision_model.forward(model.vision_model.input(&graph, 1));
        let embedding = output.image_embeds.unwrap_or(output.pooled);
        let recording = graph.finish(&[("embedding", embedding)]).map_err(tensor::Error::from)?;
        let vision = Session::new(device, &recording, &plan)?;
        let mut weights = D::Weights::default();
        for session in [&text, &vision] {
            device.prepare(&mut weights, session.program(), &Control::default())?;
        }
        Ok(Self { preprocess, tokenizer, config, text, vision, weights })
    }

    /// The embedding of a text, of length 1: its dot product with that of a picture is their similarity, from −1 to 1.
    ///
    /// # Errors
    ///
    /// If the text cannot be tokenized.
    pub fn text(&mut self, text: &str) -> Result<Vec<f32>, Error> {
        let ids = self.tokenizer.encode(&Prompt::plain(text))?.ids;
        self.text.write_index("ids", &ids)?;
        self.text.write_index("eos", &[self.config.text.eos_position(&ids)])?;
        self.text.run(&self.weights, &Control::default())?;
        Ok(normalized(&self.text.read("embedding")?))
    }

    /// The embedding of a picture, of length 1.
    ///
    /// # Errors
    ///
    /// If the picture is empty.
    pub fn picture(&mut self, picture: &Picture) -> Result<Vec<f32>, Error> {
        self.vision.write("pixels", &self.preprocess.pixels(picture)?)?;
        self.vision.run(&self.weights, &Control::default())?;
        Ok(normalized(&self.vision.read("embedding")?))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tensor::Cpu;
    use tensor::file::Checkpoint;

    use super::Judge;
    use crate::Picture;

    #[test]
    fn pictures_are_judged_as_transformers_does() {
        let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata");
        let golden = Checkpoint::open(testdata.join("golden/tensors/clip.safetensors")).unwrap();
        let read = |name: &str| golden.tensor(name).unwrap();
        let cpu = Cpu::detect(2);
        let mut judge = Judge::open(&cpu, &testdata.join("clip")).unwrap();
        let pixels = read("judge.picture");
        let rgb = pixels.to_f32().iter().map(|x| *x as u8).collect();
        let picture = Picture { width: pixels.shape[1], height: pixels.shape[0], rgb };
        let wanted = read("judge.similarity").to_f32();
        let texts = ["a photo of a cat", "a castle floating in the clouds"];
        assert_eq!(wanted.len(), texts.len());
        let seen = judge.picture(&picture).unwrap();
        for (text, wanted) in texts.into_iter().zip(wanted) {
            let told = judge.text(text).unwrap();
            let found: f32 = seen.iter().zip(&told).map(|(a, b)| a * b).sum();
            assert!((found - wanted).abs() < 2e-3, "{text}: {found}, not {wanted}");
        }
    }
}
