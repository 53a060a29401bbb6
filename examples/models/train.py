"""Trains the demo weights: a small FLUX pipeline that draws the world of world.py from its captions.

    python train.py tokenizers                # seconds
    python train.py vae --minutes 6           # go on by running it again
    python train.py flow --minutes 17         # until --budget is used up; go on by running it again
    python train.py export                    # a directory that FluxPipeline.from_pretrained and flux read
    python train.py score                     # pictures of held-out prompts, for judge
    python train.py sizes                     # parameters, bytes and FLOPs; needs no weights
    python train.py profile                   # seconds of each part of a step, eager and compiled

Everything lives under --work; README.md beside this file says how long it takes and what makes it work.
"""

import dataclasses
import json
import math
import os
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import torch.nn.functional as F
import training
import world
from training import Average, Clock, Gradients, Pool, generator_of, load_checkpoint, load_module, on_device, save_checkpoint

TEXT_LENGTH = 40  # T5 tokens in most steps
# Some steps have more padding, because pipelines pad to 512 unless they are told otherwise: length and share of steps.
LONG_TEXTS = ((128, 0.04), (512, 0.02))
DROPPED = 0.1  # part of the captions that are left out, so that there is a field without a caption
GUIDANCE = (1.0, 5.0)  # range of the guidance scalar in training
DRAWN_AT_ONCE = 8  # steps whose pictures are drawn together: drawing few costs as much as drawing many
GUIDANCE_FROM = 0.6  # part of the budget after which guidance is distilled


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What differs between the demo weights and the smoke test."""

    heads: int = 3
    double_blocks: int = 2
    single_blocks: int = 3
    text_width: int = 128  # T5
    text_layers: int = 4
    text_hidden: int = 256
    pooled_width: int = 128  # CLIP
    pooled_layers: int = 2
    vae_widths: tuple = (32, 48, 64, 96)
    vae_groups: int = 16
    vae_batch: int = 64
    vae_rate: float = 1e-3
    batch: int = 256
    fresh: int = 32  # pictures that are drawn and encoded a step, those of DRAWN_AT_ONCE steps together
    pool: int = 2**19  # encoded pictures kept
    first_pool: int = 2**16  # of those, before the first step
    rate: float = 6e-4


DEMO = Sizes()
TINY = Sizes(
    heads=1,
    double_blocks=1,
    single_blocks=1,
    text_width=64,
    text_layers=1,
    text_hidden=128,
    pooled_width=64,
    pooled_layers=1,
    vae_widths=(16, 16, 32, 32),
    vae_groups=8,
    vae_batch=8,
    vae_rate=3e-3,
    batch=16,
    fresh=4,
    pool=256,
    first_pool=64,
)


# ---- tokenizers


def _clip_merges(words):
    """Byte-pair merges, most frequent pair first, until every word is one token."""
    from collections import Counter

    parts = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    merges = []
    while any(len(tokens) > 1 for tokens in parts.values()):
        pairs = Counter(pair for tokens in parts.values() for pair in zip(tokens, tokens[1:]))
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word, tokens in parts.items():
            joined, at = [], 0
            while at < len(tokens):
                pair = tuple(tokens[at : at + 2]) == best
                joined.append("".join(best) if pair else tokens[at])
                at += 2 if pair else 1
            parts[word] = joined
    return merges


def write_clip_tokenizer(directory):
    """vocab.json and merges.txt as CLIP has them: 256 bytes, the same with </w>, merges, two special tokens."""
    from transformers import CLIPTokenizer

    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
    merges = _clip_merges([word for word in world.WORDS if word])
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    shutil.rmtree(directory, ignore_errors=True)
    CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77).save_pretrained(directory)
    (directory / "tokenizer.json").unlink()
    (directory / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges), ""]), encoding="utf-8")


class WordTokens:
    """From numbers of world.WORDS to token ids, on the device, as the tokenizers would make them of the text."""

    def __init__(self, work, device):
        from transformers import CLIPTokenizer

        self.t5_words = training.UnigramWords(work / "tokenizer_2", world.WORDS, device)
        self.t5 = self.t5_words.tokenizer
        self.clip = CLIPTokenizer.from_pretrained(work / "tokenizer")
        clip = [0]
        for word in world.WORDS[1:]:
            ids = self.clip(f"red{word}" if word == "," else f"red {word}").input_ids
            if len(ids) != 4:
                raise SystemExit(f"tokenizers: the word {word!r} is not one token")
            clip.append(ids[2])
        self.clip_ids = torch.tensor(clip, device=device)

    def __call__(self, words, length):
        """Words [B, world.CAPTION_LENGTH] -> ids of CLIP [B, words + 2] and of T5 [B, length]"""
        clip = torch.full((words.shape[0], words.shape[1] + 2), self.clip.eos_token_id, device=words.device)
        clip[:, 0] = self.clip.bos_token_id
        clip[:, 1:-1] = torch.where(words > 0, self.clip_ids[words], self.clip.eos_token_id)
        return clip, self.t5_words(words, length)


def tokenizers(options):
    options.work.mkdir(parents=True, exist_ok=True)
    write_clip_tokenizer(options.work / "tokenizer")
    prompts, _, _ = world.drawn(4000, torch.Generator().manual_seed(1))
    training.write_unigram_tokenizer(options.work / "tokenizer_2", prompts)
    tokens = WordTokens(options.work, "cpu")
    generator = torch.Generator().manual_seed(2)
    scenes = world.draw(1000, generator)
    words = world.draw_captions(scenes, generator)
    clip, t5 = tokens(words, TEXT_LENGTH)
    texts = [world.text_of(row) for row in words]
    padded = dict(padding="max_length", truncation=True, return_tensors="pt")
    assert torch.equal(clip, tokens.clip(texts, max_length=clip.shape[1], **padded).input_ids)
    assert torch.equal(t5, tokens.t5(texts, max_length=TEXT_LENGTH, **padded).input_ids)
    print(f"tokenizers: CLIP {len(tokens.clip)} tokens, T5 {len(tokens.t5)}; 1000 captions agree with the word tables")


# ---- models


def make_vae(sizes):
    from diffusers import AutoencoderKL

    levels = len(sizes.vae_widths)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=sizes.vae_widths,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=sizes.vae_groups,
        sample_size=world.SIZE,
        use_quant_conv=False,
        use_post_quant_conv=False,
        force_upcast=False,
    )


def make_flow(sizes, clip_tokenizer, t5_tokenizer):
    """The three components that are trained together, by their names in the pipeline."""
    from diffusers import FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=sizes.double_blocks,
        num_single_layers=sizes.single_blocks,
        attention_head_dim=128,
        num_attention_heads=sizes.heads,
        joint_attention_dim=sizes.text_width,
        pooled_projection_dim=sizes.pooled_width,
        guidance_embeds=True,
        axes_dims_rope=(16, 56, 56),
    )
    for name, parameter in transformer.named_parameters():
        # Blocks begin as the identity and the output as zero: deep modulated blocks learn faster from there.
        if (".norm" in name or name.startswith("norm_out")) and ".linear." in name or name.startswith("proj_out."):
            torch.nn.init.zeros_(parameter)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(clip_tokenizer),
            hidden_size=sizes.pooled_width,
            intermediate_size=2 * sizes.pooled_width,
            projection_dim=sizes.pooled_width,
            num_hidden_layers=sizes.pooled_layers,
            num_attention_heads=sizes.pooled_width // 64,
            max_position_embeddings=77,
            bos_token_id=clip_tokenizer.bos_token_id,
            eos_token_id=clip_tokenizer.eos_token_id,
            pad_token_id=clip_tokenizer.pad_token_id,
        )
    )
    text_encoder_2 = T5EncoderModel(
        T5Config(
            vocab_size=(len(t5_tokenizer) + 63) // 64 * 64,
            d_model=sizes.text_width,
            d_kv=32,
            d_ff=sizes.text_hidden,
            num_layers=sizes.text_layers,
            num_heads=sizes.text_width // 32,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            tie_word_embeddings=False,
        )
    )
    return {"transformer": transformer, "text_encoder": text_encoder, "text_encoder_2": text_encoder_2}


def make_scheduler():
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096
    )


# ---- the VAE


class VaeStep(torch.nn.Module):
    """The loss of one batch, and its mean squared error."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, pictures):
        posterior = self.vae.encode(pictures).latent_dist
        return training.vae_loss(self.vae.decode(posterior.sample()).sample.float() - pictures, posterior)


@torch.no_grad()
def initialize(vae):
    """Latents begin with little noise."""
    training.initialize_vae(vae, (".conv2", ".to_out.0"))
    vae.encoder.conv_out.bias[vae.config.latent_channels :] = -5.0  # of the logarithm of the variance
    return vae


@torch.no_grad()
def latent_statistics(vae, options):
    """Mean and standard deviation of the latents of 2048 fresh pictures."""
    generator, latents = generator_of(options, 999_983), []
    for _ in range(max(1, 2048 // options.sizes.vae_batch) if not options.tiny else 8):
        pictures = 2 * world.render(world.draw(options.sizes.vae_batch, generator)) - 1
        with on_device(options):
            latents.append(vae.encode(pictures).latent_dist.mode().float())
    latents = torch.cat(latents)
    return float(latents.mean()), float(latents.std())


def vae(options):
    sizes = options.sizes
    torch.manual_seed(0)
    model = initialize(make_vae(sizes)).to(options.device, memory_format=torch.channels_last)
    batches = []

    def next_batch(generator):
        if not batches:
            drawn = 2 * world.render(world.draw(DRAWN_AT_ONCE * sizes.vae_batch, generator)) - 1
            batches.extend(drawn.contiguous(memory_format=torch.channels_last).split(sizes.vae_batch))
        return batches.pop()

    def statistics():
        mean, deviation = latent_statistics(model, options)
        return {"shift_factor": mean, "scaling_factor": 1 / deviation}

    training.train_vae(model, VaeStep(model), next_batch, statistics, options)


def trained_vae(options):
    tensors, progress = training.needed_checkpoint(options.work, "vae")
    model = make_vae(options.sizes)
    load_module(model, tensors)
    model.register_to_config(shift_factor=progress["shift_factor"], scaling_factor=progress["scaling_factor"])
    return model.eval().requires_grad_(False)


# ---- the flow


def make_pool(vae, options):
    def encode(scenes):
        pictures = (2 * world.render(scenes) - 1).contiguous(memory_format=torch.channels_last)
        with on_device(options):
            latents = vae.encode(pictures).latent_dist.mode()
        return (latents - vae.config.shift_factor) * vae.config.scaling_factor

    side = world.SIZE // 8
    return Pool(options.sizes.pool, (16, side, side), options.device, world.draw, encode)


def time_shift(scheduler, tokens):
    """mu of the pipeline, for so many image tokens."""
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    c = scheduler.config
    return calculate_shift(tokens, c.base_image_seq_len, c.max_image_seq_len, c.base_shift, c.max_shift)


class FlowStep(torch.nn.Module):
    """The loss of one batch: rectified flow, and from some point on the distillation of guidance.

    The scalar g that the model is given stands for classifier-free guidance of scale 1 + 0.4 (g - 1), 2.0 at the usual
    3.5. The target of a guided field v = u + s (c - u) is reached without a teacher: with w = 1 - 1 / s, the field that
    is its own target in v = truth + w (v - u) is just that, u being the model's field for no caption.
    """

    def __init__(self, models, scheduler, tokens):
        super().__init__()
        from diffusers import FluxPipeline

        self.models = torch.nn.ModuleDict(models)
        side = world.SIZE // 16
        self.register_buffer("image_ids", FluxPipeline._prepare_latent_image_ids(1, side, side, "cpu", torch.float32))
        self.shift = math.exp(time_shift(scheduler, side * side))
        self.pack = FluxPipeline._pack_latents
        self.tokens = tokens

    def text(self, clip_ids, t5_ids):
        pooled = self.models["text_encoder"](clip_ids).pooler_output
        return pooled, self.models["text_encoder_2"](t5_ids).last_hidden_state

    def field(self, noisy, sigma, guidance, pooled, text):
        return self.models["transformer"](
            hidden_states=noisy,
            timestep=sigma,
            guidance=guidance,
            pooled_projections=pooled,
            encoder_hidden_states=text,
            txt_ids=torch.zeros((text.shape[1], 3), device=text.device),
            img_ids=self.image_ids,
            return_dict=False,
        )[0].float()

    def forward(self, latents, noise, sigma, guidance, dropped, clip_ids, t5_ids, empty_clip, empty_t5, strength=None):
        """strength: of the distillation, from 0 to 1; None leaves it out"""
        clean, noise = (self.pack(x, *x.shape).float() for x in (latents, noise))
        sigma = self.shift * sigma / (1 + (self.shift - 1) * sigma)
        at = sigma[:, None, None]
        noisy, truth = (1 - at) * clean + at * noise, noise - clean
        field = self.field(noisy, sigma, guidance, *self.text(clip_ids, t5_ids))
        target = truth
        if strength is not None:
            with torch.no_grad():
                pooled, text = self.text(empty_clip, empty_t5)
                n = len(sigma)
                bare = self.field(noisy, sigma, guidance, pooled.expand(n, -1), text.expand(n, -1, -1))
                weight = strength * (1 - 1 / (1 + 0.4 * (guidance - 1))) * ~dropped
                target = truth + weight[:, None, None] * (field.detach() - bare)
        return F.mse_loss(field, target), F.mse_loss(field.detach(), truth)


def flow_batches(pool, step, count, n, length, generator):
    """Arguments of FlowStep, but for the strength: `count` tuples for batches of n."""
    device, n, each = generator.device, count * n, n
    latents, scenes = pool.draw(n, generator)
    words = world.draw_captions(scenes, generator)
    dropped = torch.rand((n,), generator=generator, device=device) < DROPPED
    words = torch.where(dropped[:, None], 0, words)
    noise = torch.randn(latents.shape, generator=generator, device=device)
    sigma = torch.sigmoid(torch.randn((n,), generator=generator, device=device))
    guidance = GUIDANCE[0] + (GUIDANCE[1] - GUIDANCE[0]) * torch.rand((n,), generator=generator, device=device)
    ids, empty = step.tokens(words, length), step.tokens(torch.zeros_like(words[:1]), length)
    items = (latents, noise, sigma, guidance, dropped, *ids)
    return [(*batch, *empty) for batch in zip(*(item.split(each) for item in items))]


def start_flow(options):
    torch.manual_seed(0)
    tokens = WordTokens(options.work, options.device)
    models = make_flow(options.sizes, tokens.clip, tokens.t5)
    tensors, progress = load_checkpoint(options.work, "flow")
    if progress:
        for name, model in models.items():
            load_module(model, tensors, name + ":")
    step = FlowStep(models, make_scheduler(), tokens).to(options.device)
    coder = trained_vae(options).to(options.device, memory_format=torch.channels_last)
    return step, make_pool(coder, options), progress or {"step": 0, "seconds": 0.0}


def save_flow(options, step, average, progress):
    save_checkpoint(options.work, "flow", training.averaged_tensors(step.models, average), progress)


def flow(options):
    sizes = options.sizes
    step, pool, progress = start_flow(options)
    clock = Clock(options, progress)
    if clock.limit <= 0:
        print("flow: the budget is used up")
        return
    generator = generator_of(options, progress["step"])
    while pool.filled < sizes.first_pool:
        pool.renew(min(512, sizes.first_pool - pool.filled), generator)
    if options.compile:
        step.models["transformer"].compile(dynamic=False)
    parameters = list(step.parameters())
    average = Average(parameters, 0.9995)
    optimizer = torch.optim.AdamW(
        parameters, lr=sizes.rate, betas=(0.9, 0.98), weight_decay=1e-2, fused=options.device != "cpu"
    )
    gradients = Gradients(step, parameters, options)
    draws = torch.Generator().manual_seed(progress["step"])
    steps, mean, batches = 0, torch.zeros(2, device=options.device), []

    def state():
        return {"step": progress["step"] + steps, "seconds": clock.before + clock.seconds()}

    while not clock.is_over():
        if not batches:
            length, n = TEXT_LENGTH, sizes.batch
            at = float(torch.rand((), generator=draws))
            for longer, share in LONG_TEXTS:
                if 0 <= at < share:
                    # As much memory and time as the usual step.
                    length, n = longer, max(1, sizes.batch * (64 + TEXT_LENGTH) // (64 + longer))
                at -= share
            pool.renew(DRAWN_AT_ONCE * sizes.fresh, generator)
            batches = flow_batches(pool, step, DRAWN_AT_ONCE, n, length, generator)
        for group in optimizer.param_groups:
            group["lr"] = clock.rate(sizes.rate, steps, 300)
        ramp = min(1.0, (clock.part() - GUIDANCE_FROM) / 0.15)
        strength = (torch.full((), ramp, device=options.device),) if ramp > 0 else ()
        losses = gradients(*batches.pop(), *strength, compiled=length == TEXT_LENGTH)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.update()
        steps += 1
        mean.lerp_(torch.stack(losses), max(0.01, 1 / steps))
        if clock.is_due("printed", 10):
            rate = steps / clock.seconds()
            print(
                f"flow: step {state()['step']}, {state()['seconds']:.0f} s, {rate:.1f} steps/s, loss {float(mean[0]):.4f}, "
                f"to the truth {float(mean[1]):.4f}, guidance {max(0.0, ramp):.2f}",
                flush=True,
            )
        if clock.is_due("saved", 120):
            save_flow(options, step, average, state())
    save_flow(options, step, average, state())
    print(f"flow: saved {state()}")


# ---- the pipeline


def export(options):
    """model_index.json and its components, bfloat16, transformer in shards; tokenizers in their classic files."""
    from diffusers import FluxPipeline

    tensors, progress = training.needed_checkpoint(options.work, "flow")
    tokens = WordTokens(options.work, "cpu")
    models = make_flow(options.sizes, tokens.clip, tokens.t5)
    for name, model in models.items():
        load_module(model, tensors, name + ":")
    pipeline = FluxPipeline(
        scheduler=make_scheduler(),
        vae=trained_vae(options),
        tokenizer=tokens.clip,
        tokenizer_2=tokens.t5,
        **models,
    ).to(torch.bfloat16)
    target = options.work / "pipeline"
    shutil.rmtree(target, ignore_errors=True)
    pipeline.save_pretrained(target, max_shard_size="10MB")
    for name in ("tokenizer", "tokenizer_2"):
        shutil.rmtree(target / name)
        shutil.copytree(options.work / name, target / name)
    FluxPipeline.from_pretrained(target, torch_dtype=torch.bfloat16)
    print(f"export: {target}, {training.bytes_under(target) / 1e6:.1f} MB, of step {progress['step']}")


def score(options):
    """Pictures of held-out prompts by diffusers, with what must be seen in them: NUMBER.png and NUMBER.json."""
    from diffusers import FluxPipeline

    number = torch.bfloat16 if options.device != "cpu" else torch.float32
    pipeline = FluxPipeline.from_pretrained(options.work / "pipeline", torch_dtype=number).to(options.device)
    pipeline.set_progress_bar_config(disable=True)
    prompts, descriptions, _ = world.held_out(options.prompts, 9000)
    target = options.work / "score"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for start in range(0, len(prompts), 20):
        some = range(start, min(start + 20, len(prompts)))
        pictures = pipeline(
            [prompts[i] for i in some],
            height=world.SIZE,
            width=world.SIZE,
            num_inference_steps=options.steps,
            guidance_scale=3.5,
            max_sequence_length=TEXT_LENGTH,
            generator=[torch.Generator().manual_seed(i) for i in some],
        ).images
        for i, picture in zip(some, pictures):
            picture.save(target / f"{i:04}.png")
            (target / f"{i:04}.json").write_text(json.dumps(descriptions[i], indent=1) + "\n")
    print(f"score: {len(prompts)} pictures in {target}; examples/models/evaluate.sh judges them")


# ---- what it costs


def sizes(options):
    """Parameters, bytes as bf16 and NF4 (T5's `wo` and what is no linear stays bf16), FLOPs."""
    tokens = type("Tokens", (), {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "__len__": lambda self: 896})()
    models = {**make_flow(options.sizes, tokens, tokens), "vae": make_vae(options.sizes)}
    training.print_sizes(models, kept=("wo",))

    n = 4
    flow_step = FlowStep({name: models[name] for name in ("transformer", "text_encoder", "text_encoder_2")},
                         make_scheduler(), None)
    latents = torch.randn(n, 16, world.SIZE // 8, world.SIZE // 8)
    ids = torch.ones((n, world.CAPTION_LENGTH + 2), dtype=torch.long), torch.ones((n, TEXT_LENGTH), dtype=torch.long)
    batch = latents, latents, torch.rand(n), torch.ones(n), torch.zeros(n, dtype=torch.bool), *ids, *(i[:1] for i in ids)

    plain = training.flops_of(lambda: flow_step(*batch)[0].backward()) / n
    guided = training.flops_of(lambda: flow_step(*batch, torch.ones(()))[0].backward()) / n
    pictures = torch.rand(n, 3, world.SIZE, world.SIZE)
    encode = training.flops_of(lambda: models["vae"].encode(pictures)) / n
    vae_step = training.flops_of(lambda: VaeStep(models["vae"])(pictures)[0].backward()) / n
    print(f"GFLOP a picture: flow {plain / 1e9:.2f}, guided {guided / 1e9:.2f}, encode {encode / 1e9:.2f}, VAE {vae_step / 1e9:.2f}")
    print(f"TFLOP a step: flow {options.sizes.batch * plain / 1e12:.2f} + encode {options.sizes.fresh * encode / 1e12:.2f}, "
          f"VAE {options.sizes.vae_batch * vae_step / 1e12:.2f}")


def profile(options):
    """Milliseconds of each part of a step."""
    step, pool, _ = start_flow(options)
    sizes, generator = options.sizes, generator_of(options, 1)
    timed = lambda name, run: training.print_time(name, run, options)
    n = DRAWN_AT_ONCE * sizes.fresh
    pool.renew(n, generator)
    timed("draw", lambda: world.draw(n, generator))
    scenes = world.draw(n, generator)
    timed("render", lambda: world.render(scenes))
    timed("renew (draw, render, encode)", lambda: pool.renew(n, generator))
    drawn = lambda: flow_batches(pool, step, DRAWN_AT_ONCE, sizes.batch, TEXT_LENGTH, generator)
    timed(f"batches of {DRAWN_AT_ONCE} steps", drawn)
    if options.compile:
        step.models["transformer"].compile(dynamic=False)
    parameters = list(step.parameters())
    gradients = Gradients(step, parameters, options)
    optimizer = torch.optim.AdamW(parameters, fused=options.device != "cpu")

    def train(*inputs):
        gradients(*inputs)
        optimizer.step()

    for name, inputs in (("step", ()), ("step with guidance", (torch.ones((), device=options.device),))):
        inputs = (*drawn()[0], *inputs)
        timed(name, lambda: train(*inputs))


STAGES = {f.__name__: f for f in (tokenizers, vae, flow, export, score, sizes, profile)}


def main():
    budgets = {"vae": 6, "flow": 17}
    parser = training.parser(__doc__, STAGES, "build/demo", budgets)
    parser.add_argument("--prompts", type=int, default=100, help="pictures of score")
    parser.add_argument("--steps", type=int, default=28, help="denoising steps of score")
    options = parser.parse_args()
    options.sizes = TINY if options.tiny else DEMO
    options.budget = options.budget or budgets.get(options.stage)
    training.set_up()
    STAGES[options.stage](options)


if __name__ == "__main__":
    main()
