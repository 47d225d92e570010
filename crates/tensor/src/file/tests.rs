//! Files as they come: sound ones in every arrangement, and damaged ones, of which each must be
//! refused in one line that names the file.

use super::safetensors::Header;
use super::*;
use ::safetensors::tensor::{Dtype as Stored, TensorView as Given, serialize};
use proptest::prelude::*;
use std::path::Path;

/// The bytes of a safetensors file with a header as given.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// A sound file of `names`, each two f32 numbers: its index among them, and one.
fn sound(names: &[&str]) -> Vec<u8> {
    let numbers: Vec<Vec<u8>> = (0..names.len())
        .map(|i| [i as f32, 1.0].iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    let given = |bytes| Given::new(Stored::F32, vec![2], bytes).unwrap();
    let tensors = names.iter().zip(&numbers).map(|(name, bytes)| (*name, given(bytes)));
    serialize(tensors, None).unwrap()
}

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    std::fs::write(folder.join(name), bytes).unwrap();
}

#[test]
fn damaged_files_are_refused_in_one_line() {
    let two = |first: &str, second: &str| {
        format!(
            r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":{first}}},
                "b":{{"dtype":"F32","shape":[2],"data_offsets":{second}}}}}"#
        )
    };
    let short = sound(&["a", "b"]);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "promises 8 bytes and it has 0"),
        ("truncated prefix", vec![1, 0, 0], "promises 8 bytes and it has 3"),
        ("truncated header", short[..30].to_vec(), "and it has 30; download it again"),
        ("truncated data", short[..short.len() - 1].to_vec(), "header promises"),
        ("trailing data", file("{}", 5), "promises 10 bytes and it has 15"),
        ("absurd length", [0xff; 64].to_vec(), "18446744073709551615 bytes long"),
        ("overlap", file(&two("[0,8]", "[4,12]"), 12), "overlaps another or leaves a gap"),
        ("gap", file(&two("[0,8]", "[12,20]"), 20), "overlaps another or leaves a gap"),
        ("beyond the end", file(&two("[0,8]", "[8,16]"), 8), "and it has"),
        ("backwards", file(&two("[0,8]", "[8,0]"), 8), "overlaps"),
        ("shape and bytes", file(&two("[0,8]", "[8,20]"), 20), "agree with its shape"),
        (
            "overflow",
            file(
                r#"{"a":{"dtype":"F32","shape":[9223372036854775807,4],"data_offsets":[0,8]}}"#,
                8,
            ),
            "overflow",
        ),
        (
            "negative",
            file(r#"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#, 8),
            "header is damaged",
        ),
        (
            "twice",
            file(
                r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                    "a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
                8,
            ),
            "`a` appears twice",
        ),
        (
            "unknown format",
            file(r#"{"a":{"dtype":"F7","shape":[1],"data_offsets":[0,4]}}"#, 4),
            "F7",
        ),
        ("not an object", file("[1]", 0), "header is damaged"),
        ("two values", file("{}{}", 0), "header is damaged"),
        (
            "not UTF-8",
            {
                let mut f = file("{\"a\"}", 0);
                f[10] = 0xff;
                f
            },
            "utf-8",
        ),
        ("gguf", b"GGUF\x03\0\0\0".to_vec(), "GGUF"),
        ("pointer", b"version https://git-lfs".to_vec(), "git lfs pull"),
        ("page", b"<!DOCTYPE html><html>".to_vec(), "web page"),
        ("zip", b"PK\x03\x04abcdefgh".to_vec(), "convert it to safetensors"),
        ("pickle", b"\x80\x02}q\x00abcdefgh".to_vec(), "convert it to safetensors"),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes, part) in cases {
        let path = folder.path().join("weights.safetensors");
        std::fs::write(&path, bytes).unwrap();
        let error = Checkpoint::open(&path).expect_err(name).to_string();
        assert!(error.contains(part), "{name}: {error}");
        assert!(error.contains("weights.safetensors") && !error.contains('\n'), "{name}: {error}");
    }
}

#[test]
fn formats_that_are_not_computed_with_are_refused_when_read() {
    let folder = tempfile::tempdir().unwrap();
    let header = r#"{"ids":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},
                     "w":{"dtype":"BF16","shape":[2],"data_offsets":[8,12]}}"#;
    write(folder.path(), "model.safetensors", file(header, 12));
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.format("ids").as_deref(), Some("I64"));
    assert_eq!(checkpoint.tensor("w").unwrap().to_f32(), [0.0, 0.0]);
    let error = checkpoint.tensor("ids").unwrap_err().to_string();
    assert!(error.contains("tensor `ids`") && error.contains("stored as I64"), "{error}");
}

#[test]
fn folders_prefer_full_precision_and_take_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let names = || {
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        checkpoint.names().map(str::to_owned).collect::<Vec<_>>()
    };
    write(folder.path(), "odd.safetensors", sound(&["only"]));
    assert_eq!(names(), ["only"]);
    write(folder.path(), "model.fp16.safetensors", sound(&["half"]));
    assert_eq!(names(), ["half"]);
    write(folder.path(), "model.safetensors", sound(&["full"]));
    assert_eq!(names(), ["full"]);
}

#[test]
fn folders_without_weights_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let error = || Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(error().contains("holds no weights"), "{}", error());
    write(folder.path(), "diffusion_pytorch_model.bin", "anything");
    assert!(error().contains("convert it to safetensors"), "{}", error());
    write(folder.path(), "a.safetensors", sound(&["a"]));
    write(folder.path(), "b.safetensors", sound(&["b"]));
    assert!(error().contains("a.safetensors, b.safetensors"), "{}", error());
    let nowhere = Checkpoint::open(folder.path().join("nowhere")).unwrap_err().to_string();
    assert!(nowhere.contains("cannot read"), "{nowhere}");
    write(folder.path(), "model.ckpt", "not a zip");
    let pickle = Checkpoint::open(folder.path().join("model.ckpt")).unwrap_err().to_string();
    assert!(pickle.contains("is a pickle"), "{pickle}");
}

#[test]
fn shards_are_joined_and_their_faults_named() {
    let folder = tempfile::tempdir().unwrap();
    let index = |b: &str| {
        let text = format!(r#"{{"metadata":{{}},"weight_map":{{"a":"1.safetensors","b":"{b}"}}}}"#);
        write(folder.path(), "model.safetensors.index.json", text);
        Checkpoint::open(folder.path())
    };
    write(folder.path(), "1.safetensors", sound(&["a"]));
    write(folder.path(), "2.safetensors", sound(&["extra", "b"]));
    let joined = index("2.safetensors").unwrap();
    assert_eq!(joined.names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(joined.tensor("b").unwrap().to_f32()[1], 1.0);
    for (shard, part) in [
        ("3.safetensors", "shard `3.safetensors` is not there"),
        ("1.safetensors", "no tensor `b`"),
        ("../1.safetensors", "not the name of a file beside it"),
        ("", "not the name of a file beside it"),
    ] {
        let error = index(shard).unwrap_err().to_string();
        assert!(error.contains(part), "{shard}: {error}");
    }
    for (text, part) in [("{", "EOF"), ("{}", "weight_map"), (r#"{"weight_map":{}}"#, "no tensors")]
    {
        write(folder.path(), "model.safetensors.index.json", text);
        let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("index.json"), "{error}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Header::parse(&bytes);
        let _ = folder::parse_index(&bytes);
    }

    #[test]
    fn any_header_is_taken_or_refused(header in r#"[\[\]{}:,"a0-9FI_-]{0,80}"#, data in 0..40_usize) {
        let _ = Header::parse(&file(&header, data));
    }

    #[test]
    fn damage_anywhere_is_survived(at in 0..400_usize, bit in 0..8_u8, cut in 0..400_usize) {
        let mut bytes = sound(&["conv.weight", "conv.bias", "norm.weight", "é"]);
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let _ = Header::parse(&bytes);
        bytes.truncate(cut);
        let _ = Header::parse(&bytes);
    }

    #[test]
    fn what_is_accepted_can_be_read(edits in prop::collection::vec((0..200_usize, any::<u8>()), 0..4)) {
        let mut bytes = sound(&["a", "b", "c"]);
        let length = bytes.len();
        for (at, byte) in edits {
            bytes[at % length] = byte;
        }
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "model.safetensors", &bytes);
        if let Ok(checkpoint) = Checkpoint::open(folder.path()) {
            for name in checkpoint.names() {
                if let Ok(view) = checkpoint.tensor(name) {
                    prop_assert_eq!(view.to_f32().len(), view.count());
                }
            }
        }
    }

    #[test]
    fn tensors_come_back_as_they_were_written(
        values in prop::collection::vec(any::<f32>(), 1..50),
        name in ".{1,20}",
    ) {
        prop_assume!(name != "__metadata__");
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let given = Given::new(Stored::F32, vec![values.len()], &bytes).unwrap();
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "model.safetensors", serialize([(name.clone(), given)], None).unwrap());
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let back = checkpoint.tensor(&name).unwrap();
        prop_assert_eq!(back.bytes(), &bytes[..]);
        back.drop_pages();
        prop_assert_eq!(back.bytes(), &bytes[..]);
    }
}
