"""Writes data/judge/: pictures that examples/models/world.py draws, on one sheet, and what is in them."""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "examples" / "models"))

import torch  # noqa: E402
import world  # noqa: E402
from PIL import Image  # noqa: E402

COLUMNS, ROWS = 10, 6


def main():
    torch.set_num_threads(1)
    _, trained, scenes = world.drawn(40, torch.Generator().manual_seed(2026))
    _, held_out, others = world.held_out(20, 2026)
    pictures = torch.cat([world.to_bytes(world.render(scenes)), world.to_bytes(world.render(others))])
    side = world.SIZE
    sheet = pictures.view(ROWS, COLUMNS, side, side, 3).permute(0, 2, 1, 3, 4).reshape(ROWS * side, COLUMNS * side, 3)
    directory = HERE / "data" / "judge"
    directory.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet.numpy()).save(directory / "pictures.png", optimize=True)
    lines = ",\n".join(json.dumps(description) for description in trained + held_out)
    (directory / "descriptions.json").write_text(f'{{"side": {side}, "columns": {COLUMNS}, "pictures": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
