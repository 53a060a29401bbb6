"""The world that Wan's demo weights know: a shape that moves for two seconds, perhaps past one that stands still.

As world.py, whose shapes, colours and backgrounds these are: clips are drawn at random in batches of tensors on one
device, rendered at any resolution and captioned as word numbers. Drawing never waits for the device.

    python moving_world.py --draw 8 --seed 1 --out DIR               # clips as in training
    python moving_world.py --draw 100 --seed 9000 --out DIR --held-out  # combinations that training never sees

That writes NUMBER/%04d.png, NUMBER.json, which is what `judge --expect` reads, and prompts.txt.
"""

import argparse
import dataclasses
import functools
import json
import pathlib

import torch
import world
from world import BACKGROUNDS, COLOURS, PATTERNS

SIZE = 96  # pixels a side
FRAMES = 17  # one more than a multiple of 4, as Wan wants it
FRAMES_PER_SECOND = 8

SHAPES = tuple("ball" if shape == "circle" else shape for shape in world.SHAPES)
SIZES = {"medium": 0.135, "large": 0.18}  # radius; medium goes without saying
MOTIONS = ("left", "right", "up", "down", "bounce")
ORDERS = ("behind", "in front")  # of what stands still; 1 and 2 in tensors, 0 is that nothing does
BOUNCE = MOTIONS.index("bounce")  # on a floor; all others are before a background

HORIZON, GROUNDED = 0.72, 0.87  # where the floor begins, and where things touch it
FLOOR_DEPTH = 0.9
BOTTOMS = (0.95, 0.8, 0.54, 0.89, 1.0, 0.98, 0.9, 0.98)  # how far each shape of radius 1 reaches down
PERIOD = 12  # frames from one bounce to the next

PHRASES = {
    "left": ("moves left", "moves to the left"),
    "right": ("moves right", "moves to the right"),
    "up": ("moves up", "rises"),
    "down": ("moves down", "falls"),
    "bounce": ("bounces", "bounces up and down"),
}
ORDER_PHRASES = {"behind": ("behind",), "in front": ("in front of",)}
# O0: what moves, M: how, R: in which order, O1: past what, G: the background, F: the floor.
TEMPLATES = {
    "alone": ("O0 M on G", "on G , O0 M"),
    "past": ("O0 M R O1 on G", "on G , O0 M R O1"),
    "bounce": ("O0 M on F", "on F , O0 M"),
}

GRAMMAR_WORDS = (
    "a an on , background floor large moves rises falls bounces left right up down and to the behind in front of"
).split()
ADJECTIVES = [name for name in PATTERNS if name not in world.UNSAID]
WORDS = ("", *dict.fromkeys((*GRAMMAR_WORDS, *COLOURS, *BACKGROUNDS, *SHAPES, *ADJECTIVES)))
WORD = {word: number for number, word in enumerate(WORDS)}


@dataclasses.dataclass
class Clips(world.Batch):
    """B clips. Object 0 moves; object 1 stands still, and is not there where `order` is 0."""

    shape: torch.Tensor  # [B, 2] of SHAPES; likewise the next two
    colour: torch.Tensor
    size: torch.Tensor
    motion: torch.Tensor  # [B] of MOTIONS
    order: torch.Tensor  # [B] 0 or 1 + ORDERS
    ground: torch.Tensor  # [B] of BACKGROUNDS
    pattern: torch.Tensor  # [B] of PATTERNS
    centre: torch.Tensor | None = None  # [B, FRAMES, 2 objects, 2] x, y
    radius: torch.Tensor | None = None  # [B, 2]
    turn: torch.Tensor | None = None  # [B, 2] radians
    phase: torch.Tensor | None = None  # [B, 4] of the ground's pattern

    def said(self):
        """The clips without what no caption says."""
        return dataclasses.replace(self, centre=None, radius=None, turn=None, phase=None)


# ---- drawing clips at random


@functools.lru_cache
def combinations(held_out, device):
    """Rows of shape, colour and motion of what moves: those that training sees, or those that it never does."""
    all_of_them = torch.cartesian_prod(*(torch.arange(len(names)) for names in (SHAPES, COLOURS, MOTIONS)))
    shape, colour, motion = all_of_them.unbind(1)
    number = 2_000_000 + (shape * len(COLOURS) + colour) * len(MOTIONS) + motion
    held = world.mixed(number) % world.HELD_OUT_PART == 0
    return all_of_them[held == held_out].to(device)


def ground_of_colour(device):
    """[COLOURS] the background of the same name, or one behind the last"""
    names = list(BACKGROUNDS)
    return world.constant(tuple(names.index(name) if name in names else len(names) for name in COLOURS), device)


def _below(limit, generator):
    """Integers from 0 up to `limit` [n], which is not reached."""
    part = torch.rand(limit.shape, generator=generator, device=generator.device)
    return torch.minimum((part * limit).long(), limit - 1)


def _other_than(taken, count, generator):
    """Integers below `count` [n], none that is taken [n, k]; numbers that are taken are different, or not below it."""
    number = _below(count - (taken < count).sum(dim=1), generator)
    for each in taken.sort(dim=1).values.unbind(1):
        number = number + (number >= each)
    return number


def draw(n, generator, held_out=False):
    """n clips at random, none of whose combinations is held out, or all of them of those that are."""
    device = generator.device
    known = combinations(held_out, device)
    shape, colour, motion = known[_below(torch.full((n,), len(known), device=device), generator)].unbind(1)
    own = ground_of_colour(device)
    ground = _other_than(own[colour][:, None], len(BACKGROUNDS), generator)
    # What stands still has neither the colour of what moves nor the background's.
    same = (own[None, :] == ground[:, None]).int()
    same = torch.where(same.any(dim=1), same.argmax(dim=1), len(COLOURS))
    still_colour = _other_than(torch.stack([colour, same], dim=1), len(COLOURS), generator)
    order = world.choice((n,), (46, 27, 27), generator) * (motion != BOUNCE)
    large = world.choice((n,), (65, 35), generator) * (order == 0)
    clips = Clips(
        shape=torch.stack([shape, world.choice((n,), (1,) * len(SHAPES), generator)], dim=1),
        colour=torch.stack([colour, still_colour], dim=1),
        size=torch.stack([large, torch.zeros_like(large)], dim=1),
        motion=motion,
        order=order,
        ground=ground,
        pattern=world.choice((n,), (36, 16, 16, 16, 16), generator),
    )
    return _place(clips, generator)


def _place(clips, generator):
    n, device = len(clips), generator.device
    sizes = world.constant(tuple(SIZES.values()), device)
    clips.radius = sizes[clips.size] * world.uniform((n, 2), 0.95, 1.05, generator)
    clips.turn = world.uniform((n, 2), -0.14, 0.14, generator)
    clips.phase = torch.rand((n, 4), generator=generator, device=device)
    time = torch.linspace(0, 1, FRAMES, device=device)

    # Straight: through most of the room along one axis; past something, which is then in the middle, through all of it.
    low = world.MARGIN + world.EXTENT * clips.radius[:, 0]
    room = 1 - 2 * low
    past = clips.order > 0
    way = room * torch.where(past, 1.0, world.uniform((n,), 0.75, 1.0, generator))
    begin = low + (room - way) * torch.rand((n,), generator=generator, device=device)
    back = (clips.motion == MOTIONS.index("left")) | (clips.motion == MOTIONS.index("up"))
    along = begin[:, None] + way[:, None] * torch.where(back[:, None], 1 - time, time)
    across = low + room * torch.rand((n,), generator=generator, device=device)
    vertical = (clips.motion == MOTIONS.index("up")) | (clips.motion == MOTIONS.index("down"))
    straight = torch.stack([along, across[:, None].expand(-1, FRAMES)], dim=2)
    straight = torch.where(vertical[:, None, None], straight.flip(2), straight)

    # Bouncing: begins near the top, so that a clip shows a fall, a bounce and a rise.
    bottom = world.constant(BOTTOMS, device)[clips.shape[:, 0]] * clips.radius[:, 0]
    height = (GROUNDED - bottom - low) * world.uniform((n,), 0.75, 1.0, generator)
    part = 0.5 + world.uniform((n, 1), -0.15, 0.15, generator) + time * ((FRAMES - 1) / PERIOD)
    arc = 1 - (2 * (part % 1) - 1) ** 2
    y = (GROUNDED - bottom)[:, None] - height[:, None] * arc
    bouncing = torch.stack([across[:, None].expand(-1, FRAMES), y], dim=2)
    moving = torch.where((clips.motion == BOUNCE)[:, None, None], bouncing, straight)

    middle = torch.stack([torch.full_like(across, 0.5), across], dim=1)
    middle = middle + torch.stack(
        [world.uniform((n,), -0.04, 0.04, generator), world.uniform((n,), -0.05, 0.05, generator)], dim=1
    )
    still_low = world.MARGIN + world.EXTENT * clips.radius[:, 1:]
    middle = middle.clamp(min=still_low, max=1 - still_low)
    still = torch.where(vertical[:, None], middle.flip(1), middle)
    clips.centre = torch.stack([moving, still[:, None].expand(-1, FRAMES, -1)], dim=2)
    return clips


# ---- frames


def _floored(clips, picture):
    """Under the horizon a floor, the background's pattern in its own scale; above it a plain wall."""
    n, _, resolution, _ = picture.shape
    device = picture.device
    middle = (torch.arange(resolution, device=device, dtype=torch.float32) + 0.5) / resolution
    x, y = middle[None, None, :], middle[None, :, None]
    px, py = x + clips.phase[:, 0, None, None], y - HORIZON
    a, b = (world.coverage(world.wave(p, 0.18), resolution) for p in (px, py))
    value = torch.stack(
        [
            torch.zeros_like(px).expand(n, resolution, resolution),
            a.expand(n, resolution, resolution),
            a + b - 2 * a * b,
            world.coverage(world.dots(px, py, 0.14, 0.036), resolution),
            (py / (1 - HORIZON)).clamp(0, 1).expand(n, resolution, resolution),
        ],
        dim=1,
    )
    value = value.gather(1, clips.pattern[:, None, None, None].expand(-1, 1, resolution, resolution))[:, 0]
    depth = world.constant(tuple(world.PATTERN_DEPTH[name] for name in PATTERNS), device)[clips.pattern]
    floor = FLOOR_DEPTH * (1 - (1 - depth)[:, None, None] * value)
    light = torch.lerp(torch.ones_like(floor), floor, world.coverage(-py, resolution))
    tone = world.tones(BACKGROUNDS, device)[clips.ground][:, :, None, None]
    return torch.where((clips.motion == BOUNCE)[:, None, None, None], tone * light[:, None], picture)


def render(clips, resolution=SIZE):
    """-> [B, 3, FRAMES, resolution, resolution] float32 in [0, 1], sRGB"""
    n, device = len(clips), clips.motion.device
    count = 1 + (clips.order > 0).long()
    # What is in front comes last.
    places = torch.where(clips.order == 1, 0, 1)[:, None] * (count == 2)[:, None] ^ torch.arange(2, device=device)
    rows = torch.arange(n, device=device)[:, None]
    each = lambda value: value[rows, places].repeat_interleave(FRAMES, dim=0)
    time = torch.arange(FRAMES, device=device)[None, :, None]
    frames = world.Scenes(
        count=count.repeat_interleave(FRAMES),
        shape=each(clips.shape),
        colour=each(clips.colour),
        size=each(clips.size),
        texture=torch.zeros((n * FRAMES, 2), dtype=torch.long, device=device),
        relation=torch.zeros((n * FRAMES, 2), dtype=torch.long, device=device),
        ground=clips.ground.repeat_interleave(FRAMES),
        pattern=clips.pattern.repeat_interleave(FRAMES),
        centre=clips.centre[rows[:, :, None], time, places[:, None]].reshape(n * FRAMES, 2, 2),
        radius=each(clips.radius),
        turn=each(clips.turn),
        phase=clips.phase.repeat_interleave(FRAMES, dim=0),
    )
    background = _floored(clips, world.render_background(clips.ground, clips.pattern, clips.phase, resolution))
    pictures = world.render_objects(frames, background.repeat_interleave(FRAMES, dim=0))
    return pictures.view(n, FRAMES, 3, resolution, resolution).transpose(1, 2)


# ---- captions

_PARTS = {f"O{i}": [f"{slot}{i}" for slot in ("article", "size", "colour", "shape")] for i in range(2)}
_PARTS |= {"M": [f"motion.{k}" for k in range(4)], "R": [f"order.{k}" for k in range(3)]}
_PARTS["G"] = ["ground_article", "pattern", "ground", "=background"]
_PARTS["F"] = ["ground_article", "pattern", "ground", "=floor"]
_FORMS = world.expanded(TEMPLATES, _PARTS)
CAPTION_LENGTH = max(len(slots) for forms in _FORMS for slots in forms)  # words at most


def captions(clips, template, phrase):
    """Captions as numbers of WORDS: [B, CAPTION_LENGTH], 0 behind the last word.

    `template` [B] is any number, taken modulo the number of templates that fit; `phrase` [B] is 0 or 1, the wording of
    the motion.
    """
    device = clips.motion.device
    numbers = lambda names: world.constant(tuple(WORD.get(name, 0) for name in names), device)
    values = {"pattern": numbers(PATTERNS)[clips.pattern], "ground": numbers(BACKGROUNDS)[clips.ground]}
    values["ground_article"] = world.article(values["ground"], values["pattern"] == 0, WORD)
    for i in range(2):
        size, colour = numbers(SIZES)[clips.size[:, i]], numbers(COLOURS)[clips.colour[:, i]]
        values |= {f"size{i}": size, f"colour{i}": colour, f"shape{i}": numbers(SHAPES)[clips.shape[:, i]]}
        values[f"article{i}"] = world.article(colour, size == 0, WORD)
    motion = world.phrase_table(PHRASES, WORD, device)[1 + clips.motion, phrase]
    order = world.phrase_table(ORDER_PHRASES, WORD, device)[clips.order, 0]
    values |= {f"motion.{k}": motion[:, k] for k in range(4)} | {f"order.{k}": order[:, k] for k in range(3)}
    kind = torch.where(clips.motion == BOUNCE, 2, (clips.order > 0).long())
    return world.filled(_FORMS, kind, template, values, WORD)


def draw_captions(clips, generator):
    """Captions of random wording, as `captions` gives them."""
    template, phrase = torch.randint(0, 2, (2, len(clips)), generator=generator, device=generator.device)
    return captions(clips, template, phrase)


def text_of(words):
    """Numbers of WORDS [CAPTION_LENGTH] -> "a red ball bounces ..." """
    return world.text_of(words, WORDS)


def describe(clips, i, prompt):
    """Clip i as JSON: what must be seen in a video of `prompt`."""
    name = lambda table, number: list(table)[int(number)]
    objects = [
        {
            "shape": name(SHAPES, clips.shape[i, j]),
            "colour": name(COLOURS, clips.colour[i, j]),
            "size": name(SIZES, clips.size[i, j]),
        }
        for j in range(2)
    ]
    order = int(clips.order[i])
    ground = {
        "kind": "floor" if clips.motion[i] == BOUNCE else "background",
        "colour": name(BACKGROUNDS, clips.ground[i]),
        "pattern": name(PATTERNS, clips.pattern[i]),
    }
    description = {"prompt": prompt, "moving": objects[0] | {"motion": name(MOTIONS, clips.motion[i])}}
    if order:
        description["still"] = objects[1]
        description["order"] = ORDERS[order - 1]
    return description | {"ground": ground}


def held_out(n, seed):
    """n prompts of combinations that training never sees -> (prompts, descriptions, clips), on the CPU"""
    return drawn(n, torch.Generator().manual_seed(seed), held_out=True)


def drawn(n, generator, held_out=False):
    """n clips -> (prompts, descriptions, clips)"""
    clips = draw(n, generator, held_out)
    prompts = [text_of(words) for words in draw_captions(clips, generator)]
    return prompts, [describe(clips, i, prompt) for i, prompt in enumerate(prompts)], clips


def frames_of(videos):
    """[B, 3, FRAMES, H, W] in [0, 1] -> uint8 [B, FRAMES, H, W, 3] on the CPU"""
    n, _, frames, height, width = videos.shape
    return world.to_bytes(videos.transpose(1, 2).flatten(0, 1)).view(n, frames, height, width, 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", type=int, required=True, metavar="N", help="how many clips")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="directory to write to")
    parser.add_argument("--size", type=int, default=SIZE, help="pixels a side")
    parser.add_argument("--held-out", action="store_true", help="only combinations that training never sees")
    options = parser.parse_args()

    from PIL import Image

    options.out.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(options.seed)
    prompts, descriptions, clips = drawn(options.draw, generator, options.held_out)
    (options.out / "prompts.txt").write_text("".join(prompt + "\n" for prompt in prompts))
    for i, description in enumerate(descriptions):
        directory = options.out / f"{i:04}"
        directory.mkdir(exist_ok=True)
        for number, pixels in enumerate(frames_of(render(clips[i : i + 1], options.size))[0]):
            Image.fromarray(pixels.numpy()).save(directory / f"{number:04}.png")
        (options.out / f"{i:04}.json").write_text(json.dumps(description, indent=1) + "\n")


if __name__ == "__main__":
    main()
