//! Ids against transformers' (`testdata/prompts`, made by `tools/reference/prompts.py`), and what
//! is done with prompts that are long, weighted or read from damaged folders.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::LazyLock;

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/prompts")
}

fn golden() -> BTreeMap<String, serde_json::Value> {
    let text = std::fs::read_to_string(testdata().join("golden.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

static CLIP: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::clip(Padding::EndOfText).unwrap());

fn folder_tokenizer() -> Tokenizer {
    Tokenizer::open(&testdata().join("tokenizer")).unwrap()
}

#[test]
fn ids_are_those_of_transformers() {
    let tokenizers = [
        ("clip_end", Tokenizer::clip(Padding::EndOfText).unwrap()),
        ("clip_bang", Tokenizer::clip(Padding::ExclamationMark).unwrap()),
        ("tokenizer", folder_tokenizer()),
        ("tokenizer_json", Tokenizer::open(&testdata().join("tokenizer_json")).unwrap()),
    ];
    let golden = golden();
    let prompts: Vec<String> = serde_json::from_value(golden["prompts"].clone()).unwrap();
    let mut wrong = Vec::new();
    for (name, tokenizer) in tokenizers {
        let expected: Vec<Vec<u32>> = serde_json::from_value(golden[name].clone()).unwrap();
        for (prompt, expected) in prompts.iter().zip(expected) {
            let found = tokenizer.encode(&Prompt::plain(prompt)).unwrap();
            if found.ids != expected {
                wrong.push(format!("{name}: {prompt:?}\n{:?}\n{expected:?}", found.ids));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_does_not_fit_is_reported() {
    let words: Vec<String> = (0..80).map(|i| ["red", "fox"][i % 2].to_owned()).collect();
    for tokenizer in [&*CLIP, &folder_tokenizer()] {
        let fits = tokenizer.encode(&Prompt::plain("one fox")).unwrap();
        assert_eq!(fits.cut, None);
    }
    let cut = CLIP.encode(&Prompt::weighted(&words.join(" "))).unwrap().cut.unwrap();
    assert_eq!(cut, words[75..].join(" "));
    let weighted = format!("({}:1.2) and (more:2) text", words[..74].join(" "));
    let encoding = CLIP.encode(&Prompt::weighted(&weighted)).unwrap();
    assert_eq!(encoding.cut.as_deref(), Some("more text"));
    assert_eq!((encoding.ids.len(), encoding.weights.len()), (77, 77));
    assert_eq!(encoding.weights[74..], [1.2, 1.0, 1.0]);
}

#[test]
fn long_prompts_become_several_encodings() {
    let long = CLIP.encode_long(&Prompt::weighted(&"fox ".repeat(76))).unwrap();
    assert_eq!(long.len(), 2);
    assert!(long.iter().all(|part| part.ids.len() == 77 && part.cut.is_none()));
    assert_eq!(long[0].ids[75..], [3240, 49407]);
    assert_eq!(long[1].ids[..3], [49406, 3240, 49407]);
    let exact = CLIP.encode_long(&Prompt::plain(&"fox ".repeat(75))).unwrap();
    assert_eq!(exact.len(), 1);
    let broken = CLIP.encode_long(&Prompt::weighted("red BREAK (fox:1.5)")).unwrap();
    assert_eq!(broken.len(), 2);
    assert_eq!(broken[1].weights[..3], [1.0, 1.5, 1.0]);
    assert!(broken[1].is_weighted() && !broken[0].is_weighted());
    assert_eq!(CLIP.encode_long(&Prompt::weighted("")).unwrap().len(), 1);
}

#[test]
fn damaged_folders_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let error = || Tokenizer::open(folder.path()).unwrap_err().to_string();
    assert!(error().contains("holds no tokenizer"), "{}", error());
    write("vocab.json", r#"{"a":0,"<|endoftext|>":1}"#);
    assert!(error().contains("merges.txt"), "{}", error());
    write("merges.txt", "#version: 0.2\na\n");
    assert!(error().contains("`a` is not a merge"), "{}", error());
    write("merges.txt", "#version: 0.2\na b\n");
    assert!(error().contains("cannot use the tokenizer"), "{}", error());
    write("merges.txt", "#version: 0.2\n");
    write("tokenizer_config.json", r#"{"model_max_length":1000000000000000019884624838656}"#);
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    assert_eq!((tokenizer.limit(), tokenizer.marks.end), (77, 1));
    write("tokenizer_config.json", r#"{"pad_token":7}"#);
    assert!(error().contains("tokenizer_config.json"), "{}", error());
    write("tokenizer_config.json", "{}");
    write("tokenizer.json", r#"{"model":{"type":"WordPiece","vocab":{}}}"#);
    assert!(error().contains("merges"), "{}", error());
}

proptest! {
    #[test]
    fn any_prompt_is_encoded(text in ".{0,60}") {
        for prompt in [Prompt::plain(&text), Prompt::weighted(&text)] {
            let encoding = CLIP.encode(&prompt).unwrap();
            prop_assert_eq!(encoding.ids.len(), 77);
            prop_assert!(encoding.ids.iter().all(|&id| id < 49408));
            let long = CLIP.encode_long(&prompt).unwrap();
            prop_assert!(long.iter().all(|part| part.ids.len() == 77));
        }
    }
}
