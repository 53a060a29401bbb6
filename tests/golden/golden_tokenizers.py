"""Tiny tokenizers like FLUX's two, CLIP's byte-level BPE and T5's SentencePiece unigram model, and like Wan's UMT5."""

import io
import json
import pathlib
import shutil

CORPUS = """a photo of an astronaut riding a horse on mars
a tiny robot painting a sunset over the ocean, oil on canvas
a cat holding a sign that says hello world
the quick brown fox jumps over the lazy dog
two small houses by the river in the morning light, very detailed
an old map of the city, 1897, ink and watercolour
a cup of coffee on a wooden table next to an open window
portrait of a woman with red hair and green eyes, studio lighting, 85mm
don't stop; it's the dog's ball and we're sure they'll find what I've lost, I'd say
a dragon flying over the mountains at night, stars and a full moon
the ocean at dawn, waves and rocks, long exposure, high contrast
an astronaut in the forest, walking between giant mushrooms
crème brûlée at a café in Zürich, naïve façade, jalapeño, smörgåsbord
Straße, Übergröße, Ångström, œuvre, Łódź, señor, façade, déjà vu
кошка сидит на окне и смотрит на улицу
猫が窓の外を見ている、静かな朝
一只猫坐在窗台上看着外面的雨
고양이가 창밖을 보고 있다
a robot and a cat and a dog and a horse in a row
100 red balloons, 42 blue kites and 7 green lanterns in the sky
a city street in the rain at night, neon signs, reflections, cinematic
soft light, warm colours, shallow depth of field, 35mm film
a painting in the style of the old masters, dark background
a bowl of fruit: apples, pears, grapes & oranges (still life)
an owl reading a book under a lamp, cosy, storybook illustration
a sailing ship in a storm, lightning, dramatic clouds
a garden with roses, lavender and a stone path leading to a door
the library of the future, glass shelves, floating books
an elephant in the room - literally, on a sofa, watching television
simple line drawing of a bicycle leaning against a wall
🙂 a smiling face, 🚀 a rocket to the moon
a watercolour of a lighthouse on a cliff, gulls in the wind
close-up of a bee on a yellow flower, macro photograph
snow on the roofs of a small village, smoke from the chimneys
a train crossing a bridge over a deep valley, autumn leaves
A Photo of the Old City at Night. Two Robots and a Cat. In the Morning, the Light is soft.
STOP! A sign says: HELLO WORLD. Mars, Zurich, London, New York, Tokyo, Paris
An Owl, a Horse and a Dragon Fly Over Every Garden; Keep Quiet, Just Breathe. Why? Unknown. XVII
""".splitlines()

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
CLIP_LENGTH = 77
CLIP_MERGES = 220
T5_PIECES = 320
T5_EXTRA_IDS = 100
UMT5_EXTRA_IDS = 24

# What transformers 4 writes beside vocab.json and merges.txt.
_CLIP_SPECIAL = {
    "bos_token": {
        "content": BEGIN,
        "lstrip": False,
        "normalized": True,
        "rstrip": False,
        "single_word": False,
    },
    "eos_token": {"content": END, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False},
    "pad_token": END,
    "unk_token": {"content": END, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False},
}


def byte_alphabet() -> dict[int, str]:
    """The byte-to-character table of byte-level BPE, in the order of CLIP's vocabulary."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    table = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in table:
            table[byte] = chr(256 + len(table) - len(printable))
    return table


def train_clip() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges: 256 characters, the same with `</w>`, merged pairs, the two special tokens."""
    import collections

    from transformers import CLIPTokenizer

    empty = CLIPTokenizer().backend_tokenizer
    words = collections.Counter()
    for line in CORPUS:
        for word, _ in empty.pre_tokenizer.pre_tokenize_str(empty.normalizer.normalize_str(line)):
            words[(*word[:-1], word[-1] + "</w>")] += 1
    merges = []
    while len(merges) < CLIP_MERGES:
        pairs = collections.Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        merged = collections.Counter()
        for word, count in words.items():
            parts, at = [], 0
            while at < len(word):
                joined = word[at : at + 2] == best
                parts.append("".join(best) if joined else word[at])
                at += 2 if joined else 1
            merged[tuple(parts)] += count
        words = merged
    characters = list(byte_alphabet().values())
    pieces = characters + [c + "</w>" for c in characters] + ["".join(pair) for pair in merges] + [BEGIN, END]
    vocabulary = {}
    for piece in pieces:
        vocabulary.setdefault(piece, len(vocabulary))
    return vocabulary, merges


def train_t5() -> bytes:
    """A SentencePiece model (spiece.model) with T5's settings: nmt_nfkc, pad 0, eos 1, unk 2, no bos."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        model_type="unigram",
        vocab_size=T5_PIECES,
        hard_vocab_limit=False,
        character_coverage=0.98,
        normalization_rule_name="nmt_nfkc",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def write_clip(directory: pathlib.Path, layout: str):
    """`layout`: "transformers5" (tokenizer.json) or "transformers4" (vocab.json and merges.txt)."""
    from transformers import CLIPTokenizer

    vocabulary, merges = train_clip()
    if layout == "transformers5":
        CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CLIP_LENGTH).save_pretrained(
            directory
        )
        return
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    (directory / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    (directory / "special_tokens_map.json").write_text(json.dumps(_CLIP_SPECIAL, indent=2) + "\n")
    added = {
        str(vocabulary[text]): {
            "content": text,
            "lstrip": False,
            "normalized": text == BEGIN,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for text in (BEGIN, END)
    }
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "bos_token": BEGIN,
        "clean_up_tokenization_spaces": True,
        "do_lower_case": True,
        "eos_token": END,
        "errors": "replace",
        "model_max_length": CLIP_LENGTH,
        "pad_token": END,
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": END,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _t5_transformers4_config(pieces: int, length: int) -> dict:
    def token(text, special=True):
        return {
            "content": text,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": special,
        }

    added = {"0": token("<pad>"), "1": token("</s>"), "2": token("<unk>")}
    extra = [f"<extra_id_{i}>" for i in range(T5_EXTRA_IDS)]
    for i in range(T5_EXTRA_IDS):
        added[str(pieces + i)] = token(extra[T5_EXTRA_IDS - 1 - i])
    return {
        "add_prefix_space": True,
        "added_tokens_decoder": added,
        "additional_special_tokens": extra,
        "clean_up_tokenization_spaces": True,
        "eos_token": "</s>",
        "extra_ids": T5_EXTRA_IDS,
        "legacy": True,
        "model_max_length": length,
        "pad_token": "<pad>",
        "sp_model_kwargs": {},
        "tokenizer_class": "T5Tokenizer",
        "unk_token": "<unk>",
    }


def write_t5(directory: pathlib.Path, layout: str, length: int, scratch: pathlib.Path):
    """`layout`: "transformers5" (tokenizer.json) or "transformers4" (spiece.model)."""
    import sentencepiece
    from transformers import T5Tokenizer

    model = train_t5()
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model).get_piece_size()
    config = json.dumps(_t5_transformers4_config(pieces, length), indent=1) + "\n"
    special = {
        "additional_special_tokens": [f"<extra_id_{i}>" for i in range(T5_EXTRA_IDS)],
        **{
            name: {
                "content": text,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
            }
            for name, text in (("eos_token", "</s>"), ("pad_token", "<pad>"), ("unk_token", "<unk>"))
        },
    }
    source = scratch / "t5_source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    (source / "spiece.model").write_bytes(model)
    (source / "tokenizer_config.json").write_text(config)
    (source / "special_tokens_map.json").write_text(json.dumps(special, indent=1) + "\n")
    if layout == "transformers4":
        shutil.copytree(source, directory, dirs_exist_ok=True)
        return
    tokenizer = T5Tokenizer.from_pretrained(source)
    tokenizer.save_pretrained(directory)
    (directory / "spiece.model").unlink(missing_ok=True)


def train_umt5(extra_ids_inside: bool = False) -> bytes:
    """A SentencePiece model with UMT5's settings: text taken as it is, pad 0, eos 1, bos 2, unk 3, a piece per byte.
    `extra_ids_inside`: the sentinels are user-defined pieces behind the special ones, not added by the tokenizer."""
    import sentencepiece

    model = io.BytesIO()
    sentinels = [f"<extra_id_{i}>" for i in range(UMT5_EXTRA_IDS)] if extra_ids_inside else []
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        model_type="unigram",
        vocab_size=T5_PIECES + 256 + len(sentinels),
        hard_vocab_limit=False,
        character_coverage=0.98,
        normalization_rule_name="identity",
        byte_fallback=True,
        user_defined_symbols=sentinels,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


class _SlowTokenizer:
    """What transformers' converter asks of the tokenizer that it converts."""

    def __init__(self, vocab_file: pathlib.Path, extra_ids: int):
        self.vocab_file = str(vocab_file)
        self._extra_ids = extra_ids

    def convert_tokens_to_ids(self, token: str) -> int:
        import sentencepiece

        return sentencepiece.SentencePieceProcessor(model_file=self.vocab_file).piece_to_id(token)


def write_umt5(directory: pathlib.Path, layout: str, length: int):
    """`layout`: "both" (spiece.model and the tokenizer.json that transformers makes of it, as in the published Wan
    checkpoints), "spiece" (spiece.model alone) or "inside" (both, sentinels among the pieces)."""
    import sentencepiece
    import tokenizers
    from transformers.convert_slow_tokenizer import T5Converter

    inside = layout == "inside"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "spiece.model"
    path.write_bytes(train_umt5(extra_ids_inside=inside))
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    pieces = model.get_piece_size()
    config = _t5_transformers4_config(pieces, length)
    token = config["added_tokens_decoder"]["0"]
    sentinels = {}
    for i in range(UMT5_EXTRA_IDS):
        text = f"<extra_id_{i}>"
        sentinels[model.piece_to_id(text) if inside else pieces + UMT5_EXTRA_IDS - 1 - i] = text
    special = {0: "<pad>", 1: "</s>", 2: "<s>", 3: "<unk>"}
    added = {id: token | {"content": text} for id, text in sorted((special | sentinels).items())}
    names = [f"<extra_id_{i}>" for i in range(UMT5_EXTRA_IDS)]
    config |= {
        "added_tokens_decoder": {str(id): value for id, value in added.items()},
        "additional_special_tokens": names,
        "bos_token": "<s>",
        "extra_ids": UMT5_EXTRA_IDS,
        "tokenizer_class": "T5Tokenizer",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    without_flag = {key: value for key, value in token.items() if key != "special"}
    special_map = {
        "additional_special_tokens": names,
        **{
            name: without_flag | {"content": text}
            for name, text in (
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("pad_token", "<pad>"),
                ("unk_token", "<unk>"),
            )
        },
    }
    (directory / "special_tokens_map.json").write_text(json.dumps(special_map, indent=1) + "\n")
    if layout == "spiece":
        return
    converter = T5Converter(_SlowTokenizer(path, 0 if inside else UMT5_EXTRA_IDS))
    fast = converter.converted()
    fast.add_special_tokens(
        [tokenizers.AddedToken(value["content"], normalized=False, special=True) for value in added.values()]
    )
    (directory / "tokenizer.json").write_text(fast.to_str(pretty=False) + "\n", encoding="utf-8")
