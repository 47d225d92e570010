"""Names of the original Stable Diffusion layout for the names of diffusers."""

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
          "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
OUTSIDE = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
           "time_embedding.cond_proj": "time_embed.cond_proj",
           "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
           "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.out_proj": "attn.out_proj",
             "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}


def renamed(rest, table):
    """`rest` with its first part replaced where the table has it."""
    for new, old in table.items():
        if rest == new or rest.startswith(new + "."):
            return old + rest[len(new):]
    return rest


def unet_name(name, layers, attending_up):
    """A UNet's tensor or module; `attending_up` lists the up blocks with attention."""
    parts = name.split(".")
    if parts[0] not in ("down_blocks", "up_blocks", "mid_block"):
        return renamed(name, OUTSIDE)
    if parts[0] == "mid_block":
        place = {"resnets": 2 * int(parts[2]), "attentions": 1}[parts[1]]
        return f"middle_block.{place}." + inner(parts[1], ".".join(parts[3:]))
    level, kind, index = int(parts[1]), parts[2], int(parts[3])
    rest = ".".join(parts[4:])
    if kind == "downsamplers":
        return f"input_blocks.{(level + 1) * (layers + 1)}.0." + renamed(rest, {"conv": "op"})
    if kind == "upsamplers":
        return f"output_blocks.{level * (layers + 1) + layers}.{2 if level in attending_up else 1}.{rest}"
    place = f"input_blocks.{1 + level * (layers + 1) + index}" if parts[0] == "down_blocks" \
        else f"output_blocks.{level * (layers + 1) + index}"
    return f"{place}.{0 if kind == 'resnets' else 1}." + inner(kind, rest)


def inner(kind, rest):
    return renamed(rest, RESNET) if kind == "resnets" else rest


def unet(model):
    tensors, attending = model.state_dict(), attending_up(model)
    return {"model.diffusion_model." + unet_name(n, model.config.layers_per_block, attending): t
            for n, t in tensors.items()}


def attending_up(model):
    return [i for i, kind in enumerate(model.config.up_block_types) if "CrossAttn" in kind]


def vae_name(name, levels):
    half, _, rest = name.partition(".")
    if half not in ("encoder", "decoder"):
        return name
    parts = rest.split(".")
    tail = ".".join(parts[3:])
    if parts[0] == "mid_block" and parts[1] == "resnets":
        return f"{half}.mid.block_{int(parts[2]) + 1}." + renamed(tail, {"conv_shortcut": "nin_shortcut"})
    if parts[0] == "mid_block":
        return f"{half}.mid.attn_1." + renamed(tail, ATTENTION)
    if parts[0] in ("down_blocks", "up_blocks"):
        way = parts[0].removesuffix("_blocks")
        level = int(parts[1]) if way == "down" else levels - 1 - int(parts[1])
        tail = ".".join(parts[4:])
        if parts[2] == "resnets":
            return f"{half}.{way}.{level}.block.{parts[3]}." + renamed(tail, {"conv_shortcut": "nin_shortcut"})
        return f"{half}.{way}.{level}.{way}sample.{tail}"
    return f"{half}." + renamed(rest, {"conv_norm_out": "norm_out"})


def vae(model):
    """The attention's matrices become 1×1 convolutions."""
    out, levels = {}, len(model.config.block_out_channels)
    for name, tensor in model.state_dict().items():
        if "attentions" in name and tensor.ndim == 2:
            tensor = tensor[:, :, None, None]
        out["first_stage_model." + vae_name(name, levels)] = tensor
    return out


def clip(model, prefix):
    return {f"{prefix}transformer.text_model.{name.removeprefix('text_model.')}": tensor
            for name, tensor in model.state_dict().items()}


def open_clip(model, prefix):
    """Query, key and value in one matrix; the projection turned."""
    import torch

    tensors = {n.removeprefix("text_model."): t for n, t in model.state_dict().items()}
    prefix += "model."
    out = {prefix + "token_embedding.weight": tensors["embeddings.token_embedding.weight"],
           prefix + "positional_embedding": tensors["embeddings.position_embedding.weight"],
           prefix + "logit_scale": torch.tensor(4.6055)}
    for kind in ("weight", "bias"):
        out[f"{prefix}ln_final.{kind}"] = tensors[f"final_layer_norm.{kind}"]
    if "text_projection.weight" in tensors:
        out[prefix + "text_projection"] = tensors["text_projection.weight"].T
    for layer in range(model.config.num_hidden_layers):
        start, to = f"encoder.layers.{layer}.", f"{prefix}transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            fused = [tensors[f"{start}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            out[f"{to}attn.in_proj_{kind}"] = torch.cat(fused)
            for new, old in OPEN_CLIP.items():
                out[f"{to}{old}.{kind}"] = tensors[f"{start}{new}.{kind}"]
    return out
