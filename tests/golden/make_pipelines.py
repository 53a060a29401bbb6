"""Writes tiny FLUX pipelines with random weights, and what diffusers computes with them.

Usage: python make_pipelines.py [OUT]        (default OUT: data/pipelines beside this file)

Each pipeline is a directory as diffusers' save_pretrained leaves it, plus `expected.json` (how it was called)
and `expected.safetensors` (what came out); README.md lists the keys. Everything runs on the CPU with one
thread.

Element types. "fp32": all components are loaded from their files and converted to float32 (exact for bfloat16
and float16 files). "bf16": FluxPipeline.from_pretrained(dtype=bfloat16). "nf4" and its kin: the fp32
components, except that the weight of each Linear of the transformer, and of text_encoder_2 without `wo`
(transformers leaves `wo` unquantized), is dequantize_4bit(quantize_4bit(weight)) of bitsandbytes, in float32.
CLIP and the VAE are never quantized.
"""

import copy
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
import torch
import transformers
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
CLIP_VOCABULARY, T5_VOCABULARY = 734, 448

PIPELINES = {
    "dev": {
        "seed": 5,
        "transformer": dict(
            num_layers=2,
            num_single_layers=3,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=24,
            guidance_embeds=True,
            axes_dims_rope=(4, 6, 6),
        ),
        "clip": dict(
            hidden_size=24,
            num_attention_heads=2,
            num_hidden_layers=2,
            intermediate_size=48,
            eos_token_id=2,
            bos_token_id=0,
            pad_token_id=1,
        ),
        "t5": dict(d_model=32, num_heads=2, d_kv=16, d_ff=72, num_layers=2),
        "vae": dict(
            block_out_channels=(4, 8, 8, 16),
            layers_per_block=1,
            norm_num_groups=2,
            sample_size=32,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        "scheduler": dict(shift=3.0, use_dynamic_shifting=True),
        "files": dict(transformer=FP32, text_encoder=FP32, text_encoder_2=FP32, vae=FP32),
        "shards": {"transformer": "250KB"},
        "tokenizers": ("transformers5", "transformers5"),
        "call": dict(
            prompt="A photo of an astronaut riding a horse on Mars, déjà vu 🚀",
            height=48,
            width=80,
            num_inference_steps=4,
            guidance_scale=3.5,
            max_sequence_length=40,
            seed=42,
        ),
        "decode": (1, 6, 10),
        "kinds": ("nf4", "nf4_dq", "nf4_bs128", "fp4"),
    },
    "schnell": {
        "seed": 2,
        "transformer": dict(
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=4,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            guidance_embeds=False,
            axes_dims_rope=(4, 6, 6),
        ),
        "clip": dict(
            hidden_size=32,
            num_attention_heads=4,
            num_hidden_layers=3,
            intermediate_size=80,
            eos_token_id=2,
            bos_token_id=0,
            pad_token_id=1,
        ),
        "t5": dict(d_model=32, num_heads=4, d_kv=8, d_ff=96, num_layers=3),
        "vae": dict(
            block_out_channels=(8, 8, 8, 16),
            layers_per_block=2,
            norm_num_groups=4,
            sample_size=1024,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        "scheduler": dict(shift=1.0, use_dynamic_shifting=False),
        "files": dict(transformer=BF16, text_encoder=BF16, text_encoder_2=BF16, vae=BF16),
        "shards": {"text_encoder_2": "60KB"},
        "tokenizers": ("transformers4", "transformers4"),
        "text_model_prefix": True,
        "call": dict(
            prompt="two cats & a dog by the river, 1897",
            height=32,
            width=64,
            num_inference_steps=4,
            guidance_scale=0.0,
            max_sequence_length=160,
            seed=7,
        ),
        "decode": (1, 4, 8),
        "kinds": ("nf4",),
    },
    "three_heads": {
        "seed": 3,
        "transformer": dict(
            num_layers=1,
            num_single_layers=2,
            attention_head_dim=18,
            num_attention_heads=3,
            joint_attention_dim=40,
            pooled_projection_dim=36,
            guidance_embeds=True,
            axes_dims_rope=(2, 6, 10),
        ),
        "clip": dict(
            hidden_size=36,
            num_attention_heads=3,
            num_hidden_layers=1,
            intermediate_size=52,
            eos_token_id=CLIP_VOCABULARY - 1,
            bos_token_id=CLIP_VOCABULARY - 2,
            pad_token_id=1,
            hidden_act="gelu",
        ),
        "t5": dict(
            d_model=40,
            num_heads=3,
            d_kv=16,
            d_ff=56,
            num_layers=1,
            relative_attention_num_buckets=16,
            relative_attention_max_distance=24,
        ),
        "vae": dict(
            block_out_channels=(8, 16, 16),
            layers_per_block=1,
            norm_num_groups=4,
            sample_size=16,
            use_quant_conv=True,
            use_post_quant_conv=True,
        ),
        "scheduler": dict(
            shift=3.0,
            use_dynamic_shifting=True,
            base_shift=0.4,
            max_shift=1.2,
            base_image_seq_len=16,
            max_image_seq_len=64,
        ),
        "files": dict(transformer=BF16, text_encoder=FP16, text_encoder_2=FP32, vae=FP16),
        "shards": {},
        "tokenizers": ("transformers4", "transformers4"),
        "call": dict(
            prompt="crème brûlée at a café in Zürich, 猫",
            height=40,
            width=56,
            num_inference_steps=3,
            guidance_scale=2.25,
            max_sequence_length=32,
            seed=2**40 + 11,
        ),
        "decode": (1, 5, 9),
        "kinds": ("nf4",),
    },
    "wide": {
        "seed": 4,
        "transformer": dict(
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=24,
            pooled_projection_dim=16,
            guidance_embeds=True,
            axes_dims_rope=(2, 4, 2),
        ),
        "clip": dict(
            hidden_size=16,
            num_attention_heads=1,
            num_hidden_layers=1,
            intermediate_size=32,
            eos_token_id=2,
            bos_token_id=0,
            pad_token_id=1,
        ),
        "t5": dict(d_model=24, num_heads=2, d_kv=8, d_ff=40, num_layers=2),
        "vae": dict(
            block_out_channels=(4, 8, 8, 8),
            layers_per_block=1,
            norm_num_groups=2,
            sample_size=32,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        "scheduler": dict(shift=3.0, use_dynamic_shifting=True),
        "files": dict(transformer=BF16, text_encoder=FP32, text_encoder_2=BF16, vae=FP32),
        "shards": {},
        "tokenizers": ("transformers5", "transformers4"),
        "call": dict(
            prompt=["a sailing ship in a storm", "an owl reading a book"],
            prompt_2=["a sailing ship in a storm, dramatic clouds", "an owl reading a book under a lamp"],
            negative_prompt=["blurry, low contrast", ""],
            true_cfg_scale=2.5,
            num_images_per_prompt=2,
            height=32,
            width=112,
            num_inference_steps=2,
            guidance_scale=4.0,
            max_sequence_length=20,
            seed=123,
        ),
        "decode": (2, 3, 5),
        "kinds": ("nf4",),
    },
}

QUANTIZATIONS = {
    "nf4": dict(quant_type="nf4"),
    "nf4_dq": dict(quant_type="nf4", double_quantization=True),
    "nf4_bs128": dict(quant_type="nf4", blocksize=128),
    "fp4": dict(quant_type="fp4"),
}


def build(recipe: dict) -> dict:
    """The four models, with random float32 weights."""
    seed = 100 * recipe["seed"]
    transformer = FluxTransformer2DModel(patch_size=1, in_channels=64, **recipe["transformer"])
    randomize(transformer, seed + 1)
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=CLIP_VOCABULARY,
            max_position_embeddings=golden_tokenizers.CLIP_LENGTH,
            projection_dim=recipe["clip"]["hidden_size"],
            **{"hidden_act": "quick_gelu"} | recipe["clip"],
        )
    )
    randomize(clip, seed + 2)
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=T5_VOCABULARY,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            is_encoder_decoder=False,
            use_cache=False,
            **recipe["t5"],
        )
    )
    kv = recipe["t5"]["d_kv"]
    randomize(t5, seed + 3, lambda name: kv**-0.5 if name.endswith("SelfAttention.q.weight") else 1.0)
    levels = len(recipe["vae"]["block_out_channels"])
    vae = AutoencoderKL(
        latent_channels=16,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        force_upcast=True,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        **recipe["vae"],
    )
    randomize(vae, seed + 4, lambda name: 0.35 if name == "decoder.conv_out.weight" else 1.0)
    return {
        "transformer": transformer.eval(),
        "text_encoder": clip.eval(),
        "text_encoder_2": t5.eval(),
        "vae": vae.eval(),
    }


def add_text_model_prefix(directory: pathlib.Path):
    """Names the CLIP weights as transformers 4 and the published FLUX files do: below `text_model.`."""
    from safetensors.torch import load_file

    path = directory / "model.safetensors"
    tensors = {
        f"text_model.{name}": tensor
        for name, tensor in load_file(str(path)).items()
        if not name.startswith("text_model.")
    }
    if tensors:
        write_tensors(path, tensors, {"format": "pt"})


def write_pipeline(recipe: dict, directory: pathlib.Path, scratch: pathlib.Path):
    models = build(recipe)
    clip_layout, t5_layout = recipe["tokenizers"]
    golden_tokenizers.write_clip(scratch / "clip", clip_layout)
    golden_tokenizers.write_t5(scratch / "t5", t5_layout, recipe["call"]["max_sequence_length"], scratch)
    for name, dtype in recipe["files"].items():
        models[name] = models[name].to(dtype)
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**recipe["scheduler"]),
        tokenizer=CLIPTokenizer.from_pretrained(scratch / "clip"),
        tokenizer_2=T5Tokenizer.from_pretrained(scratch / "t5"),
        **models,
    )
    pipeline.save_pretrained(directory)
    for name, size in recipe["shards"].items():
        shutil.rmtree(directory / name)
        models[name].save_pretrained(directory / name, max_shard_size=size)
    for name, source in (("tokenizer", "clip"), ("tokenizer_2", "t5")):
        shutil.rmtree(directory / name)
        shutil.copytree(scratch / source, directory / name)
    if recipe.get("text_model_prefix"):
        add_text_model_prefix(directory / "text_encoder")
    make_readable(directory)


def call_arguments(call: dict) -> dict:
    arguments = {key: value for key, value in call.items() if key != "seed"}
    arguments["generator"] = torch.Generator("cpu").manual_seed(call["seed"])
    return arguments


def encode(pipeline, call, negative=False) -> dict:
    prompt = call["negative_prompt"] if negative else call["prompt"]
    prompt_2 = prompt if negative else call.get("prompt_2", prompt)
    clip_ids = pipeline.tokenizer(
        prompt,
        padding="max_length",
        max_length=pipeline.tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    t5_ids = pipeline.tokenizer_2(
        prompt_2,
        padding="max_length",
        max_length=call["max_sequence_length"],
        truncation=True,
        return_tensors="pt",
    ).input_ids
    clip = pipeline.text_encoder(clip_ids)
    return {
        "clip.ids": clip_ids.to(torch.int32).reshape(-1, clip_ids.shape[-1]),
        "clip.last_hidden_state": clip.last_hidden_state,
        "clip.pooled": clip.pooler_output,
        "t5.ids": t5_ids.to(torch.int32).reshape(-1, t5_ids.shape[-1]),
        "t5.last_hidden_state": pipeline.text_encoder_2(t5_ids).last_hidden_state,
    }


def forward(pipeline, inputs: dict, intermediates=False) -> dict:
    """One transformer forward on the inputs; `intermediates` adds what passes between its parts."""
    seen, handles = {}, []
    transformer = pipeline.transformer

    def keep(module, key, pick=lambda output: output):
        def hook(_module, _arguments, output):
            seen[key] = pick(output).clone()

        handles.append(module.register_forward_hook(hook))

    if intermediates:
        keep(transformer.time_text_embed, "forward.temb")
        keep(transformer.transformer_blocks[0], "forward.double_0.text", lambda output: output[0])
        keep(transformer.transformer_blocks[0], "forward.double_0.image", lambda output: output[1])
        keep(transformer.single_transformer_blocks[0], "forward.single_0.image", lambda output: output[1])
    seen["forward.sample"] = transformer(**inputs, return_dict=False)[0]
    for handle in handles:
        handle.remove()
    return seen


def forward_inputs(
    pipeline, call, states: dict, noise: torch.Tensor, packed: torch.Tensor, timesteps
) -> dict:
    images = packed.shape[0]
    repeat = lambda tensor: tensor.repeat_interleave(images // tensor.shape[0], dim=0)
    dtype = packed.dtype
    step = 1
    guidance = None
    if pipeline.transformer.config.guidance_embeds:
        guidance = torch.full([images], call["guidance_scale"], dtype=torch.float32)
    return dict(
        hidden_states=packed,
        encoder_hidden_states=repeat(states["t5.last_hidden_state"]),
        pooled_projections=repeat(states["clip.pooled"]),
        timestep=timesteps[step].expand(images).to(dtype) / 1000,
        guidance=guidance,
        img_ids=pipeline._prepare_latent_image_ids(
            images, noise.shape[2] // 2, noise.shape[3] // 2, "cpu", dtype
        ),
        txt_ids=torch.zeros(call["max_sequence_length"], 3, dtype=dtype),
    )


def start(pipeline, call, dtype):
    """Initial noise (unpacked and packed) and the schedule, as FluxPipeline makes them."""
    prompts = call["prompt"] if isinstance(call["prompt"], list) else [call["prompt"]]
    images = len(prompts) * call.get("num_images_per_prompt", 1)
    side = lambda pixels: 2 * (pixels // (pipeline.vae_scale_factor * 2))
    shape = (images, 16, side(call["height"]), side(call["width"]))
    noise = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(call["seed"]), dtype=dtype)
    packed = pipeline._pack_latents(noise, *shape)
    check, _ = pipeline.prepare_latents(
        images,
        16,
        call["height"],
        call["width"],
        dtype,
        torch.device("cpu"),
        torch.Generator("cpu").manual_seed(call["seed"]),
    )
    assert torch.equal(check, packed)
    return noise, packed


def run(pipeline, call) -> dict:
    """The whole call: packed latents and, in fp32 runs, the picture."""
    return {"latents": pipeline(**call_arguments(call), output_type="latent").images}


def picture(pipeline, call) -> torch.Tensor:
    images = pipeline(**call_arguments(call), output_type="np").images
    return torch.from_numpy(numpy.round(images * 255).astype("uint8"))


def decode(pipeline, name: str, shape) -> dict:
    latents = normal(f"{name}.decode", (shape[0], 16, *shape[1:]))
    vae = pipeline.vae
    result = {"decode.latents": latents, "decode.plain": vae.decode(latents, return_dict=False)[0]}
    if max(shape[1:]) > vae.tile_latent_min_size:
        vae.enable_tiling()
        result["decode.tiled"] = vae.decode(latents, return_dict=False)[0]
        vae.disable_tiling()
    if shape[0] > 1:
        vae.enable_slicing()
        assert torch.allclose(vae.decode(latents, return_dict=False)[0], result["decode.plain"], atol=1e-5)
        vae.disable_slicing()
    return result


def expected(name: str, recipe: dict, directory: pathlib.Path) -> tuple[dict, dict]:
    call = recipe["call"]
    base = FluxPipeline.from_pretrained(directory, dtype=torch.float32)
    base.set_progress_bar_config(disable=True)
    for component in ("transformer", "text_encoder", "text_encoder_2", "vae"):
        getattr(base, component).float().eval()
    tensors = {}

    states = encode(base, call)
    tensors |= states
    if "negative_prompt" in call:
        tensors |= {f"negative.{key}": value for key, value in encode(base, call, negative=True).items()}
    noise, packed = start(base, call, torch.float32)
    tensors |= {"noise": noise, "noise_packed": packed}
    tensors["latents"] = run(base, call)["latents"]
    tensors |= {
        "scheduler.sigmas": base.scheduler.sigmas.clone(),
        "scheduler.timesteps": base.scheduler.timesteps.clone(),
    }
    inputs = forward_inputs(base, call, states, noise, packed, base.scheduler.timesteps)
    for key in ("encoder_hidden_states", "pooled_projections", "timestep", "guidance"):
        if inputs[key] is not None:
            tensors[f"forward.{key}"] = inputs[key]
    tensors |= forward(base, inputs, intermediates=True)
    tensors["image"] = picture(base, call)
    tensors |= decode(base, name, recipe["decode"])
    if max(noise.shape[2:]) > base.vae.tile_latent_min_size:
        base.vae.enable_tiling()
        tensors["image_tiled"] = picture(base, call)
        base.vae.disable_tiling()

    for kind in recipe["kinds"]:
        options = QUANTIZATIONS[kind]
        quantized = FluxPipeline(
            **base.components
            | {
                "transformer": quantize_linears(copy.deepcopy(base.transformer), **options),
                "text_encoder_2": quantize_linears(
                    copy.deepcopy(base.text_encoder_2), skip=("wo",), **options
                ),
            }
        )
        quantized.set_progress_bar_config(disable=True)
        tensors[f"{kind}.t5.last_hidden_state"] = encode(quantized, call)["t5.last_hidden_state"]
        tensors[f"{kind}.forward.sample"] = forward(quantized, inputs)["forward.sample"]
        tensors[f"{kind}.latents"] = run(quantized, call)["latents"]
        if kind == "nf4":
            tensors["nf4.image"] = picture(quantized, call)

    half = FluxPipeline.from_pretrained(directory, dtype=torch.bfloat16)
    half.set_progress_bar_config(disable=True)
    half_states = encode(half, call)
    half_noise, half_packed = start(half, call, torch.bfloat16)
    tensors |= {
        "bf16.noise": half_noise,
        "bf16.noise_packed": half_packed,
        "bf16.t5.last_hidden_state": half_states["t5.last_hidden_state"],
        "bf16.clip.pooled": half_states["clip.pooled"],
        "bf16.latents": run(half, call)["latents"],
    }
    half_inputs = forward_inputs(half, call, half_states, half_noise, half_packed, half.scheduler.timesteps)
    tensors["bf16.forward.timestep"] = half_inputs["timestep"]
    tensors["bf16.forward.sample"] = forward(half, half_inputs)["forward.sample"]

    facts = {
        "call": call
        | {
            "negative_prompt": call.get("negative_prompt"),
            "prompt_2": call.get("prompt_2"),
            "true_cfg_scale": call.get("true_cfg_scale", 1.0),
            "num_images_per_prompt": call.get("num_images_per_prompt", 1),
        },
        "forward": {
            "step": 1,
            "img_ids": list(inputs["img_ids"].shape),
            "txt_ids": list(inputs["txt_ids"].shape),
        },
        "files": {key: str(value).removeprefix("torch.") for key, value in recipe["files"].items()},
        "bf16_dtypes": {
            key: sorted({str(p.dtype).removeprefix("torch.") for p in getattr(half, key).parameters()})
            for key in recipe["files"]
        },
        "tokenizers": {"tokenizer": recipe["tokenizers"][0], "tokenizer_2": recipe["tokenizers"][1]},
        "versions": versions(),
    }
    return tensors, facts


TOKEN_TEXTS = [
    "",
    " ",
    "     ",
    "\n\t \n",
    "a",
    "A",
    "a photo of a cat",
    "A PHOTO OF A CAT",
    "  leading and trailing  ",
    "double  spaces   between",
    "line one\nline two\ttab\r\ncarriage",
    "no-break\u00a0space, thin\u2009space, zero\u200bwidth",
    "🙂",
    "🚀🚀 to the moon 👩‍🚀🏽 flags 🇯🇵",
    "cafe\u0301 versus caf\u00e9",
    "a\u0300\u0301\u0302\u0303 many marks",
    "猫が窓の外を見ている",
    "一只猫坐在窗台上",
    "고양이가 창밖을 보고 있다",
    "кошка СИДИТ",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "ไทย",
    "ﬁne ﬂow ½ Ⅳ ① ｆｕｌｌｗｉｄｔｈ ℃ ™",
    "İstanbul ẞtraße ΣΊΣΥΦΟΣ ǅ",
    "don't we're they'll I've I'd it's I'm DON'T",
    "'s'S 's' ''",
    "...!!!???;;;:,,,",
    "(a (b) [c] {d}) <e> \"f\" 'g' `h`",
    "C++ & C# @ 100% ~ ^ * = + - _ / \\ | $",
    "1234567890 3.14159 1,000,000 ٣٤ ²",
    "42kites7lanterns",
    "&amp; &lt;b&gt; &quot;x&quot; &#39;y&#39; &nbsp;",
    "</s>",
    "a </s> b",
    "<pad><unk>",
    "<unk> x",
    "<|endoftext|>",
    "x<|startoftext|>y <|endoftext|> z",
    "<|ENDOFTEXT|>",
    "<extra_id_0>",
    "fill <extra_id_0> and <extra_id_99>.",
    "▁ under ▁score",
    "antidisestablishmentarianism",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "zzz qqq jjj",
    "control \u0001\u0007\u007f characters",
    "soft\u00adhyphen \ufeffbom \u202eoverride",
    "\ufffd replacement \U0001f9ff",
    "a photo of an astronaut riding a horse on mars, oil on canvas, very detailed, studio lighting, "
    "high contrast, soft light, warm colours, shallow depth of field, long exposure, cinematic, "
    "macro photograph, storybook illustration",
]
TOKEN_REPEATS = [("a cat and a dog ", 2000), ("猫", 500), ("antidis", 3000), ("🙂 ", 300)]


def token_cases(directory: pathlib.Path) -> dict:
    """Ids without padding, truncated; SentencePiece's own ids where they differ from T5Tokenizer's."""
    import sentencepiece

    clip = {
        layout: CLIPTokenizer.from_pretrained(directory / name / "tokenizer")
        for layout, name in (("transformers5", "dev"), ("transformers4", "schnell"))
    }
    t5 = {
        layout: T5Tokenizer.from_pretrained(directory / name / "tokenizer_2")
        for layout, name in (("transformers5", "dev"), ("transformers4", "schnell"))
    }
    model = sentencepiece.SentencePieceProcessor(model_proto=golden_tokenizers.train_t5())
    length = 128

    def one(text):
        ids = lambda tokenizer, longest: tokenizer(text, truncation=True, max_length=longest).input_ids
        clip_ids = {
            layout: ids(tokenizer, golden_tokenizers.CLIP_LENGTH) for layout, tokenizer in clip.items()
        }
        t5_ids = {layout: ids(tokenizer, length) for layout, tokenizer in t5.items()}
        assert len({str(value) for value in clip_ids.values()}) == 1, text
        assert len({str(value) for value in t5_ids.values()}) == 1, text
        case = {"clip_ids": clip_ids["transformers5"], "t5_ids": t5_ids["transformers5"]}
        raw = [*model.encode(text)[: length - 1], 1]
        if raw != case["t5_ids"]:
            case["sentencepiece_ids"] = raw
        return case

    cases = [{"text": text} | one(text) for text in TOKEN_TEXTS]
    cases += [{"repeat": text, "count": count} | one(text * count) for text, count in TOKEN_REPEATS]
    return {
        "clip_max_length": golden_tokenizers.CLIP_LENGTH,
        "t5_max_length": length,
        "clip_pad": clip["transformers5"].pad_token_id,
        "t5_pad": t5["transformers5"].pad_token_id,
        "cases": cases,
    }


def main():
    set_up_torch()
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else DATA / "pipelines"
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
        image = tensors["image"].float()
        print(
            f"{name}: {len(tensors)} tensors, finite {finite}, picture mean {image.mean():.1f} "
            f"deviation {image.std():.1f} "
            f"saturated {((image == 0) | (image == 255)).float().mean():.3f}"
        )
    write_json(out / "tokens.json", token_cases(out))


if __name__ == "__main__":
    main()
