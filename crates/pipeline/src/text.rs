//! Prompts → embeddings.

use models::Params;
use models::clip::{TextConfig, TextModel};
use tensor::{Device, Graph, Recording};

use crate::denoise::Texts;
use crate::memory::load_of_texts;
use crate::model::{Encoder, Kind};
use crate::prompt::{Encoding, Prompt};
use crate::request::{Overflow, Phase, Request, Watch};
use crate::stage::Stage;
use crate::text_to_image::Settings;
use crate::{Error, Event, Model, TextToImage};

/// What the UNet is told about a prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Conditioning {
    /// `[tokens, channels]`; the channels of all encoders side by side.
    pub(crate) context: Vec<f32>,
    /// Number of tokens.
    pub(crate) tokens: usize,
    /// The last encoder's projected summary of the prompt; empty if it has none.
    pub(crate) pooled: Vec<f32>,
}

/// Encode all prompts of a request and, where guided, its negative prompt.
pub(crate) fn encode<D: Device>(
    pipeline: &TextToImage<'_, D>,
    request: &Request,
    settings: &Settings,
    watch: &Watch<'_>,
) -> Result<Texts, Error> {
    let model = pipeline.model;
    let guided = settings.is_guided(model);
    if request.negative.is_some() && !guided {
        let text = "the negative prompt has no effect without guidance; set --cfg-scale above 1";
        watch.tell(Event::Warning(text.into()));
    }
    let texts = texts(request, guided);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let encoders = model.encoders.iter();
    let encoded =
        encoders.map(|encoder| Encode { pipeline, request, encoder, watch }.run(&texts, guided));
    let encoded: Vec<Vec<Conditioning>> = encoded.collect::<Result<_, _>>()?;
    Ok(joined((model, request), &encoded, guided))
}

/// All texts of a request: its prompts and, where guided, the negative prompt after them.
pub(crate) fn texts(request: &Request, guided: bool) -> Vec<String> {
    let negative = guided.then(|| request.negative.clone().unwrap_or_default());
    request.prompts.iter().cloned().chain(negative).collect()
}

/// What the UNet is told about all texts, from what each encoder makes of each of them.
pub(crate) fn joined(
    (model, request): (&Model, &Request),
    encoded: &[Vec<Conditioning>],
    guided: bool,
) -> Texts {
    let texts = encoded.first().map_or(0, Vec::len);
    let all = (0..texts).map(|text| {
        let views = encoded.iter().map(|of_encoder| of_encoder[text].clone());
        views.fold(Conditioning::default(), Conditioning::beside)
    });
    let mut prompts: Vec<Conditioning> = all.collect();
    let negative = if guided { prompts.pop() } else { None };
    let zeroed = model.zeros_for_empty && request.negative.is_none();
    Texts { prompts, negative: negative.map(|text| if zeroed { text.zeroed() } else { text }) }
}

/// Bytes of the embedding of a prompt that fits the encoders, which waits until the steps are over.
pub(crate) fn context_bytes(model: &Model) -> Result<usize, Error> {
    let of_encoder = |encoder: &Encoder| {
        let config = TextConfig::read(&encoder.component.config)?;
        Ok(size_of::<f32>() * encoder.tokenizer.limit() * config.hidden_size)
    };
    model.encoders.iter().map(of_encoder).sum()
}

/// The recording of one encoder's call.
pub(crate) fn recording<D: Device>(
    pipeline: &TextToImage<'_, D>,
    request: &Request,
    encoder: &Encoder,
) -> Result<Recording, Error> {
    let watch = &Watch::default();
    let component = &encoder.component;
    let config = TextConfig::read(&component.config)?;
    let model = TextModel::load(&Params::new(&component.weights), &config)?;
    let encode = Encode { pipeline, request, encoder, watch };
    encode.record(&model, encode.skipped(false))
}

/// One encoder at work on all texts.
pub(crate) struct Encode<'a, D: Device> {
    pub(crate) pipeline: &'a TextToImage<'a, D>,
    pub(crate) request: &'a Request,
    pub(crate) encoder: &'a Encoder,
    pub(crate) watch: &'a Watch<'a>,
}

impl<D: Device> Encode<'_, D> {
    /// Embeddings of all texts. The last text is the negative prompt where there is one.
    fn run(&self, texts: &[&str], has_negative: bool) -> Result<Vec<Conditioning>, Error> {
        let chunks = self.chunks(texts)?;
        let component = &self.encoder.component;
        let config = TextConfig::read(&component.config)?;
        let model = TextModel::load(&Params::new(&component.weights), &config)?;
        let mut stage = Stage::new(self.pipeline, component, (Phase::Text, self.watch));
        let total = chunks.iter().map(Vec::len).sum();
        let mut done = 0;
        let mut all = vec![Conditioning::default(); texts.len()];
        let kept = texts.len() * context_bytes(self.pipeline.model)?;
        // A negative prompt may skip another number of layers than prompts do.
        let prompts = texts.len() - usize::from(has_negative);
        for (texts, is_negative) in [(0..prompts, false), (prompts..texts.len(), true)] {
            let chunks: Vec<(usize, &Encoding)> = texts
                .clone()
                .flat_map(|text| chunks[text].iter().map(move |chunk| (text, chunk)))
                .collect();
            if chunks.is_empty() {
                continue;
            }
            let program = stage.compile(&self.record(&model, self.skipped(is_negative))?);
            let load = load_of_texts(chunks.len(), kept);
            let mut sessions = stage.sessions(program, load)?;
            for chunks in chunks.chunks(load.together) {
                let sessions = &mut sessions[..chunks.len()];
                for ((_, chunk), session) in chunks.iter().zip(&mut *sessions) {
                    session.write_index("ids", &chunk.ids)?;
                    if model.has_projection() {
                        session.write_index("eos", &[config.eos_position(&chunk.ids)])?;
                    }
                }
                let contexts = stage.run(sessions, "context", (done, total))?;
                for (((text, chunk), session), context) in chunks.iter().zip(sessions).zip(contexts)
                {
                    let pooled =
                        if model.has_projection() { session.read("pooled")? } else { Vec::new() };
                    let before = std::mem::take(&mut all[*text]);
                    all[*text] = before.then(weighted(context, chunk), pooled, chunk.ids.len());
                }
                done += chunks.len();
            }
        }
        Ok(all)
    }

    /// Token ids of all texts, in equally many chunks: a batch needs contexts of one length.
    pub(crate) fn chunks(&self, texts: &[&str]) -> Result<Vec<Vec<Encoding>>, Error> {
        let tokenizer = &self.encoder.tokenizer;
        let mut all = Vec::with_capacity(texts.len());
        for text in texts {
            let prompt = Prompt::weighted(text);
            if prompt.has_breaks() && self.request.overflow == Overflow::Cut {
                let text =
                    "BREAK begins a new chunk only with --long-prompt; it counts as a space here";
                self.watch.tell(Event::Warning(text.into()));
            }
            all.push(match self.request.overflow {
                Overflow::Chunks => tokenizer.encode_long(&prompt)?,
                Overflow::Cut => vec![tokenizer.encode(&prompt)?],
            });
        }
        let most = all.iter().map(Vec::len).max().unwrap_or(1);
        let empty = tokenizer.encode(&Prompt::weighted(""))?;
        for chunks in &mut all {
            if let Some(cut) = chunks.iter().find_map(|chunk| chunk.cut.as_ref()) {
                let limit = tokenizer.limit();
                let name = self.encoder.component.name;
                self.watch.tell(Event::Warning(format!(
                    "{name} reads {limit} tokens; this part of the prompt was cut off: {cut:?} (--long-prompt reads it)"
                )));
            }
            chunks.resize(most, empty.clone());
        }
        Ok(all)
    }

    /// How many of the encoder's last layers are left out for this text.
    ///
    /// Stable Diffusion reads the last layer and SDXL the one before it; negative prompts do not follow `clip_skip`,
    /// as in diffusers.
    pub(crate) fn skipped(&self, negative: bool) -> usize {
        let asked = if negative { 0 } else { self.request.clip_skip };
        match self.pipeline.model.kind {
            Kind::StableDiffusionXl => asked + 1,
            _ => asked,
        }
    }

    pub(crate) fn record(&self, model: &TextModel, skipped: usize) -> Result<Recording, Error> {
        let graph = Graph::new();
        let ids = graph.index("ids", [1, self.encoder.tokenizer.limit()]);
        let eos = graph.index("eos", [1]);
        let output = model.forward(ids, eos);
        // SDXL takes hidden states as they are; Stable Diffusion normalises them.
        let context = match self.pipeline.model.kind {
            Kind::StableDiffusionXl => output.hidden(skipped)?,
            _ => output.normalized(skipped)?,
        };
        let mut outputs = vec![("context", context)];
        outputs.extend(output.projected().map(|pooled| ("pooled", pooled)));
        graph.finish(&outputs).map_err(|e| Error::Engine(e.into()))
    }
}

/// Multiply each token's embedding by its weight, then scale all so that their mean stays what it was.
pub(crate) fn weighted(mut context: Vec<f32>, encoding: &Encoding) -> Vec<f32> {
    if !encoding.is_weighted() {
        return context;
    }
    let mean =
        |numbers: &[f32]| numbers.iter().map(|&x| f64::from(x)).sum::<f64>() / numbers.len() as f64;
    let before = mean(&context);
    let channels = context.len() / encoding.weights.len();
    for (token, weight) in context.chunks_exact_mut(channels).zip(&encoding.weights) {
        for x in token {
            *x *= weight;
        }
    }
    let after = mean(&context);
    if after != 0.0 {
        let factor = (before / after) as f32;
        for x in &mut context {
            *x *= factor;
        }
    }
    context
}

impl Conditioning {
    /// Another encoder's view of the same text: its channels beside ours, its summary instead of ours.
    fn beside(self, other: Self) -> Self {
        if self.tokens == 0 {
            return other;
        }
        let (a, b) = (self.context.len() / self.tokens, other.context.len() / self.tokens);
        let rows = self.context.chunks_exact(a).zip(other.context.chunks_exact(b));
        let context = rows.flat_map(|(a, b)| a.iter().chain(b).copied()).collect();
        Self { context, tokens: self.tokens, pooled: other.pooled }
    }

    /// The next chunk of the same text: its tokens after ours; the first chunk's summary stays.
    pub(crate) fn then(mut self, context: Vec<f32>, pooled: Vec<f32>, tokens: usize) -> Self {
        self.context.extend(context);
        self.tokens += tokens;
        if self.pooled.is_empty() {
            self.pooled = pooled;
        }
        self
    }

    fn zeroed(mut self) -> Self {
        self.context.fill(0.0);
        self.pooled.fill(0.0);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::{Conditioning, weighted};
    use crate::prompt::Encoding;

    #[test]
    fn encoders_stand_side_by_side() {
        let one = Conditioning { context: vec![1.0, 2.0], tokens: 2, pooled: vec![] };
        let two = Conditioning { context: vec![3.0, 4.0, 5.0, 6.0], tokens: 2, pooled: vec![9.0] };
        let both = one.beside(two);
        assert_eq!(both.context, [1.0, 3.0, 4.0, 2.0, 5.0, 6.0]);
        assert_eq!(both.pooled, [9.0]);
    }

    #[test]
    fn weights_keep_the_mean() {
        let encoding = Encoding { ids: vec![0, 1], weights: vec![1.0, 2.0], cut: None };
        let out = weighted(vec![1.0, 2.0, 3.0, 4.0], &encoding);
        assert_eq!(out.iter().sum::<f32>(), 10.0);
        assert!((out[2] / out[0] - 6.0).abs() < 1e-6);
    }
}
