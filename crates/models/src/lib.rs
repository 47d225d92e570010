//! CLIP, UNet and VAE: structure and arithmetic, read from their configurations.
//!
//! Each model opens with its configuration, the fields of the `config.json` that comes with a checkpoint. A model is
//! loaded from [`Params`], a walk over the checkpoint's names, and records its arithmetic on [`tensor::Value`]s. Images
//! are `[batch, height, width, channels]`, texts `[batch, tokens, channels]`; parameters have the shapes that PyTorch
//! stores.
//!
//! ```
//! use models::{Params, tiny_vae};
//! use tensor::file::{Checkpoint, TensorView};
//! use tensor::Graph;
//!
//! let json = serde_json::json!({
//!     "decoder_block_out_channels": [2], "num_decoder_blocks": [0],
//!     "encoder_block_out_channels": [2], "num_encoder_blocks": [0],
//! });
//! let config = tiny_vae::Config::read(&json)?;
//! let zeros = |shape: &[usize]| TensorView::from_f32(shape, &vec![0.0; shape.iter().product()]);
//! let checkpoint = Checkpoint::from_views("memory", [
//!     ("decoder.layers.0.weight".to_owned(), zeros(&[2, 4, 3, 3])),
//!     ("decoder.layers.0.bias".to_owned(), zeros(&[2])),
//!     ("decoder.layers.2.weight".to_owned(), zeros(&[3, 2, 3, 3])),
//!     ("decoder.layers.2.bias".to_owned(), zeros(&[3])),
//! ]);
//! let decoder = tiny_vae::Decoder::load(&Params::new(&checkpoint), &config)?;
//! let graph = Graph::new();
//! let pixels = decoder.forward(graph.input("latents", [1, 8, 8, config.latent_channels()]));
//! assert_eq!(*pixels.shape(), [1, 8, 8, 3]);
//! # Ok::<(), models::Error>(())
//! ```

pub mod clip;
mod config;
mod error;
pub mod lora;
pub mod nn;
mod params;
pub mod scorer;
pub mod single_file;
pub mod tiny_vae;
pub mod unet;
pub mod vae;

pub use config::PerLevel;
pub use error::Error;
pub use params::Params;
