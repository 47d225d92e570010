//! Whether a picture shows the objects that its prompt names.

use std::collections::BTreeMap;
use std::path::Path;

use models::{Params, scorer};
use tensor::file::Checkpoint;
use tensor::{Control, Device, Graph, Plan, Precision, Session};

use crate::files::Files;
use crate::model::json;
use crate::{Error, Picture};

/// Objects of a prompt by their numbers: the second one where there are two.
type Objects = (usize, Option<usize>);

/// A judge that was trained on renders alone, in memory, in single precision.
pub struct Scorer<'a, D: Device> {
    side: usize,
    prompts: BTreeMap<String, Objects>,
    session: Session<'a, D>,
    weights: D::Weights,
}

impl<'a, D: Device> Scorer<'a, D> {
    /// Open a folder as `tools/train/export` writes it: `config.json`, `model.safetensors` and, in `prompts.json`, the
    /// objects of each prompt that can be judged.
    ///
    /// # Errors
    ///
    /// If a file is missing or unsound, or memory is short.
    pub fn open(device: &'a D, folder: &Path) -> Result<Self, Error> {
        let files = Files::folder(folder);
        let config = scorer::Config::read(&json(&files, "config.json")?)?;
        let prompts = prompts(&files, &config.objects)?;
        let checkpoint = Checkpoint::open(folder)?;
        let model = scorer::Scorer::load(&Params::new(&checkpoint), &config)?;
        let graph = Graph::new();
        let seen = model.forward(model.input(&graph, 1));
        let outputs = [("first", seen.first), ("second", seen.second)];
        let recording = graph.finish(&outputs).map_err(tensor::Error::from)?;
        let session = Session::new(device, &recording, &Plan::uniform(Precision::F32))?;
        let mut weights = D::Weights::default();
        device.prepare(&mut weights, session.program(), &Control::default())?;
        Ok(Self { side: config.image_size, prompts, session, weights })
    }

    /// Whether pictures of this size, `[width, height]`, that are drawn from these prompts can be judged.
    ///
    /// # Errors
    ///
    /// If the size is another than the scorer's, or the objects of a prompt are not known.
    pub fn check(&self, [width, height]: [usize; 2], prompts: &[String]) -> Result<(), Error> {
        let side = self.side;
        if [width, height] != [side, side] {
            let fault = format!(
                "the scorer judges pictures of {side}x{side} pixels, not {width}x{height}; draw that size"
            );
            return Err(Error::Request(fault));
        }
        prompts.iter().try_for_each(|prompt| self.objects(prompt).map(|_| ()))
    }

    /// Whether every object of the prompt is, of all, the one that the picture shows most clearly in its place.
    ///
    /// # Errors
    ///
    /// If [`Scorer::check`] finds fault with the picture's size or the prompt.
    pub fn is_right(&mut self, picture: &Picture, prompt: &str) -> Result<bool, Error> {
        let (first, second) = self.objects(prompt)?;
        let pixels: Vec<f32> =
            picture.rgb.iter().map(|level| f32::from(*level) / 127.5 - 1.0).collect();
        self.session.write("pixels", &pixels)?;
        self.session.run(&self.weights, &Control::default())?;
        let [shown, beside] = [self.session.read("first")?, self.session.read("second")?];
        Ok(best(&shown) == first && second.is_none_or(|second| best(&beside) == second))
    }

    fn objects(&self, prompt: &str) -> Result<Objects, Error> {
        self.prompts.get(prompt).copied().ok_or_else(|| {
            Error::Request(format!(
                "the scorer does not know the objects of {prompt:?}; use prompts of its prompts.json"
            ))
        })
    }
}

/// The place of the greatest number.
fn best(numbers: &[f32]) -> usize {
    let greatest = (0..numbers.len()).max_by(|a, b| numbers[*a].total_cmp(&numbers[*b]));
    greatest.unwrap_or(0)
}

/// `{"prompt": ["object", …]}`
fn prompts(files: &Files, objects: &[String]) -> Result<BTreeMap<String, Objects>, Error> {
    let name = "prompts.json";
    let fault = |prompt: &str| Error::Folder {
        path: files.path(name),
        fault: format!("the objects of {prompt:?} are not one or two that config.json names"),
    };
    let numbers: BTreeMap<&str, usize> =
        objects.iter().enumerate().map(|(number, name)| (name.as_str(), number)).collect();
    let mut found = BTreeMap::new();
    for (prompt, named) in json(files, name)?.as_object().into_iter().flatten() {
        let named = named.as_array().into_iter().flatten();
        let named: Option<Vec<usize>> =
            named.map(|name| numbers.get(name.as_str()?).copied()).collect();
        let objects = match named.as_deref() {
            Some(&[first]) => (first, None),
            Some(&[first, second]) => (first, Some(second)),
            _ => return Err(fault(prompt)),
        };
        found.insert(prompt.clone(), objects);
    }
    Ok(found)
}
