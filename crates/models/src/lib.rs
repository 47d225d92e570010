//! CLIP, UNet and VAE: structure and arithmetic, read from their configurations.
