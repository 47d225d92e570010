"""What the stages share that change a trained UNet without training: they start from its average and leave a new one."""

import torch

import basis
import checkpoint
import clip
import model
import registers
import scenes
import settings
import tokenizer as words


def run(description, to, change):
    """`change(s, *parts)` changes the drawer among the parts that `walkers` takes: all but the settings and a seed."""
    s = settings.read(description, source=(str, "unet.pt"), to=(str, to))
    source, target = s.work / s.source, s.work / s.to
    if not source.exists():
        raise SystemExit(f"{source} is not there; train it with tools/train/unet, or name another with --source")
    if target.exists():
        raise SystemExit(f"{target} is there already; remove it, or name another with --to")
    settings.torch_up(s)
    world, tokenizer = scenes.World(s), words.load(s)
    wanted, tower = registers.Registers(s, world), model.text_tower(s, clip.load(s))
    drawer = model.Drawer(s, len(tokenizer))
    average = checkpoint.Average(drawer.unet, s.unet.ema)
    before = checkpoint.Run(source, {"model": drawer.unet, "average": average})
    average.copy_to(drawer.unet)
    checkpoint.Run(s.work / "text.pt", {"text": drawer.text})
    drawer.requires_grad_(False).to(memory_format=torch.channels_last)
    change(s, world, wanted, basis.Basis(s), drawer, tower, tokenizer)
    drawer.to(memory_format=torch.contiguous_format)
    average = checkpoint.Average(drawer.unet, s.unet.ema)
    after = checkpoint.Run(target, {"model": drawer.unet, "average": average})
    after.samples = before.samples
    after.save()
