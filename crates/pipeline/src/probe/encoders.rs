//! Text encoders that can be changed in one layer, and what they make of the texts of a request.

use models::Params;
use models::clip::{TextConfig, TextModel};
use tensor::{Device, LayerFormat, Plan, Session};

use super::Layer;
use super::network::{Inputs, Network, changed, real};
use crate::denoise::Texts;
use crate::prompt::Encoding;
use crate::request::{Phase, Watch};
use crate::text::{self, Conditioning, Encode, weighted};
use crate::text_to_image::Settings;
use crate::{Error, Model, Request, TextToImage};

/// All text encoders of a model.
pub(super) struct Encoders<'a, 'w, D: Device> {
    model: &'a Model,
    request: Request,
    guided: bool,
    all: Vec<Encoder<'a, 'w, D>>,
}

/// One text encoder, and what it makes of all texts with real numbers.
struct Encoder<'a, 'w, D: Device> {
    network: Network<'a, 'w, D>,
    /// For each call, the number of its text.
    chunks: Vec<(usize, Encoding)>,
    texts: usize,
    /// For each call.
    results: Vec<Read>,
}

/// What an encoder makes of one chunk of a text.
#[derive(Clone, Debug, Default)]
struct Read {
    context: Vec<f32>,
    pooled: Vec<f32>,
}

impl<'a, 'w, D: Device> Encoders<'a, 'w, D> {
    /// Read all texts of a request with real numbers.
    pub(super) fn new(
        pipeline: &'a TextToImage<'a, D>,
        request: &Request,
        (settings, watch): (&Settings, &'w Watch<'w>),
    ) -> Result<Self, Error> {
        let model = pipeline.model;
        let guided = settings.is_guided(model);
        if guided && request.clip_skip > 0 {
            let fault = "negative prompts do not leave out layers, and formats are measured with the same layers for all; leave --clip-skip out";
            return Err(Error::Request(fault.into()));
        }
        let texts = text::texts(request, guided);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let encoders = model.encoders.iter().map(|encoder| {
            let encode = Encode { pipeline, request, encoder, watch };
            Encoder::new(pipeline.device, &encode, (&texts, watch))
        });
        let all = encoders.collect::<Result<_, _>>()?;
        Ok(Self { model, request: request.clone(), guided, all })
    }

    /// Their networks, in order.
    pub(super) fn networks(&self) -> impl Iterator<Item = &Network<'a, 'w, D>> {
        self.all.iter().map(|encoder| &encoder.network)
    }

    /// Their networks, in order.
    pub(super) fn networks_mut(&mut self) -> impl Iterator<Item = &mut Network<'a, 'w, D>> {
        self.all.iter_mut().map(|encoder| &mut encoder.network)
    }

    /// The network of a component.
    pub(super) fn network(&self, component: &str) -> &Network<'a, 'w, D> {
        let found = self.networks().find(|network| network.component() == component);
        found.expect("layers belong to components of the model")
    }

    /// The network of a component.
    pub(super) fn network_mut(&mut self, component: &str) -> &mut Network<'a, 'w, D> {
        let found = self.networks_mut().find(|network| network.component() == component);
        found.expect("layers belong to components of the model")
    }

    /// Let go of the weights of all but one of them.
    pub(super) fn release_others(&mut self, component: &str) {
        let networks = self.networks_mut();
        networks.filter(|network| network.component() != component).for_each(Network::release);
    }

    /// The embeddings of all texts with real numbers.
    pub(super) fn texts(&self) -> Texts {
        let views = self.all.iter().map(|encoder| encoder.encoded(&encoder.results));
        self.joined(&views.collect::<Vec<_>>())
    }

    /// The embeddings of all texts where a layer of one encoder has another format.
    pub(super) fn with(&mut self, layer: &Layer, format: LayerFormat) -> Result<Texts, Error> {
        let views = self.all.iter_mut().map(|encoder| {
            if encoder.network.component() == layer.component {
                let mut session = encoder.network.from(layer, &changed(layer, format))?;
                encoder.read(&mut session, true)
            } else {
                Ok(encoder.encoded(&encoder.results))
            }
        });
        let views: Vec<_> = views.collect::<Result<_, Error>>()?;
        Ok(self.joined(&views))
    }

    /// The embeddings of all texts where each encoder has a plan of its own, whose weights may stay. Where not, one of them is in
    /// memory at a time.
    pub(super) fn by(
        &mut self,
        plan: &dyn Fn(&str) -> Plan,
        may_stay: bool,
    ) -> Result<Texts, Error> {
        let views = self.all.iter_mut().map(|encoder| {
            let mut session = encoder.network.whole(&plan(encoder.network.component()))?;
            let view = encoder.read(&mut session, false);
            if !may_stay {
                encoder.network.release();
            }
            view
        });
        let views: Vec<_> = views.collect::<Result<_, Error>>()?;
        Ok(self.joined(&views))
    }

    fn joined(&self, views: &[Vec<Conditioning>]) -> Texts {
        text::joined((self.model, &self.request), views, self.guided)
    }
}

impl<'a, 'w, D: Device> Encoder<'a, 'w, D> {
    fn new(
        device: &'a D,
        encode: &Encode<'_, D>,
        (texts, watch): (&[&str], &'w Watch<'w>),
    ) -> Result<Self, Error> {
        let component = &encode.encoder.component;
        let config = TextConfig::read(&component.config)?;
        let model = TextModel::load(&Params::new(&component.weights), &config)?;
        let recording = encode.record(&model, encode.skipped(false))?;
        let mut network = Network::new(device, component, recording, (Phase::Text, watch));
        let chunks = encode.chunks(texts)?.into_iter().enumerate();
        let chunks = chunks.flat_map(|(text, chunks)| chunks.into_iter().map(move |c| (text, c)));
        let chunks: Vec<(usize, Encoding)> = chunks.collect();
        let inputs = chunks.iter().map(|(_, chunk)| Inputs {
            indices: vec![
                ("ids", chunk.ids.clone()),
                ("eos", vec![config.eos_position(&chunk.ids)]),
            ],
            ..Inputs::default()
        });
        network.judge_by(inputs.collect());
        let results = vec![Read::default(); chunks.len()];
        let mut encoder = Self { network, chunks, texts: texts.len(), results };
        let mut session = encoder.network.whole(&real())?;
        encoder.results = encoder.each(&mut session, false)?;
        encoder.network.release();
        Ok(encoder)
    }

    /// Run all calls by a session, from the front on or from the start.
    fn read(
        &mut self,
        session: &mut Session<'a, D>,
        resumed: bool,
    ) -> Result<Vec<Conditioning>, Error> {
        let results = self.each(session, resumed)?;
        self.network.forget(session);
        Ok(self.encoded(&results))
    }

    fn each(&self, session: &mut Session<'a, D>, resumed: bool) -> Result<Vec<Read>, Error> {
        let network = &self.network;
        let results = network.calls().iter().enumerate().map(|(call, inputs)| {
            if resumed {
                network.resume(session, call)?;
            } else {
                network.run(session, inputs)?;
            }
            // What comes before the changed layer is as it was.
            let known = self.results[call].clone();
            Ok(Read {
                context: network.read(session, "context")?.unwrap_or(known.context),
                pooled: network.read(session, "pooled")?.unwrap_or(known.pooled),
            })
        });
        results.collect()
    }

    /// The embeddings of all texts from what was made of their chunks.
    fn encoded(&self, results: &[Read]) -> Vec<Conditioning> {
        let mut all = vec![Conditioning::default(); self.texts];
        for ((text, chunk), read) in self.chunks.iter().zip(results) {
            let context = weighted(read.context.clone(), chunk);
            let before = std::mem::take(&mut all[*text]);
            all[*text] = before.then(context, read.pooled.clone(), chunk.ids.len());
        }
        all
    }
}
