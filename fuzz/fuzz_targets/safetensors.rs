//! Headers of safetensors files and indices of shards: any bytes are taken or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = tensor::file::safetensors::Header::parse(bytes);
    let _ = tensor::file::folder::parse_index(bytes);
});
