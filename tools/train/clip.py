"""Trains the two-tower CLIP on pictures and their sentences.

    tools/train/clip [--until HH:MM]

Its text tower is the pipeline's second text encoder.
"""

import numpy as np
import torch
from transformers import CLIPConfig, CLIPModel

import checkpoint
import device
import prompts
import scenes
import settings
import tokenizer as words

# Of pixels, as CLIP's image processor has them in its settings.
MEAN = DEVIATION = 0.5


def text_config(s, width, layers, vocabulary):
    return {"vocab_size": vocabulary, "hidden_size": width, "intermediate_size": 4 * width,
            "num_attention_heads": width // 32, "num_hidden_layers": layers, "hidden_act": "quick_gelu",
            "max_position_embeddings": s.tokens, "bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1,
            "pad_token_id": vocabulary - 1, "projection_dim": s.clip.projection}


def build(s, vocabulary):
    width = s.clip.vision_width
    return CLIPModel(CLIPConfig(
        text_config=text_config(s, s.clip.text_width, s.clip.text_layers, vocabulary),
        vision_config={"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 32,
                       "num_hidden_layers": s.clip.vision_layers, "hidden_act": "quick_gelu",
                       "image_size": s.picture, "patch_size": s.clip.patch, "projection_dim": s.clip.projection},
        projection_dim=s.clip.projection))


def load(s):
    model = build(s, len(words.load(s)))
    checkpoint.Run(s.work / "clip.pt", {"model": model})
    return model.eval().requires_grad_(False)


def tokens(tokenizer, texts, length):
    ids = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
    return device.here(ids)


def draw(world, indices, rng, held_out=False):
    found = [world.scene(int(i), held_out) for i in indices]
    texts = [prompts.sentence(world, scene, rng, leave_open=0.1).text for scene in found]
    return scenes.tensor([world.render(scene) for scene in found]), texts


@torch.no_grad()
def check(s, model, world, tokenizer):
    """How often a held-out picture's own sentence is the best of 256."""
    pictures, texts = draw(world, range(256), np.random.default_rng(3), held_out=True)
    logits = model(input_ids=tokens(tokenizer, texts, s.tokens), pixel_values=pictures).logits_per_image
    own = torch.tensor([[a == b for b in texts] for a in texts])
    right = own[torch.arange(len(texts)), logits.argmax(-1)].float().mean()
    print(f"held out: right sentence of 256 in {right:.1%}")


def main():
    s = settings.read(__doc__, until=(str, None))
    settings.torch_up(s)
    world, tokenizer = scenes.World(s), words.load(s)
    torch.manual_seed(3)
    model = build(s, len(tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=s.clip.rate, weight_decay=0.02, betas=(0.9, 0.98))
    run = checkpoint.Run(s.work / "clip.pt", {"model": model}, optimizer)
    run.stop_politely()
    print(sum(p.numel() for p in model.parameters()), "parameters")
    while (done := checkpoint.part_done(run, s.clip.samples, s.until)) < 1 and checkpoint.until(s.until) > 0:
        rng = np.random.default_rng([run.step, 3])
        pictures, texts = draw(world, run.samples + np.arange(s.clip.batch), rng)
        rate = checkpoint.schedule(optimizer, s.clip.rate, done, run.step, warm=50)
        with settings.narrow(s):
            logits = model(input_ids=tokens(tokenizer, texts, s.tokens), pixel_values=pictures).logits_per_text.float()
        target = torch.arange(len(texts))
        loss = (torch.nn.functional.cross_entropy(logits, target)
                + torch.nn.functional.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))
        run.after(s.clip.batch)
        if run.step % 50 == 0:
            print(f"step {run.step} samples {run.samples} {run.seconds:.0f} s loss {loss:.3f} rate {rate:.5f}")
        if run.step % 200 == 0:
            check(s, model, world, tokenizer)
    run.save()
    check(s, model, world, tokenizer)


if __name__ == "__main__":
    main()
