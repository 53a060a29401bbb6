"""Trains the demo weights of Wan: a small Wan 2.1 pipeline that draws the world of moving_world.py from its captions.

    python train_wan.py tokenizers                # seconds
    python train_wan.py vae --minutes 4           # go on by running it again
    python train_wan.py flow --minutes 8          # until --budget is used up; go on by running it again
    python train_wan.py export                    # a directory that WanPipeline.from_pretrained and wan read
    python train_wan.py score                     # videos of held-out prompts, for judge
    python train_wan.py sizes                     # parameters, bytes and FLOPs; needs no weights
    python train_wan.py profile                   # milliseconds of each part of a step, eager and compiled

Everything lives under --work. Needs what train.py needs.
"""

import dataclasses
import json
import os
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import moving_world as world
import torch
import torch.nn.functional as F
import training
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, WanResample
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from training import Average, Clock, Gradients, Pool, generator_of, load_checkpoint, load_module, on_device, save_checkpoint

LATENT = (16, (world.FRAMES - 1) // 4 + 1, world.SIZE // 8, world.SIZE // 8)
TEXT_LENGTH = 32  # tokens in training: all of the longest caption, and padding to what attention kernels like
PADDED_LENGTH = 512  # tokens that the pipeline gives the transformer, whatever the prompt
DROPPED = 0.1  # part of the captions that are left out, so that there is a field without a caption
FLOW_SHIFT = 3.0
assert world.CAPTION_LENGTH + 2 <= TEXT_LENGTH


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What differs between the demo weights and the smoke test."""

    heads: int = 3
    blocks: int = 6
    text_width: int = 128
    text_layers: int = 3
    text_hidden: int = 256
    vae_base: int = 16
    vae_decoder_base: int = 16
    vae_multipliers: tuple = (1, 2, 4, 4)
    vae_batch: int = 12
    vae_rate: float = 7e-4
    batch: int = 256
    fresh: int = 128  # clips that are drawn and encoded at once,
    fresh_every: int = 16  # once in so many steps
    pool: int = 2**17  # encoded clips kept
    first_pool: int = 2**14  # of those, before the first step
    rate: float = 6e-4


DEMO = Sizes()
TINY = Sizes(
    heads=1,
    blocks=1,
    text_width=64,
    text_layers=1,
    text_hidden=128,
    vae_base=4,
    vae_decoder_base=4,
    vae_batch=2,
    vae_rate=1e-3,
    batch=8,
    fresh=4,
    fresh_every=2,
    pool=64,
    first_pool=8,
)


# ---- the tokenizer


def words_of(options):
    return training.UnigramWords(options.work / "tokenizer", world.WORDS, options.device)


def tokenizers(options):
    options.work.mkdir(parents=True, exist_ok=True)
    prompts, _, _ = world.drawn(4000, torch.Generator().manual_seed(1))
    training.write_unigram_tokenizer(options.work / "tokenizer", prompts)
    tokens = training.UnigramWords(options.work / "tokenizer", world.WORDS, "cpu")
    generator = torch.Generator().manual_seed(2)
    words = world.draw_captions(world.draw(1000, generator), generator)
    words[0] = 0
    texts = [world.text_of(row) for row in words]
    padded = dict(padding="max_length", truncation=True, return_tensors="pt", max_length=TEXT_LENGTH)
    assert torch.equal(tokens(words, TEXT_LENGTH), tokens.tokenizer(texts, **padded).input_ids)
    print(f"tokenizers: {len(tokens.tokenizer)} tokens; 1000 captions agree with the word table")


# ---- models


def make_vae(sizes):
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(
        base_dim=sizes.vae_base,
        decoder_base_dim=sizes.vae_decoder_base,
        z_dim=LATENT[0],
        dim_mult=list(sizes.vae_multipliers),
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * LATENT[0],
        latents_std=[1.0] * LATENT[0],
    )


def make_flow(sizes, tokens):
    """The two components that are trained together, by their names in the pipeline."""
    from diffusers import WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    width = 128 * sizes.heads
    transformer = WanTransformer3DModel(
        num_attention_heads=sizes.heads,
        attention_head_dim=128,
        in_channels=LATENT[0],
        out_channels=LATENT[0],
        text_dim=sizes.text_width,
        ffn_dim=4 * width,
        num_layers=sizes.blocks,
        cross_attn_norm=True,
    )
    for name, parameter in transformer.named_parameters():
        # Blocks begin as the identity and the output as zero: deep modulated blocks learn faster from there.
        if any(part in f".{name}" for part in ("scale_shift_table", "time_proj.", "attn2.to_out.0.", ".proj_out.")):
            torch.nn.init.zeros_(parameter)
    text_encoder = UMT5EncoderModel(
        UMT5Config(
            vocab_size=(tokens + 63) // 64 * 64,
            d_model=sizes.text_width,
            d_kv=32,
            d_ff=sizes.text_hidden,
            num_layers=sizes.text_layers,
            num_heads=sizes.text_width // 32,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            is_encoder_decoder=False,
            use_cache=False,
        )
    )
    return {"transformer": transformer, "text_encoder": text_encoder}


def make_scheduler():
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=FLOW_SHIFT
    )


# ---- the VAE
# diffusers runs it latent frame by latent frame with a cache. All frames at once are the same function in a fifth of
# the kernels; and its causal convolutions are two-dimensional ones over the channels of three frames, which every
# version of cuDNN has fast kernels for. `export` compares both with diffusers.


class WholeConvolution(WanCausalConv3d):
    """[B, C, T, H, W] -> the same as without cache"""

    def forward(self, x, cache_x=None):
        frames, step, before, border = self.kernel_size[0], self.stride[0], self._padding[4], self._padding[0]
        x = x.permute(0, 2, 3, 4, 1)
        n = x.shape[0]
        if before:
            x = torch.cat([x.new_zeros((n, before, *x.shape[2:])), x], dim=1)
        if frames > 1:
            last = x.shape[1] - frames + 1
            x = torch.cat([x[:, i : i + last : step] for i in range(frames)], dim=4)
        weight = self.weight.transpose(1, 2).flatten(1, 2)
        x = F.conv2d(x.flatten(0, 1).permute(0, 3, 1, 2), weight, self.bias, padding=border)
        return x.permute(0, 2, 3, 1).unflatten(0, (n, -1)).permute(0, 4, 1, 2, 3)


class WholeResample(WanResample):
    """[B, C, T, H, W] -> the same as frame by frame: the first frame knows no time, the others their predecessors"""

    def forward(self, x, feat_cache=None, feat_idx=None):
        n = x.shape[0]
        if self.mode == "upsample3d":
            rest = self.time_conv(x[:, :, 1:]).unflatten(1, (2, -1)).permute(0, 2, 3, 1, 4, 5).flatten(2, 3)
            x = torch.cat([x[:, :, :1], rest], dim=2)
        x = self.resample(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (n, -1)).transpose(1, 2)
        if self.mode == "downsample3d":
            x = torch.cat([x[:, :, :1], self.time_conv(x)], dim=2)
        return x


def for_whole_clips(vae):
    """Makes `encoded` and `decoded` take all frames at once; names and values of the weights stay what they are."""
    for module in vae.modules():
        if isinstance(module, WanCausalConv3d):
            module.__class__ = WholeConvolution
        elif isinstance(module, WanResample):
            module.__class__ = WholeResample
    return vae


def encoded(vae, videos):
    """[B, 3, FRAMES, H, W] from -1 to 1 -> distribution of [B, 16, 5, H / 8, W / 8]"""
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    return DiagonalGaussianDistribution(vae.quant_conv(vae.encoder(videos)))


def decoded(vae, latents):
    return vae.decoder(vae.post_quant_conv(latents))


class VaeStep(torch.nn.Module):
    """The loss of one batch, and its mean squared error."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, videos):
        posterior = encoded(self.vae, videos)
        return training.vae_loss(decoded(self.vae, posterior.sample()).float() - videos, posterior)


@torch.no_grad()
def initialize(vae):
    """Residual branches begin as zero and convolutions over time as each frame's own value, so that motion is learned
    behind a chain of resamplings; latents with little noise."""
    training.initialize_vae(vae, (".conv2", ".proj"))
    for name, module in vae.named_modules():
        if name.endswith(".time_conv"):
            outputs, inputs = module.weight.shape[:2]
            torch.nn.init.zeros_(module.weight)
            module.weight[torch.arange(outputs), torch.arange(outputs) % inputs, -1] = 1.0
    vae.quant_conv.bias[LATENT[0] :] = -5.0  # of the logarithm of the variance
    return vae


def videos_of(clips):
    return (2 * world.render(clips) - 1).contiguous(memory_format=torch.channels_last_3d)


@torch.no_grad()
def latent_statistics(vae, options):
    """Mean and standard deviation of each channel of fresh clips' latents."""
    generator, latents = generator_of(options, 999_983), []
    for _ in range(4 if options.tiny else 42):
        with on_device(options):
            latents.append(encoded(vae, videos_of(world.draw(options.sizes.vae_batch, generator))).mode().float())
    latents = torch.cat(latents).transpose(0, 1).flatten(1)
    return latents.mean(dim=1).tolist(), latents.std(dim=1).tolist()


def vae(options):
    torch.manual_seed(0)
    model = for_whole_clips(initialize(make_vae(options.sizes))).to(options.device)
    next_batch = lambda generator: videos_of(world.draw(options.sizes.vae_batch, generator))

    def statistics():
        mean, deviation = latent_statistics(model, options)
        return {"latents_mean": mean, "latents_std": deviation}

    training.train_vae(model, VaeStep(model), next_batch, statistics, options)


def trained_vae(options):
    """As diffusers has it, in float32."""
    tensors, progress = training.needed_checkpoint(options.work, "vae")
    model = make_vae(options.sizes)
    load_module(model, tensors)
    model.register_to_config(latents_mean=progress["latents_mean"], latents_std=progress["latents_std"])
    return model.eval().requires_grad_(False)


# ---- the flow


def make_pool(vae, options):
    channels = lambda values: torch.tensor(values, device=options.device)[:, None, None, None]
    mean, deviation = channels(vae.config.latents_mean), channels(vae.config.latents_std)

    def encode(clips):
        latents = encoded(vae, videos_of(clips).to(vae.dtype)).mode()
        return (latents.float() - mean) / deviation

    return Pool(options.sizes.pool, LATENT, options.device, world.draw, encode, world.Clips.said)


class PaddedText(WanAttnProcessor):
    """Cross-attention to a prompt that is followed by fewer zeros than in the pipeline, each of which counts as
    several: `weight` is added to the products of queries and keys, [B, 1, 1, keys]."""

    weight = None

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None):
        return super().__call__(attn, hidden_states, encoder_hidden_states, self.weight, rotary_emb)


class PatchProduct(torch.nn.Conv3d):
    """A convolution without overlap, as a product of matrices."""

    def forward(self, x):
        for axis, size in ((2, self.kernel_size[0]), (4, self.kernel_size[1]), (6, self.kernel_size[2])):
            x = x.unflatten(axis, (-1, size))
        x = x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
        return F.linear(x, self.weight.flatten(1), self.bias).permute(0, 4, 1, 2, 3)


class FlowStep(torch.nn.Module):
    """The loss of one batch: rectified flow, in the pipeline's own terms."""

    def __init__(self, models):
        super().__init__()
        self.models = torch.nn.ModuleDict(models)
        self.padded_text = PaddedText()
        models["transformer"].patch_embedding.__class__ = PatchProduct
        for block in models["transformer"].blocks:
            block.attn2.processor = self.padded_text

    def compile_models(self):
        for model in self.models.values():
            model.compile(dynamic=False)

    def text(self, ids):
        """Ids [B, length] that end with 1, then 0 -> states, zero where the ids are, and the weights of PaddedText"""
        there = ids > 0
        states = self.models["text_encoder"](input_ids=ids, attention_mask=there.long()).last_hidden_state
        count, length = there.sum(dim=1), ids.shape[1]
        times = ((PADDED_LENGTH - count) / (length - count)).log()
        weight = torch.where(there, 0.0, times[:, None])[:, None, None]
        return states * there[:, :, None], weight

    def field(self, noisy, sigma, ids):
        text, self.padded_text.weight = self.text(ids)
        return self.models["transformer"](
            hidden_states=noisy,
            timestep=(1000 * sigma).floor(),  # as UniPC's timesteps are
            encoder_hidden_states=text,
            return_dict=False,
        )[0].float()

    def forward(self, clean, noise, sigma, ids):
        sigma = FLOW_SHIFT * sigma / (1 + (FLOW_SHIFT - 1) * sigma)
        at = sigma[:, None, None, None, None]
        return (F.mse_loss(self.field((1 - at) * clean + at * noise, sigma, ids), noise - clean),)


def flow_batch(pool, tokens, n, generator):
    """Arguments of FlowStep."""
    device = generator.device
    latents, clips = pool.draw(n, generator)
    words = world.draw_captions(clips, generator)
    dropped = torch.rand((n, 1), generator=generator, device=device) < DROPPED
    ids = tokens(torch.where(dropped, 0, words), TEXT_LENGTH)
    noise = torch.randn(latents.shape, generator=generator, device=device)
    sigma = torch.sigmoid(torch.randn((n,), generator=generator, device=device))
    return latents, noise, sigma, ids


def start_flow(options):
    torch.manual_seed(0)
    tokens = words_of(options)
    models = make_flow(options.sizes, len(tokens.tokenizer))
    tensors, progress = load_checkpoint(options.work, "flow")
    if progress:
        for name, model in models.items():
            load_module(model, tensors, name + ":")
    step = FlowStep(models).to(options.device)
    number = torch.float32 if options.device == "cpu" else torch.bfloat16
    coder = for_whole_clips(trained_vae(options)).to(options.device, number)
    return step, tokens, make_pool(coder, options), progress or {"step": 0, "seconds": 0.0}


def save_flow(options, step, average, progress):
    save_checkpoint(options.work, "flow", training.averaged_tensors(step.models, average), progress)


def flow(options):
    sizes = options.sizes
    step, tokens, pool, progress = start_flow(options)
    clock = Clock(options, progress)
    if clock.limit <= 0:
        print("flow: the budget is used up")
        return
    generator = generator_of(options, progress["step"])
    while pool.filled < sizes.first_pool:
        pool.renew(min(sizes.fresh, sizes.first_pool - pool.filled), generator)
    if options.compile:
        step.compile_models()
    parameters = list(step.parameters())
    average = Average(parameters, 0.9995)
    optimizer = torch.optim.AdamW(
        parameters, lr=sizes.rate, betas=(0.9, 0.98), weight_decay=1e-2, fused=options.device != "cpu"
    )
    gradients = Gradients(step, parameters, options)
    steps, mean = 0, torch.zeros((), device=options.device)

    def state():
        return {"step": progress["step"] + steps, "seconds": clock.before + clock.seconds()}

    while not clock.is_over():
        for group in optimizer.param_groups:
            group["lr"] = clock.rate(sizes.rate, steps, 300)
        if steps % sizes.fresh_every == 0:
            pool.renew(sizes.fresh, generator)
        (loss,) = gradients(*flow_batch(pool, tokens, sizes.batch, generator))
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.update()
        steps += 1
        mean.lerp_(loss, max(0.01, 1 / steps))
        if clock.is_due("printed", 10):
            now = state()
            print(
                f"flow: step {now['step']}, {now['seconds']:.0f} s, {steps / clock.seconds():.1f} steps/s, "
                f"loss {float(mean):.4f}, {pool.filled} clips",
                flush=True,
            )
        if clock.is_due("saved", 120):
            save_flow(options, step, average, state())
    save_flow(options, step, average, state())
    print(f"flow: saved {state()}")


# ---- the pipeline


@torch.no_grad()
def check(pipeline, sizes, options):
    """That training computed what the pipeline does: VAE frame by frame, 512 text tokens. In float32, on the CPU."""
    generator = torch.Generator().manual_seed(3)
    clips = world.draw(1, generator)
    words = world.draw_captions(clips, generator)
    videos = 2 * world.render(clips) - 1
    latents, noise = pipeline.vae.encode(videos).latent_dist.mode(), torch.randn((1, *LATENT), generator=generator)
    ours = for_whole_clips(trained_vae(options))
    models = make_flow(sizes, len(pipeline.tokenizer))
    for name, model in models.items():
        model.load_state_dict(getattr(pipeline, name).state_dict())
    step, sigma = FlowStep(models).eval(), torch.full((1,), 0.5004)
    ids = training.UnigramWords(options.work / "tokenizer", world.WORDS, "cpu")(words, TEXT_LENGTH)
    states, _ = pipeline.encode_prompt(
        world.text_of(words[0]), do_classifier_free_guidance=False, max_sequence_length=PADDED_LENGTH
    )
    field = pipeline.transformer(noise, torch.tensor([500]), states, return_dict=False)[0]
    pairs = {
        "encoder": (latents, encoded(ours, videos).mode()),
        "decoder": (pipeline.vae.decode(latents).sample, decoded(ours, latents).clamp(-1, 1)),
        "transformer": (field, step.field(noise, sigma, ids)),
    }
    for name, (expected, found) in pairs.items():
        error = float((found - expected).norm() / expected.norm().clamp(min=1e-20))
        if not error < 1e-3:
            raise SystemExit(f"export: the {name} as it was trained differs from diffusers' by {error:.1e}")


def export(options):
    """model_index.json and its components, bfloat16, transformer in shards; the tokenizer in its classic files."""
    from diffusers import WanPipeline

    tensors, progress = training.needed_checkpoint(options.work, "flow")
    tokens = words_of(options).tokenizer
    models = make_flow(options.sizes, len(tokens))
    for name, model in models.items():
        load_module(model, tensors, name + ":")
    pipeline = WanPipeline(scheduler=make_scheduler(), vae=trained_vae(options), tokenizer=tokens, **models)
    check(pipeline, options.sizes, options)
    target = options.work / "pipeline"
    shutil.rmtree(target, ignore_errors=True)
    pipeline.to(torch.bfloat16).save_pretrained(target, max_shard_size="10MB")
    shutil.rmtree(target / "tokenizer")
    shutil.copytree(options.work / "tokenizer", target / "tokenizer")
    WanPipeline.from_pretrained(target, dtype=torch.bfloat16)
    print(f"export: {target}, {training.bytes_under(target) / 1e6:.1f} MB, of step {progress['step']}")


def score(options):
    """Videos of held-out prompts by diffusers, with what must be seen in them: NUMBER/%04d.png and NUMBER.json."""
    from diffusers import AutoencoderKLWan, WanPipeline
    from PIL import Image

    number = torch.bfloat16 if options.device != "cpu" else torch.float32
    path = options.work / "pipeline"
    vae = AutoencoderKLWan.from_pretrained(path, subfolder="vae", dtype=torch.float32)
    pipeline = WanPipeline.from_pretrained(path, vae=vae, dtype=number).to(options.device)
    pipeline.set_progress_bar_config(disable=True)
    prompts, descriptions, _ = world.held_out(options.prompts, 9000)
    target = options.work / "score"
    shutil.rmtree(target, ignore_errors=True)
    for start in range(0, len(prompts), 20):
        some = range(start, min(start + 20, len(prompts)))
        videos = pipeline(
            [prompts[i] for i in some],
            height=world.SIZE,
            width=world.SIZE,
            num_frames=world.FRAMES,
            num_inference_steps=options.steps,
            guidance_scale=options.guidance,
            generator=[torch.Generator().manual_seed(i) for i in some],
            output_type="np",
        ).frames
        for i, video in zip(some, videos):
            (target / f"{i:04}").mkdir(parents=True)
            for frame, pixels in enumerate((255 * video).round().astype("uint8")):
                Image.fromarray(pixels).save(target / f"{i:04}" / f"{frame:04}.png")
            (target / f"{i:04}.json").write_text(json.dumps(descriptions[i], indent=1) + "\n")
    print(f"score: {len(prompts)} videos in {target}; judge DIRECTORY/ --expect FILE.json says what each shows")


# ---- what it costs


def sizes(options):
    """Parameters, bytes as bf16 and NF4 (UMT5's `wo`, `time_embedder` and what is no linear stay bf16), FLOPs."""
    models = {**make_flow(options.sizes, 330), "vae": for_whole_clips(make_vae(options.sizes))}
    training.print_sizes(models, kept=("wo", "time_embedder"))

    n = 2
    step = FlowStep({name: models[name] for name in ("transformer", "text_encoder")})
    latents, ids = torch.randn(n, *LATENT), torch.ones((n, TEXT_LENGTH), dtype=torch.long)
    ids[:, 1:] = 0
    videos = videos_of(world.draw(n, torch.Generator().manual_seed(0)))
    flow_step = training.flops_of(lambda: step(latents, latents, torch.rand(n), ids)[0].backward()) / n
    encode = training.flops_of(lambda: encoded(models["vae"], videos)) / n
    decode = training.flops_of(lambda: decoded(models["vae"], latents)) / n
    vae_step = training.flops_of(lambda: VaeStep(models["vae"])(videos)[0].backward()) / n
    one = {"flow": flow_step, "encode": encode, "decode": decode, "VAE": vae_step}
    print("GFLOP a clip:", ", ".join(f"{name} {flops / 1e9:.2f}" for name, flops in one.items()))
    s = options.sizes
    of_step = {"flow": s.batch, "encode": s.fresh / s.fresh_every, "VAE": s.vae_batch}
    print("TFLOP a step:", ", ".join(f"{name} {n * one[name] / 1e12:.2f}" for name, n in of_step.items()))


def profile(options):
    """Milliseconds of each part of a step."""
    sizes = options.sizes
    generator = generator_of(options, 1)
    clips = world.draw(sizes.fresh, generator)
    timed = lambda name, run: training.print_time(name, run, options)
    timed("draw", lambda: world.draw(sizes.fresh, generator))
    timed("render", lambda: world.render(clips))

    def measure(name, module, *inputs):
        parameters = list(module.parameters())
        gradients = Gradients(module, parameters, options)
        optimizer = torch.optim.AdamW(parameters, fused=options.device != "cpu")

        def train():
            gradients(*inputs)
            optimizer.step()

        timed(name, train)

    coder = for_whole_clips(make_vae(sizes)).to(options.device)
    videos = videos_of(world.draw(sizes.vae_batch, generator))
    whole = VaeStep(coder)
    if options.compile:
        whole.compile(dynamic=False)
    measure("VAE step", whole, videos)
    step, tokens, pool, _ = start_flow(options)
    timed("renew (draw, render, encode)", lambda: pool.renew(sizes.fresh, generator))
    timed("batch", lambda: flow_batch(pool, tokens, sizes.batch, generator))
    if options.compile:
        step.compile_models()
    measure("flow step", step, *flow_batch(pool, tokens, sizes.batch, generator))


STAGES = {f.__name__: f for f in (tokenizers, vae, flow, export, score, sizes, profile)}


def main():
    budgets = {"vae": 4.5, "flow": 11}
    parser = training.parser(__doc__, STAGES, "build/demo-wan", budgets)
    parser.add_argument("--prompts", type=int, default=100, help="videos of score")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps of score")
    parser.add_argument("--guidance", type=float, default=5.0, help="guidance scale of score")
    options = parser.parse_args()
    options.sizes = TINY if options.tiny else DEMO
    options.budget = options.budget or budgets.get(options.stage)
    training.set_up()
    STAGES[options.stage](options)


if __name__ == "__main__":
    main()
