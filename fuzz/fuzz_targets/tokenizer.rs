//! A tokenizer's folder: the first byte says which file the rest is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipeline::prompt::{Prompt, Tokenizer};
use shared::Folder;

const VOCABULARY: &[u8] = br#"{"a":0,"a</w>":1,"aa</w>":2,"<|startoftext|>":3,"<|endoftext|>":4}"#;

fuzz_target!(|bytes: &[u8]| {
    let Some((which, content)) = bytes.split_first() else { return };
    let folder = Folder::new();
    folder.write("vocab.json", VOCABULARY);
    folder.write("merges.txt", b"#version: 0.2\na a</w>\n");
    let names = [
        "vocab.json",
        "merges.txt",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
    ];
    folder.write(names[usize::from(*which) % names.len()], content);
    if let Ok(tokenizer) = Tokenizer::open(folder.path()) {
        let _ = tokenizer.encode(&Prompt::weighted("aa (a:1.2) <|endoftext|> 猫"));
    }
});
