//! A walk over stored names that notes how each becomes a diffusers name.

use super::Error;
use tensor::file::{Checkpoint, Recipe};

/// The names under one prefix of a checkpoint, and the recipes made from them so far.
pub(super) struct Walk<'a> {
    stored: &'a Checkpoint,
    prefix: String,
    names: Vec<&'a str>,
    recipes: Vec<(String, Recipe)>,
}

impl<'a> Walk<'a> {
    /// A walk over the names that begin with `prefix`, which is left out of them below.
    pub(super) fn new(stored: &'a Checkpoint, prefix: &str) -> Self {
        let names = stored.names().filter_map(|name| name.strip_prefix(prefix)).collect();
        Self { stored, prefix: prefix.to_owned(), names, recipes: Vec::new() }
    }

    /// The shape of a stored tensor, if there is one.
    pub(super) fn shape(&self, name: &str) -> Option<&'a [usize]> {
        self.stored.shape(&format!("{}{name}", self.prefix))
    }

    /// The size of one dimension of a stored tensor that the layout cannot do without.
    pub(super) fn size(&self, name: &str, dimension: usize) -> Result<usize, Error> {
        let full = format!("{}{name}", self.prefix);
        let missing =
            |name| tensor::file::Error::Missing { place: self.stored.place().to_owned(), name };
        let shape = self.stored.shape(&full).ok_or_else(|| missing(full.clone()))?;
        shape.get(dimension).copied().ok_or_else(|| {
            Error::File(tensor::file::Error::Shape {
                place: self.stored.place().to_owned(),
                name: full.clone(),
                shape: shape.to_vec(),
                obstacle: format!("has no dimension {dimension}"),
            })
        })
    }

    /// Whether any stored name begins with `prefix`.
    pub(super) fn has(&self, prefix: &str) -> bool {
        self.names.iter().any(|name| name.starts_with(prefix))
    }

    /// How many of `prefix.0`, `prefix.1`, … there are without a gap.
    pub(super) fn count(&self, prefix: &str) -> usize {
        (0..self.names.len()).take_while(|i| self.has(&format!("{prefix}.{i}."))).count()
    }

    /// Carries everything under `from.` over to `to.`.
    pub(super) fn carry(&mut self, from: &str, to: &str) {
        for name in &self.names {
            if let Some(rest) = name.strip_prefix(from).and_then(|rest| rest.strip_prefix('.')) {
                let recipe = Recipe::from(format!("{}{name}", self.prefix));
                self.recipes.push((format!("{to}.{rest}"), recipe));
            }
        }
    }

    /// Carries the parts of `from` over to `to` under new names.
    pub(super) fn carry_parts(&mut self, from: &str, to: &str, parts: &[(&str, &str)]) {
        for (old, new) in parts {
            self.carry(&format!("{from}.{old}"), &format!("{to}.{new}"));
        }
    }

    /// Makes `to` from the one stored tensor `from`, changed as told.
    pub(super) fn make(&mut self, from: &str, to: &str, change: impl FnOnce(Recipe) -> Recipe) {
        let recipe = Recipe::from(format!("{}{from}", self.prefix));
        self.recipes.push((to.to_owned(), change(recipe)));
    }

    /// The tensors under their new names, and the stored names that went into them.
    pub(super) fn finish(self) -> Result<(Checkpoint, Vec<String>), Error> {
        let used = self.recipes.iter().map(|(_, recipe)| recipe.source().to_owned()).collect();
        Ok((self.stored.renamed(self.recipes)?, used))
    }
}
