//! Ad hoc.
#![allow(warnings)]
mod expected;
mod network;
use expected::Expected;
use models::unet::{self, UNet};
use models::{tiny_vae, vae};
use network::{Network, component, config};
use tensor::Graph;
#[test]
fn extra_unets() {
    for pipeline in ["a", "b"] {
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
            .input("time", &config.time_projection(timestep).repeat(2))
            .input("encoder_hidden_states", &context.values);
        if config.has_text_time() {
            let sizes = expected.get("unet.time_ids").values.try_into().unwrap();
            network = network
                .input("text_embeds", &expected.get("unet.text_embeds").values)
                .input("time_ids", &config.time_ids(&sizes).repeat(2));
        }
        if config.time_cond_proj_dim.is_some() {
            network = network.input("timestep_cond", &expected.get("unet.timestep_cond").values);
        }
        network.compare_modules(&expected, "unet.");
        network.compare_outputs(&expected);
    }
}
#[test]
fn extra_vaes() {
    for pipeline in ["c", "d"] {
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
        Network::new(&recording).input("latents", &latents.values).input("picture", &picture.values).compare_outputs(&expected);
    }
}
