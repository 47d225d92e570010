//! Every block of every model against the numbers that diffusers computes.
//!
//! `testdata/pipelines` holds small pipelines with random weights, `testdata/golden/tensors` what diffusers makes of
//! fixed inputs: the results of all modules, not only of the whole, so that a failure names the first block that is
//! wrong. `tools/reference` holds the scripts that made both.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod expected;
mod network;

use expected::Expected;
use models::clip::{ClipConfig, ClipModel, TextConfig, TextModel, normalized, similarity};
use models::scorer::{self, Scorer};
use models::unet::{self, UNet};
use models::{Params, tiny_vae, vae};
use network::{Network, component, config};
use tensor::Graph;

/// The bundled one, seen from the small pipelines.
const SCORER: &str = "../../models/pocket-scorer";

const PIPELINES: [&str; 5] =
    ["tiny-sdxl-turbo", "tiny-sd-turbo", "tiny-sd15", "tiny-lcm", "tiny-nomid"];

#[test]
fn text_encoders_equal_transformers() {
    for pipeline in PIPELINES {
        let expected = Expected::open(pipeline);
        for (encoder, tokenizer) in
            [("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")]
        {
            let Some(params) = component(pipeline, encoder) else { continue };
            let config = TextConfig::read(&config(pipeline, encoder)).unwrap();
            let model = TextModel::load(&params, &config).unwrap();
            assert!(params.unread().is_empty(), "{pipeline} {encoder}: {:?}", params.unread());

            let ids = expected.ids(&format!("text.{tokenizer}.ids"));
            let graph = Graph::new();
            let (tokens, eos) = (graph.index("ids", [1, ids.len()]), graph.index("eos", [1]));
            let output = model.forward(tokens, eos);
            let mut outputs = vec![(format!("{encoder}.last_hidden_state"), output.normalized(0))];
            for i in 0..=config.num_hidden_layers {
                let name = format!("{encoder}.hidden_states.{i}");
                outputs.push((name, output.hidden(config.num_hidden_layers - i)));
            }
            outputs.extend(output.projected().map(|pooled| ("text.pooled".into(), Ok(pooled))));
            let outputs: Vec<(&str, _)> = outputs
                .iter()
                .filter(|(name, _)| expected.names().any(|known| known == name))
                .map(|(name, value)| (name.as_str(), *value.as_ref().unwrap()))
                .collect();
            assert!(outputs.len() >= 3, "{pipeline} {encoder}: {outputs:?}");
            let recording = graph.finish(&outputs).unwrap();
            let mut network = Network::new(&recording).index("ids", &ids);
            if model.has_projection() {
                network = network.index("eos", &[config.eos_position(&ids)]);
            }
            network.compare_outputs(&expected);
        }
    }
}

#[test]
fn unets_equal_diffusers() {
    for pipeline in PIPELINES {
        let expected = Expected::open(pipeline);
        let params = component(pipeline, "unet").unwrap();
        let config = unet::Config::read(&config(pipeline, "unet")).unwrap();
        let net = UNet::load(&params, &config).unwrap();
        assert!(params.unread().is_empty(), "{pipeline}: {:?}", params.unread());

        let sample = expected.get("unet.sample");
        let context = expected.get("unet.encoder_hidden_states");
        let graph = Graph::new();
        let size = [sample.shape[0], sample.shape[1], sample.shape[2]];
        let inputs = net.inputs(&graph, size, context.shape[1]);
        let output = net.forward(&inputs);
        let recording = graph.finish(&[("unet.output", output)]).unwrap();

        let timestep = expected.get("unet.timestep").values[0];
        let mut network = Network::new(&recording)
            .input("sample", &sample.values)
            .input("time", &config.time_projection(timestep))
            .input("encoder_hidden_states", &context.values);
        if config.has_text_time() {
            let sizes = expected.get("unet.time_ids").values.try_into().unwrap();
            network = network
                .input("text_embeds", &expected.get("unet.text_embeds").values)
                .input("time_ids", &config.time_ids(&sizes));
        }
        if config.time_cond_proj_dim.is_some() {
            network = network.input("timestep_cond", &expected.get("unet.timestep_cond").values);
        }
        network.compare_outputs(&expected);
        network.compare_modules(&expected, "unet.");
    }
}

#[test]
fn autoencoders_equal_diffusers() {
    for pipeline in PIPELINES {
        let expected = Expected::open(pipeline);
        let params = component(pipeline, "vae").unwrap();
        let json = config(pipeline, "vae");
        let (latents, picture) = (expected.get("vae.latents"), expected.get("vae.picture"));
        let graph = Graph::new();
        let z = graph.input("latents", latents.shape());
        let x = graph.input("picture", picture.shape());
        let (pixels, encoded) = if json["_class_name"] == "AutoencoderTiny" {
            let config = tiny_vae::Config::read(&json).unwrap();
            let decoder = tiny_vae::Decoder::load(&params, &config).unwrap();
            let encoder = tiny_vae::Encoder::load(&params, &config).unwrap();
            (decoder.forward(z), encoder.forward(x))
        } else {
            let config = vae::Config::read(&json).unwrap();
            let decoder = vae::Decoder::load(&params, &config).unwrap();
            let encoder = vae::Encoder::load(&params, &config).unwrap();
            (decoder.forward(z), encoder.forward(x))
        };
        assert!(params.unread().is_empty(), "{pipeline}: {:?}", params.unread());
        let recording = graph.finish(&[("vae.decoded", pixels), ("vae.encoded", encoded)]).unwrap();
        let network = Network::new(&recording)
            .input("latents", &latents.values)
            .input("picture", &picture.values);
        network.compare_outputs(&expected);
        network.compare_modules(&expected, "vae.");
    }
}

#[test]
fn scorer_equals_pytorch() {
    let expected = Expected::open("scorer");
    let (params, config) = (component(SCORER, "").unwrap(), config(SCORER, ""));
    let scorer = Scorer::load(&params, &scorer::Config::read(&config).unwrap()).unwrap();
    let graph = Graph::new();
    let seen = scorer.forward(scorer.input(&graph, 1));
    let recording = graph.finish(&[("first", seen.first), ("second", seen.second)]).unwrap();
    let network = Network::new(&recording).input("pixels", &expected.get("pixels").values);
    network.compare_outputs(&expected);
}

#[test]
fn clip_equals_transformers() {
    let expected = Expected::open("clip");
    let params = component("../clip", "").unwrap();
    let config = ClipConfig::read(&config("../clip", "")).unwrap();
    let clip = ClipModel::load(&params, &config).unwrap();
    assert!(params.unread().is_empty(), "{:?}", params.unread());

    let pixels = expected.get("pixel_values");
    let ids = expected.ids("input_ids");
    let tokens = config.text.max_position_embeddings;
    let texts = ids.len() / tokens;
    let graph = Graph::new();
    let pictures = clip.vision_model.forward(clip.vision_model.input(&graph, pixels.shape[0]));
    let text =
        clip.text_model.forward(graph.index("ids", [texts, tokens]), graph.index("eos", [texts]));
    let recording = graph
        .finish(&[
            ("vision.last_hidden_state", pictures.last_hidden_state),
            ("vision.pooled", pictures.pooled),
            ("image", pictures.image_embeds.unwrap()),
            ("text", text.projected().unwrap()),
        ])
        .unwrap();
    let eos: Vec<u32> = ids.chunks(tokens).map(|ids| config.text.eos_position(ids)).collect();
    let network = Network::new(&recording)
        .input("pixels", &pixels.values)
        .index("ids", &ids)
        .index("eos", &eos);
    let mut results = network.results();
    let rows = |numbers: &[f32]| -> Vec<Vec<f32>> {
        numbers.chunks(config.projection_dim).map(normalized).collect()
    };
    let (image, text) = (rows(&results["image"]), rows(&results["text"]));
    let scale = clip.scale().unwrap();
    let logits = image.iter().flat_map(|i| text.iter().map(|t| similarity(i, t, scale))).collect();
    results.insert("logits_per_image".into(), logits);
    results.insert("image_embeds".into(), image.concat());
    results.insert("text_embeds".into(), text.concat());
    results.retain(|name, _| name != "image" && name != "text");
    network::compare(results, &expected);
}

/// Sizes that are not multiples of what the levels halve come out as they went in.
#[test]
fn unets_keep_any_size() {
    for pipeline in PIPELINES {
        let config = unet::Config::read(&config(pipeline, "unet")).unwrap();
        let net = UNet::load(&component(pipeline, "unet").unwrap(), &config).unwrap();
        for [height, width] in [[1, 1], [8, 8], [65, 65], [3, 10]] {
            let graph = Graph::new();
            let output = net.forward(&net.inputs(&graph, [2, height, width], 77));
            assert_eq!(*output.shape(), [2, height, width, 4]);
            graph.finish(&[("output", output)]).unwrap();
        }
    }
}

/// A configuration that does not fit its checkpoint names the tensor and both shapes.
#[test]
fn other_configurations_are_refused() {
    let mut json = config("tiny-sd15", "unet");
    json["cross_attention_dim"] = 48.into();
    let params: Params = component("tiny-sd15", "unet").unwrap();
    let error = UNet::load(&params, &unet::Config::read(&json).unwrap()).unwrap_err().to_string();
    assert!(error.contains("attn2.to_k.weight has shape [16, 32]"), "{error}");
    assert!(error.contains("asks for [16, 48]"), "{error}");
}
