//! Names of tensors: any file of any names is a checkpoint, a set of corrections, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use models::lora::Lora;
use models::single_file::{Family, Options, SingleFile, open_vae};
use shared::{Folder, file_of_names};
use tensor::file::Checkpoint;

fuzz_target!(|text: &str| {
    let folder = Folder::new();
    let path = folder.write("model.safetensors", &file_of_names(text));
    let _ = SingleFile::open(&path, Options::default());
    let _ = open_vae(&path, Family::StableDiffusionXl);
    if let (Ok(lora), Ok(model)) = (Lora::open(&path), Checkpoint::open(&path)) {
        for part in lora.parts() {
            let _ = lora.merge(part, model.clone(), 1.0);
        }
    }
});
