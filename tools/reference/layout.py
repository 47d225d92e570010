"""Writing weights in the layouts that published pipelines have."""

import json

import torch
from safetensors.torch import save_file

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def rounded(model, dtype):
    """Rounds the weights to what the file will hold, so that f32 runs see the same numbers."""
    for parameter in model.parameters():
        parameter.data.copy_(parameter.data.to(DTYPES[dtype]).float())


def write(folder, stem, tensors, variant=None):
    """One safetensors file, `stem.variant.safetensors`."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"
    save_file(tensors, folder / name, metadata={"format": "pt"})


def write_sharded(folder, stem, tensors, shards=3):
    """Several files of about the same size and an index."""
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(t.nbytes for t in tensors.values())
    parts, room = [{} for _ in range(shards)], total / shards
    for name, tensor in sorted(tensors.items()):
        used = [sum(t.nbytes for t in part.values()) for part in parts]
        parts[next((i for i, u in enumerate(used) if u < room), shards - 1)][name] = tensor
    names = [f"{stem}-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
    for name, part in zip(names, parts):
        save_file(part, folder / name, metadata={"format": "pt"})
    places = {key: name for name, part in zip(names, parts) for key in part}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def old_attention(name):
    """Names of the VAE's attention before diffusers 0.18."""
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        if "attentions" in name:
            name = name.replace(f".{new}.", f".{old}.")
    return name
