"""Writes `testdata/clip`: a tiny CLIP with both towers, and what it says of two pictures.

    tools/.venv/bin/python tools/reference/clip.py

The folder is as transformers saves it; `golden/tensors/clip.safetensors` has the inputs, every
layer's hidden state of the vision tower, the embeddings and the logits.
"""

import numpy as np
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

import alive
import golden
import layout
import vocabulary

OUT = golden.DATA / "clip"
PROMPTS = ["a photo of a cat", "a castle floating in the clouds", "山水画"]


def config():
    text = {"vocab_size": vocabulary.SIZE, "hidden_size": 24, "intermediate_size": 48,
            "num_attention_heads": 3, "num_hidden_layers": 2, "hidden_act": "quick_gelu",
            "bos_token_id": vocabulary.SIZE - 2, "eos_token_id": vocabulary.SIZE - 1}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4,
              "num_hidden_layers": 3, "image_size": 32, "patch_size": 8, "hidden_act": "quick_gelu"}
    return transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)


def save(model):
    model.config.save_pretrained(OUT)
    tensors = {name: tensor.detach().half() if name != "logit_scale" else tensor.detach()
               for name, tensor in model.state_dict().items()}
    layout.write(OUT, "model", tensors)
    again = transformers.CLIPModel.from_pretrained(OUT, dtype=torch.float32).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


def judged(model, tokenizer):
    """A picture that has to be made smaller and cut, and how well two prompts fit it."""
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor.save_pretrained(OUT)
    y, x, c = np.mgrid[0:50, 0:70, 0:3]
    picture = ((x * 5 + y * 3 * (c + 1) + 40 * np.sin(x / 6.0) * np.cos(y / 5.0 + c)) % 256).astype(np.uint8)
    pixels = processor(Image.fromarray(picture), return_tensors="pt").pixel_values
    ids = tokenizer(PROMPTS[:2], padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    answer = model(input_ids=ids, pixel_values=pixels)
    return {"judge.picture": torch.from_numpy(picture).float(),
            "judge.similarity": answer.logits_per_image[0] / model.logit_scale.exp()}


@torch.no_grad()
def main():
    golden.quiet()
    vocabulary.write(OUT)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(OUT)
    generator = torch.Generator().manual_seed(21)
    model = transformers.CLIPModel(config()).eval()
    alive.draw(model, generator)
    model.logit_scale.data.fill_(2.6592)
    call = {"input_ids": tokenizer(PROMPTS, padding="max_length", max_length=77, truncation=True,
                                   return_tensors="pt").input_ids,
            "pixel_values": torch.randn((2, 3, 32, 32), generator=generator)}

    def run():
        return model(**call)

    alive.settle(model, run)
    for name, parameter in model.named_parameters():
        if name != "logit_scale":
            parameter.data.copy_(parameter.data.half().float())
    alive.check(model, run, "clip")
    save(model)
    answer = run()
    vision = model.vision_model(pixel_values=call["pixel_values"], output_hidden_states=True)
    found = {"input_ids": call["input_ids"].to(torch.int32), "pixel_values": call["pixel_values"],
             "vision.last_hidden_state": vision.last_hidden_state,
             "vision.pooled": vision.pooler_output,
             "image_embeds": answer.image_embeds, "text_embeds": answer.text_embeds,
             "logits_per_image": answer.logits_per_image}
    found |= {f"vision.hidden_states.{i}": state for i, state in enumerate(vision.hidden_states)}
    found |= judged(model, tokenizer)
    print("logits", answer.logits_per_image)
    path = golden.OUT / "tensors" / "clip.safetensors"
    save_file({name: tensor.clone().contiguous() for name, tensor in found.items()}, path)
    print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
