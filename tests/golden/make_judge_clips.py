"""Writes data/judge/clips.png, clips that examples/models/moving_world.py draws, a row of frames each, and clips.json,
what is in them."""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "examples" / "models"))

import moving_world as world  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402


def main():
    torch.set_num_threads(1)
    _, trained, clips = world.drawn(10, torch.Generator().manual_seed(2102))
    _, held_out, others = world.held_out(4, 2102)
    frames = torch.cat([world.frames_of(world.render(clips)), world.frames_of(world.render(others))])
    rows, columns, side = frames.shape[:3]
    sheet = frames.permute(0, 2, 1, 3, 4).reshape(rows * side, columns * side, 3)
    directory = HERE / "data" / "judge"
    directory.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet.numpy()).save(directory / "clips.png", optimize=True)
    lines = ",\n".join(json.dumps(description) for description in trained + held_out)
    text = f'{{"side": {side}, "frames": {columns}, "clips": [\n{lines}\n]}}\n'
    (directory / "clips.json").write_text(text)


if __name__ == "__main__":
    main()
