"""Writes `testdata/single`: tiny checkpoints in one file, in the original layout.

    tools/.venv/bin/python tools/reference/single.py VOCABULARY

VOCABULARY is CLIP's merges, the file `bpe_simple_vocab_16e6.txt` of the crate
instant-clip-tokenizer in cargo's registry: such a file comes without a tokenizer. The golden
pictures come from a pipeline with the same weights; `golden/<file>.json` has the rows.
What diffusers reads from the file, given the configuration, is compared with that.
"""

import sys
import tempfile
import zlib
from pathlib import Path

import diffusers
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import CLIPTokenizer

import alive
import cases
import golden
import layout
import original
import pipelines
import vocabulary
from families import SINGLE

OUT = golden.DATA / "single"
BUNDLED_MERGES = 49152 - 256 - 2


def merges(path):
    return Path(path).read_text(encoding="utf-8").split("\n")[1 : BUNDLED_MERGES + 1]


def coarse(model):
    """Token vectors in steps of an eighth, so that the file packs well."""
    table = model.get_input_embeddings().weight.data
    table.copy_((table * 8).round() / 8)


def components(name, scratch, found):
    family = SINGLE[name]
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    parts, outputs, runs = {}, [], {}
    for key in [k for k in ("text_encoder", "text_encoder_2") if k in family]:
        place = Path(scratch) / key.replace("text_encoder", "tokenizer")
        vocabulary.write(place, "!" if key.endswith("2") or name == "tiny-sd2" else vocabulary.END, found)
        parts[place.name] = CLIPTokenizer.from_pretrained(place)
        model, runs[key] = pipelines.text_encoder(family[key], key.endswith("2"), generator,
                                                  parts[place.name])
        coarse(model)
        layout.rounded(model, "f16")
        parts[key] = model
    full = parts["text_encoder"]
    if unused := family.get("unused_text_layers"):
        parts["text_encoder"] = shortened(full, unused)
    ids = [parts[t](pipelines.PROMPTS, padding="max_length", max_length=77, truncation=True,
                    return_tensors="pt").input_ids for t in parts if t.startswith("tokenizer")]
    encoders = [parts[k] for k in ("text_encoder", "text_encoder_2") if k in parts]
    with torch.no_grad():
        outputs = [m(i, output_hidden_states=True) for m, i in zip(encoders, ids)]
    second = len(outputs) == 2
    contexts = torch.cat([o.hidden_states[-2] for o in outputs], -1) if second \
        else outputs[0].last_hidden_state
    parts["unet"], runs["unet"] = pipelines.unet(family["unet"], contexts,
                                                 outputs[-1].text_embeds if second else None, generator)
    parts["vae"], runs["vae"] = pipelines.autoencoder(family, generator)
    for key, run in runs.items():
        layout.rounded(parts[key], "f16")
        alive.check(parts[key] if key != "text_encoder" else full, run, f"{name}/{key}")
    kind, config = family["scheduler"]
    parts["scheduler"] = getattr(diffusers, kind)(**config)
    return parts, full


def shortened(model, unused):
    """The encoder without its last layers, as the pipeline uses it."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(**{**model.config.to_dict(),
                               "num_hidden_layers": model.config.num_hidden_layers - unused})
    short = CLIPTextModel(config).eval()
    short.load_state_dict(model.state_dict(), strict=False)
    return short


def tensors_of(name, parts, full):
    tensors = original.unet(parts["unet"]) | original.vae(parts["vae"])
    if name == "tiny-sd1":
        tensors |= original.clip(full, "cond_stage_model.")
        tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = \
            torch.arange(77).reshape(1, 77)
    elif name == "tiny-sd2":
        tensors |= original.open_clip(full, "cond_stage_model.")
    else:
        tensors |= original.clip(full, "conditioner.embedders.0.")
        tensors |= original.open_clip(parts["text_encoder_2"], "conditioner.embedders.1.")
    tensors["alphas_cumprod"] = parts["scheduler"].alphas_cumprod.float()
    tensors["model_ema.num_updates"] = torch.tensor(7, dtype=torch.int32)
    whole = {n: t.half() if t.is_floating_point() and n != "alphas_cumprod" else t
             for n, t in tensors.items()}
    return {n: t.clone().contiguous() for n, t in whole.items()}


def assembled(name, parts):
    kind = getattr(diffusers, SINGLE[name]["pipeline"])
    more = dict(SINGLE[name].get("more", {}))
    if "XL" not in kind.__name__:
        more |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipe = kind(**parts, **more)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def read_back(pipe, path, scratch):
    """The same file through `from_single_file`, with the configuration from a folder."""
    folder = Path(scratch) / "saved"
    pipe.save_pretrained(folder)
    again = type(pipe).from_single_file(path, config=str(folder), local_files_only=True,
                                        torch_dtype=torch.float32)
    again.set_progress_bar_config(disable=True)
    return again


def make(name, found):
    with tempfile.TemporaryDirectory() as scratch:
        parts, full = components(name, scratch, found)
        OUT.mkdir(exist_ok=True)
        path = OUT / f"{name}.safetensors"
        save_file(tensors_of(name, parts, full), path, metadata={"format": "pt"})
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")
        pipe = assembled(name, parts)
        folder = golden.OUT / name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.png"):
            old.unlink()
        rows = list(golden.rows_of(f"{name}.safetensors", None, cases.SINGLE[name]))
        own = {"_class_name": type(parts["scheduler"]).__name__, **parts["scheduler"].config}
        for row in rows:
            pipe.scheduler = golden.scheduler_from(own)
            golden.record(folder, None, {**row, "own": own}, pipe)
        first, other = golden.draw(pipe, rows[0])[0], golden.draw(pipe, {**rows[0], "prompt": cases.ROBOT})[0]
        moved = golden.distance(first, other).mean()
        print(f"  prompt moves the picture by {moved:.1f}")
        assert moved >= golden.MOVED
        golden.write_rows(golden.OUT / f"{name}.json", rows)
        compare(pipe, path, scratch, rows[0], first)


def compare(pipe, path, scratch, row, first):
    """Weights that diffusers finds in the file, and the picture drawn with them."""
    again = read_back(pipe, path, scratch)
    for key, part in again.components.items():
        if not hasattr(part, "named_parameters"):
            continue
        if any(parameter.is_meta for parameter in part.parameters()):
            # This diffusers does not know the names of this transformers' CLIPTextModel.
            print(f"  {key}: not read by this diffusers")
            setattr(again, key, getattr(pipe, key))
            continue
        expected = dict(getattr(pipe, key).named_parameters())
        assert all(torch.equal(p, expected[n]) for n, p in part.named_parameters()), key
        print(f"  {key}: {len(expected)} tensors read back equal")
    again.scheduler = pipe.scheduler
    apart = np.max(golden.distance(first, golden.draw(again, row)[0]))
    print(f"  picture of the file read by diffusers: {apart:.0f} levels apart")
    assert apart == 0


def main():
    golden.quiet()
    found = merges(sys.argv[1])
    for name in SINGLE:
        make(name, found)


if __name__ == "__main__":
    main()
