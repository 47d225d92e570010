"""Prepares the first text encoder: it learns what objects look like before the UNet asks.

    tools/train/text [--until HH:MM]

An object's code is the principal components of its sprites' latents, a part for each style. At the last token of the
object's phrase a linear map of the state is to be the code. From the end token on, where style and order are known, it
is to be both objects' codes in the wished style: so even attention that looks everywhere alike finds what to draw. The
end's state is to say the attributes too. The UNet goes on with the encoder; the maps are dropped.
"""

import numpy as np
import torch
from torch import nn

import basis
import checkpoint
import clip
import model
import prompts
import scenes
import settings
import tokenizer as words

# Single, or first or second of a pair in either arrangement.
ROLES = 1 + 2 * len(scenes.PAIRS)


def codes(s, world):
    """`[concept, code]`: each style's sprites as components, with the square roots of their deviations."""
    latents, part = basis.Basis(s), s.unet.text_width // len(scenes.STYLES)
    found = []
    for style in range(len(scenes.STYLES)):
        pictures = [world.render(scenes.Scene((i,), style, scenes.COLOURS.index("gray"), 1, 0))
                    for i in range(len(world.concepts))]
        z = latents.encode(scenes.tensor(pictures)).flatten(1)
        u, size, _ = torch.linalg.svd(z - z.mean(0), full_matrices=False)
        code = u[:, :part] * size[:part].sqrt()
        print(f"{scenes.STYLES[style]}: {part} components keep {size[:part].square().sum() / size.square().sum():.1%}")
        found.append(code / code.square().mean().sqrt())
    return torch.cat(found, 1)


class Reader(nn.Module):
    """The encoder with the linear maps that are dropped."""

    def __init__(self, s, vocabulary):
        super().__init__()
        width = s.unet.text_width
        self.text = model.build_text(s, vocabulary)
        self.both = nn.Linear(width, width)
        self.code, self.role = nn.Linear(width, width), nn.Linear(width, ROLES)
        self.heads = nn.ModuleDict({
            "colour": nn.Linear(width, len(scenes.COLOURS) + 1), "style": nn.Linear(width, len(scenes.STYLES) + 1),
            "size": nn.Linear(width, len(scenes.SIZES) + 1), "place": nn.Linear(width, len(scenes.PLACES) + 1)})

    def forward(self, ids):
        return self.text(ids, output_hidden_states=True).hidden_states[-2]


def styled(codes, scene, prompt):
    """The codes of the first and of the second object, in the prompt's style or the mean of all styles."""
    parts = codes.view(len(codes), len(scenes.STYLES), -1)
    found = [parts[o, scene.style] if prompt.style else parts[o].mean(0) for o in scene.objects]
    return torch.cat([*found, torch.zeros_like(found[0])][:2])


def last_tokens(tokenizer, prompt):
    """Where the phrases of the objects end, counted in tokens."""
    found, start = [], 0
    for name in prompt.names:
        start = prompt.text.index(name, start) + len(name)
        found.append(len(tokenizer(prompt.text[:start]).input_ids) - 2)
    return found


def main():
    s = settings.read(__doc__, until=(str, None))
    settings.torch_up(s)
    world, tokenizer = scenes.World(s), words.load(s)
    torch.manual_seed(7)
    reader, wanted = Reader(s, len(tokenizer)), codes(s, world)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=s.text.rate, betas=(0.9, 0.98), weight_decay=0.01)
    run = checkpoint.Run(s.work / "text.pt", {"reader": reader, "text": reader.text}, optimizer)
    run.stop_politely()
    end = tokenizer.eos_token_id
    while (done := checkpoint.part_done(run, s.text.samples, s.until)) < 1 and checkpoint.until(s.until) > 0:
        rng = np.random.default_rng([run.step, 10])
        found = [world.draw(rng) for _ in range(s.text.batch)]
        found = [scene for scene in found if not scene.held_out()]
        said = [prompts.sentence(world, scene, rng) for scene in found]
        ids = clip.tokens(tokenizer, [p.text for p in said], s.tokens)
        rows, columns, objects, roles = [], [], [], []
        for i, (scene, prompt) in enumerate(zip(found, said)):
            for k, column in enumerate(last_tokens(tokenizer, prompt)):
                rows.append(i)
                columns.append(min(column, s.tokens - 2))
                objects.append(scene.objects[k])
                roles.append(1 + 2 * scene.place + k if scene.is_pair else 0)
        rate = checkpoint.schedule(optimizer, s.text.rate, done, run.step, warm=100)
        with torch.autocast(s.device, torch.bfloat16):
            states = reader(ids)
            at = states[rows, columns]
            code, role = reader.code(at).float(), reader.role(at).float()
            last = states[torch.arange(len(found)), (ids == end).int().argmax(-1)]
            heads = {name: head(last).float() for name, head in reader.heads.items()}
            ending = ids == end
            both = reader.both(states[ending]).float()
        apart = (code - wanted[objects]).square().mean()
        summary = torch.stack([styled(wanted, scene, prompt) for scene, prompt in zip(found, said)])
        spread = (both - summary[ending.nonzero()[:, 0]]).square().mean()
        loss = apart + spread + 0.1 * nn.functional.cross_entropy(role, torch.tensor(roles))
        for name, logits in heads.items():
            # The last class is "left open"; the arrangement of a pair is its role.
            index = [getattr(scene, name) if getattr(p, name) and not (scene.is_pair and name in ("place", "size"))
                     else logits.shape[-1] - 1 for scene, p in zip(found, said)]
            loss = loss + 0.1 * nn.functional.cross_entropy(logits, torch.tensor(index))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        run.after(len(found))
        if run.step % 50 == 0:
            right = (torch.cdist(code.detach(), wanted).argmin(-1) == torch.tensor(objects)).float().mean()
            print(f"step {run.step} samples {run.samples} {run.seconds:.0f} s loss {loss:.3f} code {apart:.3f} "
                  f"nearest right {right:.1%} at the end {spread:.3f} rate {rate:.5f}")
    run.save()


if __name__ == "__main__":
    main()
