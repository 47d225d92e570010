"""Prepares the first text encoder: it learns what sentences say and what objects look like before the UNet asks.

    tools/train/text [--until HH:MM]

First layers are trained so that every register's state is the code of its object, the principal components of its
pieces, and the flags that `registers` names. Layers that turn the code into pieces follow (`experts`), and one that no
pipeline of this kind reads. The UNet is trained with this encoder as it is.
"""

import copy
from types import SimpleNamespace

import numpy as np
import torch

import checkpoint
import clip
import device
import experts
import model
import prompts
import registers
import scenes
import settings
import tokenizer as words

# Registers that a batch is trained at, all in the last part.
AT_ONCE, LAST = 13, 0.75
# The deviation of the numbers of each code. Codes of one length let layers of experts rely on the height of flags.
SCALE = 0.5
# Sentences that the layers of experts are solved for.
SENTENCES = 5000


def coded(wanted, width):
    """`[concept, number]`: principal components of all pieces.

    The strongest come last, since pieces are to take the place of the first numbers.
    """
    every = wanted.single.flatten(1)
    u, size, _ = torch.linalg.svd(every - every.mean(0), full_matrices=False)
    print(f"codes keep {size[:width].square().sum() / size.square().sum():.1%} of the pieces' differences")
    code = (u[:, :width] * size[:width]).flip(1)
    return SCALE * code / code.square().mean(1, keepdim=True).sqrt()


def drawn(world, rng, count):
    found = [scene for scene in (world.draw(rng) for _ in range(count)) if not scene.held_out()]
    return found, [prompts.sentence(world, scene, rng) for scene in found]


def penultimate(text, ids, places=None):
    return text(ids, position_ids=places, output_hidden_states=True).hidden_states[-2].float()


@torch.no_grad()
def solved(s, world, tokenizer, wanted, reader, text):
    """Puts the trained layers into the whole encoder and solves the others."""
    theirs = reader.state_dict()
    last = f"encoder.layers.{s.text.taught}."
    text.load_state_dict({k: v for k, v in theirs.items() if not k.startswith(last)}, strict=False)
    found, said = drawn(world, np.random.default_rng(13), SENTENCES)
    states = []
    for i in range(0, len(found), 100):
        ids = clip.tokens(tokenizer, [p.text for p in said[i:i + 100]], s.tokens)
        states.append(penultimate(reader, ids)[:, registers.FIRST:])
    states, right = torch.cat(states), wanted.contents(found)
    pairs = torch.tensor([scene.is_pair for scene in found])
    for layer in text.encoder.layers[s.text.taught:-1]:
        states = experts.solve(layer, states, right, pairs, wanted)
        wrong = (states[..., :wanted.content] - right).square().mean() / wanted.single.var(0).mean()
        print(f"a layer of experts leaves {wrong:.1%} unexplained")


def main():
    s = settings.read(__doc__, until=(str, None))
    settings.torch_up(s)
    world, tokenizer = scenes.World(s), words.load(s)
    wanted = registers.Registers(s, world)
    codes = coded(wanted, s.unet.text_width - wanted.flags)
    torch.manual_seed(7)
    text = model.build_text(s, len(tokenizer))
    fewer = copy.copy(s.unet)
    fewer.text_layers = s.text.taught + 1
    reader = model.build_text(SimpleNamespace(**{**vars(s), "unet": fewer}), len(tokenizer))
    optimizer = torch.optim.AdamW(reader.parameters(), lr=s.text.rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    run = checkpoint.Run(s.work / "text.pt", {"reader": reader, "text": text}, optimizer)
    run.stop_politely()
    losses = []
    while (done := checkpoint.part_done(run, s.text.samples, s.until)) < 1 and checkpoint.until(s.until) > 0:
        rng = np.random.default_rng([run.step, 10])
        found, said = drawn(world, rng, s.text.batch)
        some = np.sort(rng.choice(wanted.count, AT_ONCE, replace=False)) if done < LAST else np.arange(wanted.count)
        places = torch.cat([torch.arange(registers.FIRST), registers.FIRST + device.array(some)])
        ids = clip.tokens(tokenizer, [p.text for p in said], s.tokens)[:, :len(places)]
        rate = checkpoint.schedule(optimizer, s.text.rate, done, run.step, warm=50)
        with settings.narrow(s):
            states = penultimate(reader, ids, places[None])
        owners, flags = wanted.owners(found)[:, some], wanted.said(found, said)
        code = (states[:, registers.FIRST:, :-wanted.flags] - codes[owners]).square().mean() / SCALE ** 2
        names = wanted.names[[int(scene.is_pair) for scene in found]][:, some]
        name = (states[:, registers.FIRST:, -wanted.flags:-flags.shape[1]] - names).square().mean()
        # From the end of the sentence on, all positions hold what it says.
        behind, heard = ids == tokenizer.eos_token_id, states[..., -flags.shape[1]:] - flags[:, None]
        flag = heard[behind].square().mean()
        optimizer.zero_grad()
        (code + name + flag).backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        run.after(len(found))
        losses.append([code.item(), name.item(), flag.item()])
        if run.step % 50 == 0:
            code, name, flag = np.mean(losses, 0)
            losses.clear()
            print(f"step {run.step} samples {run.samples} {run.seconds:.0f} s code {code:.3f} names {name:.4f} "
                  f"flags {flag:.4f} rate {rate:.5f}")
    solved(s, world, tokenizer, wanted, reader, text)
    run.save()


if __name__ == "__main__":
    main()
