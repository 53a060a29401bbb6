"""The world that the demo weights know: pictures of one to three shapes on a background, and captions of them.

Everything is a batch of tensors on one device. A scene is drawn at random, rendered by signed distance fields at any
resolution, and captioned as word numbers, so that training needs no strings. Lengths are parts of the picture's side,
y goes down. Nothing is downloaded; the same seed on the same device gives the same scenes.

    python world.py --draw 8 --seed 1 --out DIR               # scenes as in training
    python world.py --draw 100 --seed 9000 --out DIR --held-out  # combinations that training never sees

That writes NUMBER.png, NUMBER.json, which is what `judge --expect` reads, and prompts.txt.
"""

import argparse
import dataclasses
import functools
import json
import math
import pathlib

import torch

SIZE = 128  # pixels a side, of what the demo weights draw

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart", "crescent")
COLOURS = {
    "red": (220, 40, 40),
    "orange": (245, 130, 25),
    "yellow": (248, 212, 25),
    "green": (40, 165, 65),
    "cyan": (25, 195, 200),
    "blue": (40, 80, 220),
    "purple": (130, 50, 185),
    "pink": (248, 105, 175),
    "white": (250, 250, 250),
    "black": (25, 25, 28),
}
# The second tone of a texture: darker, but for black, which has no darker one, and white, which would be gray.
TEXTURE_TONES = {name: tuple(round(0.62 * v) for v in rgb) for name, rgb in COLOURS.items()}
TEXTURE_TONES |= {"white": (214, 214, 220), "black": (64, 64, 70)}
BACKGROUNDS = {
    "orange": (245, 200, 150),
    "yellow": (238, 226, 150),
    "green": (176, 222, 168),
    "cyan": (160, 224, 226),
    "blue": (158, 186, 236),
    "purple": (204, 176, 236),
    "pink": (242, 186, 210),
    "gray": (162, 162, 168),
}
SIZES = {"small": 0.095, "medium": 0.135, "large": 0.19}  # radius; medium goes without saying
TEXTURES = ("plain", "striped", "dotted")  # small objects are plain
PATTERNS = ("plain", "striped", "checkered", "dotted", "gradient")
RELATIONS = ("above", "below", "left", "right")  # 1 to 4 in tensors, 0 is none

PATTERN_DEPTH = {"plain": 1.0, "striped": 0.84, "checkered": 0.84, "dotted": 0.82, "gradient": 0.75}
EXTENT = 1.12  # no shape reaches further from its centre than this times its radius
MARGIN, GAP = 0.03, 0.04  # to the border, between two objects
SHADOW_OFFSET, SHADOW_SOFTNESS, SHADOW_DEPTH = (0.016, 0.024), 0.022, 0.2
SHADING = 0.06

PHRASES = {
    "above": ("above", "over"),
    "below": ("below", "under"),
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
}
# O0 to O2: an object; R1, R2: the relation of the first object to the second and third; G: the background.
TEMPLATES = {
    "one": ("O0 on G", "G with O0", "on G , O0"),
    "two_related": ("O0 R1 O1 on G", "on G , O0 R1 O1", "G with O0 R1 O1", "O1 with O0 R1 it on G"),
    "two": ("O0 and O1 on G", "G with O0 and O1"),
    "three_related": ("O0 R1 O1 and R2 O2 on G", "on G , O0 R1 O1 and R2 O2", "G with O0 R1 O1 and R2 O2"),
    "three": ("O0 , O1 and O2 on G", "G with O0 , O1 and O2"),
}
KINDS = tuple(TEMPLATES)

GRAMMAR_WORDS = "a an on with and it , background above over below under to the left right of".split()
UNSAID = {"medium", "plain"}
ADJECTIVES = [word for word in (*SIZES, *TEXTURES, *PATTERNS) if word not in UNSAID]
WORDS = ("", *dict.fromkeys((*GRAMMAR_WORDS, *COLOURS, *BACKGROUNDS, *SHAPES, *ADJECTIVES)))
WORD = {word: number for number, word in enumerate(WORDS)}

HELD_OUT_PART = 8  # one of so many combinations is never trained on


class Batch:
    """A dataclass of tensors whose first dimension counts scenes; some may be None."""

    def __len__(self):
        return len(self.fields()[0])

    def __getitem__(self, index):
        return type(self)(*(None if value is None else value[index] for value in self.fields()))

    def fields(self):
        return [getattr(self, field.name) for field in dataclasses.fields(self)]

    def set(self, index, scenes):
        """Replaces the scenes at `index`."""
        for mine, other in zip(self.fields(), scenes.fields()):
            if mine is not None:
                mine[index] = other


@dataclasses.dataclass
class Scenes(Batch):
    """B scenes of up to three objects. Places beyond `count` hold objects that are not drawn."""

    count: torch.Tensor  # [B] 1 to 3
    shape: torch.Tensor  # [B, 3] of SHAPES; likewise the next three
    colour: torch.Tensor
    size: torch.Tensor
    texture: torch.Tensor
    relation: torch.Tensor  # [B, 2] of the first object to the second and to the third: 0 or 1 + RELATIONS
    ground: torch.Tensor  # [B] of BACKGROUNDS
    pattern: torch.Tensor  # [B] of PATTERNS
    centre: torch.Tensor | None = None  # [B, 3, 2] x, y
    radius: torch.Tensor | None = None  # [B, 3]
    turn: torch.Tensor | None = None  # [B, 3] radians
    phase: torch.Tensor | None = None  # [B, 4] of the background's and the textures' patterns

    @property
    def kind(self):
        """[B] of KINDS"""
        related = self.relation[:, 0] > 0
        return torch.where(self.count == 1, 0, torch.where(self.count == 2, 2, 4) - related.long())


# ---- drawing scenes at random


@functools.lru_cache
def constant(values, device):
    """A tensor of nested tuples of numbers, copied to the device only once: copies wait for all that it has to do."""
    return torch.tensor(values, device=device)


def choice(shape, weights, generator):
    """Integers with the given weights."""
    edges = torch.tensor(weights, dtype=torch.float64).cumsum(0)
    edges = constant(tuple((edges / edges[-1])[:-1].float().tolist()), generator.device)
    return torch.bucketize(torch.rand(shape, generator=generator, device=generator.device), edges, right=True)


def uniform(shape, low, high, generator):
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def mixed(number):
    """A 31-bit hash of int64 numbers, the same everywhere."""
    for factor in (0x2C1B3C6D, 0x297A2D39, 0x1B56C4E9):
        number = (number ^ (number >> 15)) & 0x7FFFFFFF
        number = (number * factor) & 0x7FFFFFFF
    return number ^ (number >> 13)


def is_held_out(scenes):
    """[B]: whether training never sees what the caption combines.

    That is, for one object: its shape, colour and background; for two and three: shape, colour, relation (or none),
    shape and colour of any two that the caption relates. "X above Y" is the same combination as "Y below X".
    """
    things = scenes.shape * len(COLOURS) + scenes.colour
    alone = things[:, 0] * 100 + scenes.ground * 10 + scenes.pattern
    held = (mixed(alone) % HELD_OUT_PART == 0) & (scenes.count == 1)
    for other, relation in ((1, scenes.relation[:, 0]), (2, scenes.relation[:, 1])):
        first, second = things[:, 0], things[:, other]
        swap = (relation == 2) | (relation == 4) | ((relation == 0) & (first > second))
        relation = torch.where((relation == 2) | (relation == 4), relation - 1, relation)
        pair = torch.where(swap, second, first) * 1000 + torch.where(swap, first, second)
        held |= (mixed(1_000_000 + pair * 5 + relation) % HELD_OUT_PART == 0) & (scenes.count > other)
    return held


def _draw_attributes(n, generator):
    count = 1 + choice((n,), (25, 45, 30), generator)
    related = choice((n,), (20, 80), generator) * (count > 1)
    first = 1 + choice((n,), (1, 1, 1, 1), generator)
    across = torch.where(first <= 2, 3, 1) + choice((n,), (1, 1), generator)  # the other axis
    relation = torch.stack([first * related, across * related * (count == 3)], dim=1)
    size = choice((n, 3), (30, 40, 30), generator)
    return Scenes(
        count=count,
        shape=choice((n, 3), (1,) * len(SHAPES), generator),
        colour=choice((n, 3), (1,) * len(COLOURS), generator),
        size=size,
        texture=choice((n, 3), (50, 25, 25), generator) * (size > 0),
        relation=relation,
        ground=choice((n,), (1,) * len(BACKGROUNDS), generator),
        pattern=choice((n,), (40, 15, 15, 15, 15), generator),
    )


GROUND_COLOUR = tuple(list(COLOURS).index(name) if name in COLOURS else -1 for name in BACKGROUNDS)


def _is_drawable(scenes):
    """Two objects never share both shape and colour, none has the background's colour."""
    there = torch.arange(3, device=scenes.count.device) < scenes.count[:, None]
    same_ground = scenes.colour == constant(GROUND_COLOUR, scenes.count.device)[scenes.ground][:, None]
    things = scenes.shape * len(COLOURS) + scenes.colour
    bad = (same_ground & there).any(1)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        bad |= (things[:, one] == things[:, other]) & there[:, other]
    return ~bad


def _holds(offset, relation):
    """Whether `offset` [.., 2], from the second object to the first, is far on the relation's side."""
    x, y = offset.unbind(-1)
    along = torch.where(relation <= 2, y, x)
    along = torch.where((relation == 1) | (relation == 3), -along, along)
    across = torch.where(relation <= 2, x, y)
    return (relation == 0) | (along >= 1.35 * across.abs())


def _place(scenes, generator, tries=48):
    """Centres at random: of many proposals the first that fits, else a corner for each object."""
    n, device = len(scenes), generator.device
    sizes = constant(tuple(SIZES.values()), device)
    scenes.radius = sizes[scenes.size] * uniform((n, 3), 0.95, 1.05, generator)
    scenes.turn = uniform((n, 3), -0.14, 0.14, generator)
    scenes.phase = torch.rand((n, 4), generator=generator, device=device)

    reach = EXTENT * scenes.radius
    low = (MARGIN + reach)[:, None, :, None]
    centre = low + (1 - 2 * low) * torch.rand((n, tries, 3, 2), generator=generator, device=device)
    # The last proposal: the first object in a corner, the others where the relations want them.
    side = constant((0.255, 0.745), device)
    one, two = scenes.relation.unbind(1)
    vertical = torch.where(one <= 2, one, two)
    horizontal = torch.where(one <= 2, two, one)
    own = torch.stack([torch.where(horizontal == 4, 1, 0), torch.where(vertical == 2, 1, 0)], dim=1)
    over_axis = torch.where((one == 3) | (one == 4), 0, 1)  # the axis that the first two differ along
    second, third = own.clone(), own.clone()
    rows = torch.arange(n, device=device)
    second[rows, over_axis] = 1 - second[rows, over_axis]
    third[rows, 1 - over_axis] = 1 - third[rows, 1 - over_axis]
    centre[:, -1] = side[torch.stack([own, second, third], dim=1)]

    fits = torch.ones((n, tries), dtype=torch.bool, device=device)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        apart = (centre[:, :, a] - centre[:, :, b]).norm(dim=-1) >= (reach[:, a] + reach[:, b] + GAP)[:, None]
        fits &= apart | (scenes.count <= b)[:, None]
    for other in (1, 2):
        relation = scenes.relation[:, other - 1, None]
        fits &= _holds(centre[:, :, 0] - centre[:, :, other], relation.expand(-1, tries))
    fits[:, -1] = True
    first = fits.int().argmax(dim=1)
    scenes.centre = centre[rows, first]
    return scenes


def draw(n, generator, held_out=False):
    """n scenes at random, none of whose combinations is held out, or all of them of those that are."""
    scenes = _draw_attributes(n, generator)
    while True:
        wrong = (~_is_drawable(scenes) | (is_held_out(scenes) != held_out)).nonzero()[:, 0]
        if len(wrong) == 0:
            return _place(scenes, generator)
        scenes.set(wrong, _draw_attributes(len(wrong), generator))


# ---- pictures


def _distance(shape, x, y):
    """Signed distance (negative inside) of points [.., H, W] to one shape of radius 1."""
    if shape == "circle":
        return torch.hypot(x, y) - 0.95
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.8
    if shape == "triangle":
        return torch.maximum(y - 0.54, 0.5 * (math.sqrt(3) * x.abs() - y) - 0.54)
    if shape == "star":  # each of ten half arms lies under one line, from its tip to the notch
        fifth = 2 * math.pi / 5
        angle = torch.remainder(torch.atan2(x, -y) + fifth / 2, fifth) - fifth / 2
        length = torch.hypot(x, y)
        along, across = length * torch.cos(angle), length * torch.sin(angle.abs())
        tip, notch = (1.1, 0.0), (0.5 * math.cos(fifth / 2), 0.5 * math.sin(fifth / 2))
        dx, dy = notch[0] - tip[0], notch[1] - tip[1]
        return (dy * (along - tip[0]) - dx * (across - tip[1])) / math.hypot(dx, dy)
    if shape == "ring":
        return (torch.hypot(x, y) - 0.76).abs() - 0.24
    if shape == "cross":
        wide, high = x.abs(), y.abs()
        return torch.minimum(torch.maximum(wide - 0.32, high - 0.98), torch.maximum(high - 0.32, wide - 0.98))
    if shape == "heart":  # a square on its tip, and a circle on each of its upper sides
        side, y = 0.8, y + 0.1
        square = (x.abs() + y.abs() - side) / math.sqrt(2)
        return torch.minimum(square, torch.hypot(x.abs() - side / 2, y + side / 2) - side / math.sqrt(2))
    if shape == "crescent":
        return torch.maximum(torch.hypot(x, y) - 0.98, 0.74 - torch.hypot(x - 0.46, y))
    raise ValueError(f"shape {shape!r}: expected one of {SHAPES}")


def coverage(distance, resolution):
    """How much of a pixel lies within, from the distance of its middle."""
    return (0.5 - distance * resolution).clamp(0, 1)


def wave(position, period):
    """Distance of `position` to the nearest edge of bands of half a period each; negative within a band."""
    return ((position / period) % 1 - 0.5).abs() * period - period / 4


def dots(x, y, spacing, radius):
    return torch.hypot((x / spacing) % 1 - 0.5, (y / spacing) % 1 - 0.5) * spacing - radius


def tones(table, device):
    return constant(tuple(table.values()), device).float() / 255


def _pixels(resolution, device):
    """x [1, 1, W] and y [1, H, 1] of the pixels' middles"""
    middle = (torch.arange(resolution, device=device, dtype=torch.float32) + 0.5) / resolution
    return middle[None, None, :], middle[None, :, None]


def render_background(ground, pattern, phase, resolution):
    """Of Scenes' fields of those names -> [B, 3, resolution, resolution] float32"""
    device = ground.device
    x, y = _pixels(resolution, device)
    phase = phase[:, :, None, None]
    # Along x, along y or one of the diagonals.
    angle = (phase[:, 3] * 4).floor() * (math.pi / 4)
    along = x * torch.cos(angle) + y * torch.sin(angle)
    px, py = x + phase[:, 0], y + phase[:, 1]
    second = torch.zeros((len(ground), resolution, resolution), device=device)
    for name in PATTERNS[1:]:
        rows = (pattern == PATTERNS.index(name)).nonzero()[:, 0]
        if name == "striped":
            value = coverage(wave(along[rows] + phase[rows, 0], 0.2), resolution)
        elif name == "checkered":
            a, b = (coverage(wave(p[rows], 0.25), resolution) for p in (px, py))
            value = a + b - 2 * a * b
        elif name == "dotted":
            value = coverage(dots(px[rows], py[rows], 0.125, 0.036), resolution)
        else:
            value = torch.where(phase[rows, 0] < 0.5, y, 1 - y).expand(len(rows), resolution, resolution)
        second[rows] = value
    first = tones(BACKGROUNDS, device)[ground]
    depth = constant(tuple(PATTERN_DEPTH[name] for name in PATTERNS), device)[pattern]
    shade = 1 - (1 - depth)[:, None, None] * second
    return first[:, :, None, None] * shade[:, None]


def render(scenes, resolution=SIZE):
    """-> [B, 3, resolution, resolution] float32 in [0, 1], sRGB"""
    return render_objects(scenes, render_background(scenes.ground, scenes.pattern, scenes.phase, resolution))


def render_objects(scenes, picture):
    """The objects and their shadows over pictures [B, 3, resolution, resolution], the first object first."""
    device, n, places, resolution = scenes.count.device, len(scenes), scenes.shape.shape[1], picture.shape[-1]
    x, y = _pixels(resolution, device)

    # Distances of all objects, shape by shape; far outside where there is no object.
    local = torch.full((n * places, resolution, resolution), 4.0, device=device)
    there = (torch.arange(places, device=device) < scenes.count[:, None]).reshape(-1)
    centre, radius, turn = scenes.centre.reshape(-1, 2), scenes.radius.reshape(-1), scenes.turn.reshape(-1)
    for number, shape in enumerate(SHAPES):
        rows = ((scenes.shape.reshape(-1) == number) & there).nonzero()[:, 0]
        if len(rows) == 0:
            continue
        dx = (x - centre[rows, 0, None, None]) / radius[rows, None, None]
        dy = (y - centre[rows, 1, None, None]) / radius[rows, None, None]
        c, s = torch.cos(turn[rows])[:, None, None], torch.sin(turn[rows])[:, None, None]
        local[rows] = _distance(shape, c * dx + s * dy, c * dy - s * dx)
    distance = (local * radius[:, None, None]).view(n, places, resolution, resolution)

    shift = tuple(round(part * resolution) for part in (SHADOW_OFFSET[1], SHADOW_OFFSET[0]))
    shadow = (0.5 - distance.amin(dim=1).roll(shift, dims=(1, 2)) / (2 * SHADOW_SOFTNESS)).clamp(0, 1)
    shadow = shadow * shadow * (3 - 2 * shadow)
    picture = picture * (1 - SHADOW_DEPTH * shadow)[:, None]

    first, second = tones(COLOURS, device)[scenes.colour], tones(TEXTURE_TONES, device)[scenes.colour]
    for i in range(places):
        cover = coverage(distance[:, i], resolution)
        phase = scenes.phase[:, (i, i + 1), None, None]
        texture = scenes.texture[:, i, None, None]
        striped = coverage(wave(x + y + phase[:, 0], 0.1), resolution / math.sqrt(2))
        dotted = coverage(dots(x + phase[:, 0], y + phase[:, 1], 0.066, 0.019), resolution)
        second_part = torch.where(texture == 1, striped, torch.where(texture == 2, dotted, 0.0))[:, None]
        colour = torch.lerp(first[:, i, :, None, None], second[:, i, :, None, None], second_part)
        height = (y - scenes.centre[:, i, 1, None, None]) / scenes.radius[:, i, None, None]
        colour = colour * (1 - SHADING * height.clamp(-1, 1))[:, None]
        picture = torch.lerp(picture, colour, cover[:, None])
    return picture.clamp(0, 1)


def to_bytes(pictures):
    """[B, 3, H, W] in [0, 1] -> uint8 [B, H, W, 3] on the CPU"""
    return (pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu()


# ---- captions


def expanded(templates, parts):
    """The names of the word slots of each template. `parts` maps a template's words to slots; others are themselves."""
    return [
        [[slot for part in template.split() for slot in parts.get(part, ["=" + part])] for template in forms]
        for forms in templates.values()
    ]


def filled(forms, kind, template, values, words):
    """Words of all slots that are not empty: [B, longest form], 0 behind the last one.

    forms: as of `expanded`; kind, template [B]: which of them, template taken modulo the number of a kind's templates;
    values: word numbers [B] by slot; words: number by word, for slots that are words themselves
    """
    longest = max(len(slots) for kinds in forms for slots in kinds)
    result = torch.zeros((len(kind), longest), dtype=torch.long, device=kind.device)
    values = values | {"=" + word: torch.full_like(kind, number) for word, number in words.items()}
    for number, of_kind in enumerate(forms):
        for i, slots in enumerate(of_kind):
            chosen = (kind == number) & (template % len(of_kind) == i)
            row = torch.stack([values[slot] for slot in slots], dim=1)
            result[:, : len(slots)] = torch.where(chosen[:, None], row, result[:, : len(slots)])
    order = (result == 0).int().sort(dim=1, stable=True).indices
    return result.gather(1, order)


def article(colour, is_first, words):
    """Numbers of "a" or "an" before a colour, which may have an adjective before it."""
    return torch.where(is_first & (colour == words["orange"]), words["an"], words["a"])


def phrase_table(phrases, words, device):
    """Words of each wording of each phrase: [1 + phrases, wordings, longest], 0 where there is none"""
    split = [[wording.split() for wording in wordings] for wordings in phrases.values()]
    longest = max(len(wording) for wordings in split for wording in wordings)
    numbers = lambda wording: (*(words[word] for word in wording), *(0,) * (longest - len(wording)))
    none = tuple(numbers([]) for _ in split[0])
    return constant((none, *(tuple(numbers(wording) for wording in wordings) for wordings in split)), device)


_PARTS = {f"O{i}": [f"{slot}{i}" for slot in ("article", "size", "texture", "colour", "shape")] for i in range(3)}
_PARTS |= {f"R{i}": [f"relation{i}.{k}" for k in range(4)] for i in (1, 2)}
_PARTS["G"] = ["ground_article", "pattern", "ground", "=background"]
_FORMS = expanded(TEMPLATES, _PARTS)
CAPTION_LENGTH = max(len(slots) for forms in _FORMS for slots in forms)  # words at most


def captions(scenes, template, phrase):
    """Captions as numbers of WORDS: [B, CAPTION_LENGTH], 0 behind the last word.

    `template` [B] is any number, taken modulo the number of templates that fit; `phrase` [B, 2] is 0 or 1, the wording
    of each relation.
    """
    device = scenes.count.device
    numbers = lambda names: constant(tuple(0 if name in UNSAID else WORD[name] for name in names), device)
    values = {}
    for i in range(3):
        size, texture = numbers(SIZES)[scenes.size[:, i]], numbers(TEXTURES)[scenes.texture[:, i]]
        colour = numbers(COLOURS)[scenes.colour[:, i]]
        shape = numbers(SHAPES)[scenes.shape[:, i]]
        values |= {f"size{i}": size, f"texture{i}": texture, f"colour{i}": colour, f"shape{i}": shape}
        values[f"article{i}"] = article(colour, (size == 0) & (texture == 0), WORD)
    values["pattern"] = numbers(PATTERNS)[scenes.pattern]
    values["ground"] = numbers(BACKGROUNDS)[scenes.ground]
    values["ground_article"] = article(values["ground"], values["pattern"] == 0, WORD)
    phrases = phrase_table(PHRASES, WORD, device)
    for other in (1, 2):
        words = phrases[scenes.relation[:, other - 1], phrase[:, other - 1]]
        values |= {f"relation{other}.{k}": words[:, k] for k in range(4)}
    return filled(_FORMS, scenes.kind, template, values, WORD)


def draw_captions(scenes, generator):
    """Captions of random wording, as `captions` gives them."""
    n, device = len(scenes), generator.device
    template = torch.randint(0, 12, (n,), generator=generator, device=device)  # 12: of 2, 3 and 4 templates alike
    return captions(scenes, template, torch.randint(0, 2, (n, 2), generator=generator, device=device))


def text_of(words, vocabulary=WORDS):
    """Numbers of a vocabulary's words -> "a red circle above ..." """
    return " ".join(vocabulary[number] for number in words.tolist() if number).replace(" ,", ",")


def describe(scenes, i, prompt):
    """Scene i as JSON: what must be seen in a picture of `prompt`."""
    name = lambda table, number: list(table)[int(number)]
    count = int(scenes.count[i])
    objects = [
        {
            "shape": name(SHAPES, scenes.shape[i, j]),
            "colour": name(COLOURS, scenes.colour[i, j]),
            "size": name(SIZES, scenes.size[i, j]),
            "texture": name(TEXTURES, scenes.texture[i, j]),
        }
        for j in range(count)
    ]
    relations = [
        {"subject": 0, "relation": RELATIONS[int(number) - 1], "object": other}
        for other, number in enumerate(scenes.relation[i], start=1)
        if number > 0
    ]
    background = {"colour": name(BACKGROUNDS, scenes.ground[i]), "pattern": name(PATTERNS, scenes.pattern[i])}
    return {"prompt": prompt, "objects": objects, "relations": relations, "background": background}


def held_out(n, seed):
    """n prompts of combinations that training never sees -> (prompts, descriptions, scenes), on the CPU"""
    return drawn(n, torch.Generator().manual_seed(seed), held_out=True)


def drawn(n, generator, held_out=False):
    """n scenes -> (prompts, descriptions, scenes)"""
    scenes = draw(n, generator, held_out)
    prompts = [text_of(words) for words in draw_captions(scenes, generator)]
    return prompts, [describe(scenes, i, prompt) for i, prompt in enumerate(prompts)], scenes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", type=int, required=True, metavar="N", help="how many scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="directory to write to")
    parser.add_argument("--size", type=int, default=SIZE, help="pixels a side")
    parser.add_argument("--held-out", action="store_true", help="only combinations that training never sees")
    options = parser.parse_args()

    from PIL import Image

    options.out.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(options.seed)
    prompts, descriptions, scenes = drawn(options.draw, generator, options.held_out)
    (options.out / "prompts.txt").write_text("".join(prompt + "\n" for prompt in prompts))
    for i, description in enumerate(descriptions):
        pixels = to_bytes(render(scenes[i : i + 1], options.size))[0]
        Image.fromarray(pixels.numpy()).save(options.out / f"{i:04}.png")
        (options.out / f"{i:04}.json").write_text(json.dumps(description, indent=1) + "\n")


if __name__ == "__main__":
    main()
