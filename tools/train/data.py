"""Gets the picture sets from npm and cuts them into sprites.

    tools/train/data

Writes `sprites.npz`, one array per size of `[concept, style, height, width, RGBA]` with colours multiplied by alpha, and
`concepts.json`, the names.
"""

import io
import json
import subprocess
import tarfile

import numpy as np
from PIL import Image

import colours
import settings
from concepts import code, concepts

PACKAGES = {"names": "unicode-emoji-json@0.9.0", "3d": "@lobehub/fluent-emoji-3d@1.1.0",
            "flat": "emoji-datasource-twitter@16.0.0"}
STYLES = ("3d", "flat")
PLACES = {"3d": ("package/assets/", ".webp"), "flat": ("package/img/twitter/64/", ".png")}


def package(folder, name):
    """The archive of an npm package, fetched once."""
    plain, _, version = name.rpartition("@")
    path = folder / f"{plain.replace('@', '').replace('/', '-')}-{version}.tgz"
    if not path.exists():
        subprocess.run(["npm", "pack", "--silent", name], cwd=folder, check=True)
    return path


def pictures(archive, style, wanted):
    """`{name in the set: picture}` of the wanted names."""
    before, after = PLACES[style]
    found = {}
    with tarfile.open(archive) as files:
        for member in files:
            name = member.name.removeprefix(before).removesuffix(after)
            if member.name == before + name + after and name in wanted:
                found[name] = Image.open(io.BytesIO(files.extractfile(member).read())).convert("RGBA")
    return found


def trimmed(picture):
    """Without its empty border, on a square."""
    picture = picture.crop(picture.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox())
    side = max(picture.size)
    square = Image.new("RGBA", (side, side))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def scaled(picture, side):
    """Multiplied by alpha, then made smaller by box and Lanczos filters."""
    rgba = np.asarray(picture, np.float32)
    rgba[..., :3] *= rgba[..., 3:] / 255
    planes = [Image.fromarray(rgba[..., i]).resize((side, side), Image.Resampling.LANCZOS) for i in range(4)]
    return np.clip(np.stack([np.asarray(p) for p in planes], -1), 0, 255).round().astype(np.uint8)


def main():
    s = settings.read(__doc__)
    folder = s.work / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    archives = {key: package(folder, name) for key, name in PACKAGES.items()}
    with tarfile.open(archives["names"]) as files:
        table = folder / "names.json"
        table.write_bytes(files.extractfile("package/data-by-emoji.json").read())
    listed = concepts(table, s.groups)
    wanted = {code(emoji, keep) for emoji, _ in listed for keep in (True, False)}
    sets = {style: pictures(archives[style], style, wanted) for style in STYLES}

    def picture(style, emoji):
        return sets[style].get(code(emoji, True)) or sets[style].get(code(emoji, False))

    kept = [(emoji, names) for emoji, names in listed if all(picture(style, emoji) for style in STYLES)]
    print("missing:", [names[0] for emoji, names in listed if (emoji, names) not in kept])
    every = [[trimmed(picture(style, emoji)) for style in STYLES] for emoji, _ in kept]
    arrays = {size: np.stack([np.stack([scaled(p, side) for p in row]) for row in every])
              for size, side in s.sprites.items()}
    np.savez(s.work / "sprites.npz", **arrays)
    about = [{"emoji": emoji, "names": names, "colour": colours.main(arrays["large"][i])}
             for i, (emoji, names) in enumerate(kept)]
    (s.work / "concepts.json").write_text(json.dumps(about, ensure_ascii=False, indent=1) + "\n")
    print(len(about), "concepts;", sum(a["colour"] is not None for a in about), "of one colour")


if __name__ == "__main__":
    main()
