//! Prompts: any text becomes encodings of the right length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipeline::prompt::{Padding, Prompt, Tokenizer};
use std::sync::LazyLock;

static CLIP: LazyLock<Tokenizer> = LazyLock::new(|| {
    Tokenizer::clip(Padding::ExclamationMark).expect("the bundled vocabulary is sound")
});

fuzz_target!(|text: &str| {
    for prompt in [Prompt::plain(text), Prompt::weighted(text)] {
        let encoding = CLIP.encode(&prompt).expect("any text can be encoded");
        assert_eq!((encoding.ids.len(), encoding.weights.len()), (77, 77));
        let long = CLIP.encode_long(&prompt).expect("any text can be encoded");
        assert!(long.iter().all(|part| part.ids.len() == 77));
    }
});
