"""Writes tiny Wan 2.1 text-to-video pipelines with random weights, and what diffusers computes with them.

Usage: python make_wan.py [OUT]        (default OUT: data/wan beside this file)

Each pipeline is a directory as diffusers' save_pretrained leaves it, plus `expected.json` (how it was called)
and `expected.safetensors` (what came out); README.md lists the keys. Everything runs on the CPU with one
thread.

Element types. "fp32": all components are loaded from their files and converted to float32. "bf16":
WanPipeline.from_pretrained(dtype=bfloat16) with the VAE in float32, as diffusers recommends. "nf4": the fp32
components, except that the weight of each Linear of the transformer without `time_embedder`, and of the text
encoder without `wo` (both libraries leave these unquantized), is dequantize_4bit(quantize_4bit(weight)) of
bitsandbytes, in float32.
"""

import copy
import json
import math
import pathlib
import shutil
import sys
import tempfile

from golden_common import (
    DATA,
    make_readable,
    normal,
    quantize_linears,
    randomize,
    set_up_torch,
    versions,
    write_json,
    write_tensors,
)
import golden_tokenizers

import diffusers
import numpy
import tokenizers
import torch
import transformers
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from make_pipelines import TOKEN_TEXTS
from transformers import T5TokenizerFast, UMT5Config, UMT5EncoderModel

BF16, FP32 = torch.bfloat16, torch.float32
VOCABULARY = 608  # more rows than the tokenizer has ids, as in UMT5
LATENTS_MEAN = [-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
                0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921]
LATENTS_STD = [2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
               3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160]
UNIPC = dict(
    prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0
)

PIPELINES = {
    "two_blocks": {
        "seed": 1,
        "transformer": dict(
            num_layers=2,
            num_attention_heads=2,
            attention_head_dim=12,
            ffn_dim=40,
            text_dim=32,
            cross_attn_norm=True,
        ),
        "umt5": dict(d_model=32, num_heads=2, d_kv=16, d_ff=72, num_layers=2),
        "vae": dict(
            base_dim=2,
            decoder_base_dim=3,
            z_dim=16,
            dim_mult=[1, 2, 4, 4],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            scale_factor_temporal=4,
            scale_factor_spatial=8,
        ),
        "scheduler": (UniPCMultistepScheduler, UNIPC),
        "files": dict(transformer=FP32, text_encoder=FP32, vae=FP32),
        "shards": {},
        "tokenizer": "both",
        "call": dict(
            prompt="  A photo of an astronaut\n riding a horse &amp;amp; a dog on Mars,\u00a0d&eacute;j&agrave vu ",
            negative_prompt="blurry, low contrast &amp; dark",
            height=32,
            width=48,
            num_frames=9,
            num_inference_steps=4,
            guidance_scale=5.0,
            max_sequence_length=48,
            seed=42,
        ),
        "decode": (1, 2, 4, 5),
        "tiling": dict(
            tile_sample_min_height=32,
            tile_sample_min_width=32,
            tile_sample_stride_height=24,
            tile_sample_stride_width=16,
        ),
        "kinds": (),
    },
    "one_block": {
        "seed": 2,
        "transformer": dict(
            num_layers=1,
            num_attention_heads=3,
            attention_head_dim=16,
            ffn_dim=56,
            text_dim=24,
            cross_attn_norm=False,
        ),
        "umt5": dict(
            d_model=24,
            num_heads=3,
            d_kv=8,
            d_ff=40,
            num_layers=3,
            relative_attention_num_buckets=16,
            relative_attention_max_distance=24,
        ),
        "vae": dict(
            base_dim=2,
            decoder_base_dim=6,
            z_dim=4,
            dim_mult=[1, 2, 2],
            num_res_blocks=2,
            temperal_downsample=[True, False],
            scale_factor_temporal=2,
            scale_factor_spatial=4,
        ),
        "scheduler": (FlowMatchEulerDiscreteScheduler, dict(shift=3.0)),
        "files": dict(transformer=BF16, text_encoder=BF16, vae=BF16),
        "shards": {"transformer": "70KB", "text_encoder": "40KB"},
        "tokenizer": "inside",
        "call": dict(
            prompt="two cats &amp; a dog by the river, 1897",
            height=32,
            width=16,
            num_frames=5,
            num_inference_steps=3,
            guidance_scale=1.0,
            max_sequence_length=512,
            seed=7,
        ),
        "decode": (1, 2, 9, 6),
        "tiling": dict(
            tile_sample_min_height=16,
            tile_sample_min_width=16,
            tile_sample_stride_height=12,
            tile_sample_stride_width=12,
        ),
        "kinds": (),
    },
    "three_blocks": {
        "seed": 3,
        "transformer": dict(
            num_layers=3,
            num_attention_heads=2,
            attention_head_dim=20,
            ffn_dim=44,
            text_dim=32,
            cross_attn_norm=True,
        ),
        "umt5": dict(d_model=32, num_heads=4, d_kv=8, d_ff=56, num_layers=1),
        "vae": dict(
            base_dim=3,
            z_dim=16,
            dim_mult=[1, 2, 4, 4],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            scale_factor_temporal=4,
            scale_factor_spatial=8,
        ),
        "scheduler": (UniPCMultistepScheduler, UNIPC | dict(flow_shift=5.0)),
        "files": dict(transformer="mixed", text_encoder=BF16, vae=BF16),
        "shards": {},
        "tokenizer": "spiece",
        "call": dict(
            prompt=[
                "a sailing ship in a storm",
                "an owl reading a book under a lamp, cosy, storybook illustration",
            ],
            height=16,
            width=32,
            num_frames=13,
            num_inference_steps=6,
            guidance_scale=3.5,
            max_sequence_length=20,
            seed=123,
        ),
        "decode": (2, 2, 3, 2),
        "tiling": None,
        "kinds": ("nf4",),
    },
}


def build(recipe: dict) -> dict:
    """The three models, with random float32 weights."""
    seed = 1000 + 100 * recipe["seed"]
    channels = recipe["vae"]["z_dim"]
    transformer = WanTransformer3DModel(in_channels=channels, out_channels=channels, **recipe["transformer"])
    # randomize() divides a table by the root of its row; this gives its entries a deviation of 0.3.
    inner = recipe["transformer"]["num_attention_heads"] * recipe["transformer"]["attention_head_dim"]
    rows = {f"blocks.{i}.scale_shift_table": 6 for i in range(recipe["transformer"]["num_layers"])}
    rows["scale_shift_table"] = 2
    randomize(
        transformer, seed + 1, lambda name: 0.3 * math.sqrt(rows[name] * inner) if name in rows else 1.0
    )
    umt5 = UMT5EncoderModel(
        UMT5Config(
            vocab_size=VOCABULARY,
            feed_forward_proj="gated-gelu",
            is_encoder_decoder=False,
            use_cache=False,
            **recipe["umt5"],
        )
    )
    kv = recipe["umt5"]["d_kv"]
    randomize(umt5, seed + 2, lambda name: kv**-0.5 if name.endswith("SelfAttention.q.weight") else 1.0)
    vae = AutoencoderKLWan(
        latents_mean=LATENTS_MEAN[:channels], latents_std=LATENTS_STD[:channels], **recipe["vae"]
    )
    randomize(vae, seed + 3, lambda name: 0.5 if name == "decoder.conv_out.weight" else 1.0)
    return {"transformer": transformer.eval(), "text_encoder": umt5.eval(), "vae": vae.eval()}


def convert(model, dtype):
    """"mixed" is bfloat16 but for what diffusers keeps in float32 when it loads in bfloat16."""
    if dtype != "mixed":
        return model.to(dtype)
    kept = model._keep_in_fp32_modules
    for name, parameter in model.named_parameters():
        if not any(part in kept for part in name.split(".")):
            parameter.data = parameter.data.to(BF16)
    return model


def write_pipeline(recipe: dict, directory: pathlib.Path, scratch: pathlib.Path):
    models = build(recipe)
    golden_tokenizers.write_umt5(scratch / "tokenizer", recipe["tokenizer"], 512)
    for name, dtype in recipe["files"].items():
        models[name] = convert(models[name], dtype)
    kind, options = recipe["scheduler"]
    pipeline = WanPipeline(
        scheduler=kind(**options), tokenizer=T5TokenizerFast.from_pretrained(scratch / "tokenizer"), **models
    )
    pipeline.save_pretrained(directory)
    for name, size in recipe["shards"].items():
        shutil.rmtree(directory / name)
        models[name].save_pretrained(directory / name, max_shard_size=size)
    shutil.rmtree(directory / "tokenizer")
    shutil.copytree(scratch / "tokenizer", directory / "tokenizer")
    index = json.loads((directory / "model_index.json").read_text())
    index["tokenizer"] = ["transformers", "T5TokenizerFast"]  # the name in the published checkpoints
    (directory / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    make_readable(directory)


def load(directory: pathlib.Path, dtype):
    vae = AutoencoderKLWan.from_pretrained(directory / "vae", dtype=FP32)
    pipeline = WanPipeline.from_pretrained(directory, vae=vae, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    if dtype == FP32:
        for component in ("transformer", "text_encoder", "vae"):
            getattr(pipeline, component).float().eval()
    return pipeline


def encode(pipeline, prompts: list, length: int) -> dict:
    tokens = pipeline.tokenizer(
        [prompt_clean(prompt) for prompt in prompts],
        padding="max_length",
        max_length=length,
        truncation=True,
        add_special_tokens=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    assert not (tokens.input_ids == 2).any(), "text that the tokenizer does not know: see tokens.json"
    states = pipeline._get_t5_prompt_embeds(prompts, max_sequence_length=length)
    lengths = tokens.attention_mask.sum(dim=1)
    for row, count in zip(states, lengths):
        assert not row[count:].any() and row[:count].any(dim=1).all()
    return {
        "umt5.ids": tokens.input_ids.to(torch.int32),
        "umt5.lengths": lengths.to(torch.int32),
        "umt5.states": states,
    }


def forward(pipeline, latents, timestep, states, intermediates=False) -> dict:
    """One transformer forward; `intermediates` adds what passes between its parts."""
    seen, handles = {}, []
    transformer = pipeline.transformer

    def keep(module, key, pick=lambda output: output):
        def hook(_module, _arguments, output):
            seen[key] = pick(output).clone()

        handles.append(module.register_forward_hook(hook))

    if intermediates:
        keep(transformer.condition_embedder, "forward.temb", lambda output: output[0])
        keep(transformer.condition_embedder, "forward.timestep_projection", lambda output: output[1])
        keep(transformer.condition_embedder, "forward.text", lambda output: output[2][:, :48])
        keep(transformer.patch_embedding, "forward.patches", lambda output: output.flatten(2).transpose(1, 2))
        for index, block in enumerate(transformer.blocks):
            keep(block, f"forward.block_{index}")
    seen["forward.velocity"] = transformer(
        hidden_states=latents,
        timestep=timestep.expand(latents.shape[0]),
        encoder_hidden_states=states,
        return_dict=False,
    )[0]
    for handle in handles:
        handle.remove()
    return seen


def arguments_of(call: dict) -> dict:
    arguments = {key: value for key, value in call.items() if key != "seed"}
    arguments["generator"] = torch.Generator("cpu").manual_seed(call["seed"])
    return arguments


def run(pipeline, call, keep_steps=False) -> dict:
    """The whole call up to the latents; with what the scheduler was given and returned at each step."""
    velocities, samples = [], []
    step = pipeline.scheduler.step

    def recorded(velocity, timestep, sample, return_dict=True):
        result = step(velocity, timestep, sample, return_dict=False)[0]
        velocities.append(velocity.clone())
        samples.append(result.clone())
        return (result,)

    pipeline.scheduler.step = recorded
    latents = pipeline(**arguments_of(call), output_type="latent").frames
    del pipeline.scheduler.step
    result = {"latents": latents}
    if keep_steps:
        result |= {
            "steps.velocity": torch.stack(velocities).flatten(1),
            "steps.sample": torch.stack(samples).flatten(1),
        }
    return result


def video(pipeline, call) -> torch.Tensor:
    return torch.from_numpy(pipeline(**arguments_of(call), output_type="np").frames)


def decode(pipeline, name: str, recipe: dict) -> dict:
    shape = recipe["decode"]
    vae = pipeline.vae
    latents = normal(f"{name}.decode", (shape[0], vae.config.z_dim, *shape[1:]))
    result = {"decode.latents": latents, "decode.plain": vae.decode(latents, return_dict=False)[0]}
    if recipe["tiling"]:
        vae.enable_tiling(**recipe["tiling"])
        result["decode.tiled"] = vae.decode(latents, return_dict=False)[0]
        vae.disable_tiling()
        assert not torch.equal(result["decode.tiled"], result["decode.plain"])
    if shape[0] > 1:
        vae.enable_slicing()
        assert torch.allclose(vae.decode(latents, return_dict=False)[0], result["decode.plain"], atol=1e-5)
        vae.disable_slicing()
    return result


def expected(name: str, recipe: dict, directory: pathlib.Path) -> tuple[dict, dict]:
    call = recipe["call"]
    length = call["max_sequence_length"]
    prompts = call["prompt"] if isinstance(call["prompt"], list) else [call["prompt"]]
    guided = call["guidance_scale"] > 1.0
    negative = [call.get("negative_prompt") or ""] * len(prompts)
    base = load(directory, FP32)

    tensors = encode(base, prompts, length)
    if guided:
        tensors |= {f"negative.{key}": value for key, value in encode(base, negative, length).items()}
    noise = base.prepare_latents(
        len(prompts), base.transformer.config.in_channels, call["height"], call["width"], call["num_frames"],
        FP32, torch.device("cpu"), torch.Generator("cpu").manual_seed(call["seed"]),
    )
    tensors["noise"] = noise
    tensors |= run(base, call, keep_steps=True)
    timesteps = base.scheduler.timesteps.clone()
    tensors |= {"scheduler.sigmas": base.scheduler.sigmas.clone(), "scheduler.timesteps": timesteps}
    tensors |= forward(base, noise, timesteps[1], tensors["umt5.states"], intermediates=True)
    tensors["video"] = video(base, call)[-1:]
    if name == "two_blocks":
        tensors["video.exported"] = torch.from_numpy((tensors["video"].numpy() * 255).astype(numpy.uint8))
    tensors |= decode(base, name, recipe)

    for kind in recipe["kinds"]:
        quantized = WanPipeline(
            **base.components
            | {
                "transformer": quantize_linears(
                    copy.deepcopy(base.transformer), quant_type=kind, skip=("time_embedder",)
                ),
                "text_encoder": quantize_linears(
                    copy.deepcopy(base.text_encoder), quant_type=kind, skip=("wo",)
                ),
            }
        )
        quantized.set_progress_bar_config(disable=True)
        tensors[f"{kind}.umt5.states"] = encode(quantized, prompts, length)["umt5.states"]
        given = forward(quantized, noise, timesteps[1], tensors["umt5.states"])
        tensors[f"{kind}.forward.velocity"] = given["forward.velocity"]
        tensors[f"{kind}.latents"] = run(quantized, call)["latents"]

    half = load(directory, BF16)
    half_states = encode(half, prompts, length)["umt5.states"]
    tensors["bf16.umt5.states"] = half_states
    given = forward(half, noise.to(BF16), timesteps[1], half_states)
    tensors["bf16.forward.velocity"] = given["forward.velocity"]
    tensors["bf16.latents"] = run(half, call)["latents"]

    facts = {
        "call": call | {"negative_prompt": call.get("negative_prompt")},
        "prompts_cleaned": [prompt_clean(prompt) for prompt in prompts],
        "negative_prompts_cleaned": [prompt_clean(prompt) for prompt in negative] if guided else [],
        "forward": {"step": 1},
        "tiling": recipe["tiling"],
        "files": {key: str(value).removeprefix("torch.") for key, value in recipe["files"].items()},
        "bf16_dtypes": {
            key: sorted({str(p.dtype).removeprefix("torch.") for p in getattr(half, key).parameters()})
            for key in recipe["files"]
        },
        "tokenizer": recipe["tokenizer"],
        "versions": versions(),
    }
    return tensors, facts


TOKEN_LENGTH = 64


def token_cases(directory: pathlib.Path) -> dict:
    """Ids of cleaned texts without padding, truncated, by the tokenizer.json of two pipelines. These are the ids of
    transformers' AutoTokenizer; its class T5Tokenizer gives unknown text id 2 whatever the file says (checked).
    Left out is a literal U+2581 behind a blank, a word of its own for the file, not for the class."""

    def load(name, byte_fallback=False):
        text = json.loads((directory / name / "tokenizer" / "tokenizer.json").read_text())
        text["model"]["byte_fallback"] = byte_fallback
        tokenizer = tokenizers.Tokenizer.from_str(json.dumps(text))
        tokenizer.enable_truncation(TOKEN_LENGTH)
        return tokenizer

    kinds = {
        "two_blocks": load("two_blocks"),
        "one_block": load("one_block"),
        "two_blocks_bytes": load("two_blocks", byte_fallback=True),
    }
    three = T5TokenizerFast.from_pretrained(directory / "three_blocks" / "tokenizer")
    cases = []
    texts = [text for text in TOKEN_TEXTS if " \u2581" not in text]
    for text in texts + [text * count for text, count in (("a cat and a dog ", 40), ("\u732b", 90))]:
        text = prompt_clean(text)
        case = {"text": text} | {kind: tokenizer.encode(text).ids for kind, tokenizer in kinds.items()}
        rebuilt = three(text, truncation=True, max_length=TOKEN_LENGTH).input_ids
        assert [3 if id == 2 else id for id in rebuilt] == case["two_blocks"], text
        cases.append(case)
    return {"max_length": TOKEN_LENGTH, "cases": cases}


def main():
    set_up_torch()
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else DATA / "wan"
    for name, recipe in PIPELINES.items():
        directory = out / name
        shutil.rmtree(directory, ignore_errors=True)
        with tempfile.TemporaryDirectory() as scratch:
            write_pipeline(recipe, directory, pathlib.Path(scratch))
        tensors, facts = expected(name, recipe, directory)
        write_tensors(directory / "expected.safetensors", tensors)
        write_json(directory / "expected.json", facts)
        finite = all(
            bool(tensor.isfinite().all()) for tensor in tensors.values() if tensor.is_floating_point()
        )
        frames = tensors["video"]
        print(
            f"{name}: {len(tensors)} tensors, finite {finite}, frames mean {frames.mean():.3f} "
            f"deviation {frames.std():.3f} saturated {((frames <= 0) | (frames >= 1)).float().mean():.3f}"
        )
    write_json(out / "tokens.json", token_cases(out))


if __name__ == "__main__":
    main()
