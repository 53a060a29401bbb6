"""What train.py and train_wan.py share: checkpoints, time, averages, a pool of latents, a tokenizer of known words."""

import argparse
import contextlib
import json
import math
import pathlib
import shutil
import time

import torch
from safetensors import safe_open
from safetensors.torch import save_file

MOST_BYTES = 14 * 2**20  # of one checkpoint file


# ---- the command line


def parser(doc, stages, work, budgets):
    """Options of every stage. budgets: minutes of the stages that train"""
    result = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("stage", choices=stages)
    result.add_argument("--work", type=pathlib.Path, default=pathlib.Path(work), help="directory of all files")
    result.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    result.add_argument("--minutes", type=float, default=9, help="of this call (vae, flow)")
    told = ", ".join(f"{minutes} for {stage}" for stage, minutes in budgets.items())
    result.add_argument(
        "--budget", type=float, help=f"minutes of the whole stage, which the learning rate follows; {told}"
    )
    result.add_argument("--compile", action="store_true", help="torch.compile (vae, flow, profile)")
    result.add_argument("--tiny", action="store_true", help="small models: a test of every stage, which learns nothing")
    return result


def set_up():
    torch.set_float32_matmul_precision("high")
    # cuDNN's backward pass of attention reads out of bounds at such short lengths (PyTorch's issue 169849).
    torch.backends.cuda.enable_cudnn_sdp(False)


def on_device(options):
    """bfloat16 products where there is a GPU; the CPU stays in float32."""
    if options.device == "cpu":
        return contextlib.nullcontext()
    return torch.autocast("cuda", torch.bfloat16, cache_enabled=False)  # a recorded step keeps nothing for the next


def generator_of(options, step):
    """A call that goes on sees other scenes than the one before."""
    return torch.Generator(options.device).manual_seed(1000 + step)


# ---- checkpoints


def save_checkpoint(work, stem, tensors, progress):
    """Writes STEM-STEP-PART.safetensors files of at most MOST_BYTES, then removes those of earlier steps."""
    work.mkdir(parents=True, exist_ok=True)
    earlier = list(work.glob(f"{stem}-*.safetensors"))
    parts, size = [{}], 0
    for name, tensor in tensors.items():
        tensor = tensor.detach().to("cpu").contiguous()
        if size + tensor.nbytes > MOST_BYTES:
            parts.append({})
            size = 0
        parts[-1][name] = tensor
        size += tensor.nbytes
    metadata = {"progress": json.dumps(progress), "parts": str(len(parts))}
    for number, part in enumerate(parts):
        path = work / f"{stem}-{progress['step']:07}-{number}.safetensors"
        save_file(part, path.with_suffix(".partial"), metadata=metadata)
        path.with_suffix(".partial").replace(path)
    for path in earlier:
        if f"-{progress['step']:07}-" not in path.name:
            path.unlink()


def load_checkpoint(work, stem):
    """-> (tensors, progress) of the last complete checkpoint, or ({}, None)"""
    steps = sorted({path.name.split("-")[-2] for path in work.glob(f"{stem}-*.safetensors")}, reverse=True)
    for step in steps:
        paths = sorted(work.glob(f"{stem}-{step}-*.safetensors"))
        tensors = {}
        for path in paths:
            with safe_open(path, "pt") as file:
                metadata = file.metadata()
                tensors |= {name: file.get_tensor(name) for name in file.keys()}
        if len(paths) == int(metadata["parts"]):
            return tensors, json.loads(metadata["progress"])
    return {}, None


def needed_checkpoint(work, stem):
    """The same, of a stage that must have run."""
    tensors, progress = load_checkpoint(work, stem)
    if not progress:
        raise SystemExit(f"{work}: no {stem}-*.safetensors; run the stage `{stem}` first")
    return tensors, progress


def load_module(module, tensors, prefix=""):
    module.load_state_dict({name[len(prefix) :]: t.float() for name, t in tensors.items() if name.startswith(prefix)})


def averaged_tensors(models, average):
    """COMPONENT:NAME -> bfloat16 of every tensor of `models`, a ModuleDict, whose parameters `average` is of."""
    values = dict(zip((name for name, _ in models.named_parameters()), average.values))
    return {
        f"{component}:{name}": values.get(f"{component}.{name}", tensor).to(torch.bfloat16)
        for component, model in models.items()
        for name, tensor in model.state_dict().items()
    }


# ---- gradients, averages, time, latents


class Gradients:
    """Gradients of a loss for one batch after another, left in the `grad` of `parameters`.

    `step(*inputs)` gives tensors, the loss first. On a GPU it is a CUDA graph for each set of inputs' shapes: to issue a
    thousand small kernels takes longer than to run them.
    """

    def __init__(self, step, parameters, options):
        self.step, self.options, self.graphs = step, options, {}
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.gradients = [parameter.grad for parameter in parameters]

    def _run(self, inputs):
        torch._foreach_zero_(self.gradients)
        with on_device(self.options):
            results = self.step(*inputs)
        results[0].backward()
        return tuple(result.detach() for result in results)

    def __call__(self, *inputs, compiled=True):
        """-> what the step gives, valid until the next call. Shapes that are rare are not worth compiling for."""
        with torch.compiler.set_stance("default" if compiled else "force_eager"):
            if self.options.device == "cpu":
                return self._run(inputs)
            shapes = tuple(value.shape for value in inputs)
            if shapes not in self.graphs:
                start = time.monotonic()
                self.graphs[shapes] = self._record(inputs)
                print(f"recorded a step in {time.monotonic() - start:.0f} s", flush=True)
        graph, places, results = self.graphs[shapes]
        for place, value in zip(places, inputs):
            place.copy_(value)
        graph.replay()
        return results

    def _record(self, inputs):
        places = tuple(value.clone() for value in inputs)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._run(places)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = self._run(places)
        return graph, places, results


class Average:
    """Exponential moving average of a module's parameters, in float32."""

    def __init__(self, parameters, decay):
        self.parameters, self.decay, self.steps = list(parameters), decay, 0
        self.values = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self):
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 10))
        torch._foreach_lerp_(self.values, self.parameters, 1 - decay)

    @torch.no_grad()
    def apply(self):
        torch._foreach_copy_(self.parameters, self.values)

    @contextlib.contextmanager
    def applied(self):
        """The average in place of the parameters, for as long as this is entered."""
        trained = [parameter.detach().clone() for parameter in self.parameters]
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, trained)


class Clock:
    """Time of one call and of the whole stage: what the learning rate follows, so that it ends when time is up."""

    def __init__(self, options, progress):
        self.before = progress["seconds"]
        self.start = time.monotonic()
        self.budget = 60 * options.budget
        self.limit = min(60 * options.minutes, self.budget - self.before)
        self.saved, self.printed = self.start, self.start

    def seconds(self):
        return time.monotonic() - self.start

    def part(self):
        return min(1.0, (self.before + self.seconds()) / self.budget)

    def is_over(self):
        return self.seconds() >= self.limit

    def is_due(self, name, interval):
        now = time.monotonic()
        if now - getattr(self, name) < interval:
            return False
        setattr(self, name, now)
        return True

    def rate(self, peak, steps, warm_up):
        """Warm-up at the start of each call, since the optimizer starts anew; cosine over the whole budget."""
        return peak * min(1.0, (steps + 1) / warm_up) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.part())))


class Pool:
    """Latents in a ring that grows and is renewed while training goes on, so that encoding is no bottleneck.

    draw: (n, generator) -> scenes; encode: scenes -> latents [n, *shape]; kept: scenes -> the part of them to keep
    """

    def __init__(self, capacity, shape, device, draw, encode, kept=lambda scenes: scenes):
        self.capacity, self.draw_scenes, self.encode, self.kept = capacity, draw, encode, kept
        self.latents = torch.empty((capacity, *shape), dtype=torch.bfloat16, device=device)
        self.scenes, self.filled, self.next = None, 0, 0

    @torch.no_grad()
    def renew(self, n, generator):
        scenes = self.draw_scenes(n, generator)
        latents, scenes = self.encode(scenes), self.kept(scenes)
        if self.scenes is None:
            empty = lambda t: None if t is None else t.new_zeros((self.capacity, *t.shape[1:]))
            self.scenes = type(scenes)(*(empty(field) for field in scenes.fields()))
        place = (self.next + torch.arange(n, device=self.latents.device)) % self.capacity
        self.latents[place] = latents.to(torch.bfloat16)
        self.scenes.set(place, scenes)
        self.next = (self.next + n) % self.capacity
        self.filled = min(self.capacity, self.filled + n)

    def draw(self, n, generator):
        index = torch.randint(0, self.filled, (n,), generator=generator, device=self.latents.device)
        return self.latents[index].float(), self.scenes[index]


# ---- tokenizers


def write_unigram_tokenizer(directory, prompts):
    """spiece.model, a unigram model with a piece for every word of the prompts, and T5's special tokens."""
    import io
    from collections import Counter

    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2
    from transformers import T5Tokenizer

    letters = "".join(chr(c) for c in range(33, 127))
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*prompts, *letters, *(" ".join(letters) for _ in range(20))]),
        model_writer=trained,
        model_type="unigram",
        vocab_size=280,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    # The trainer breaks words that it can do without; each one gets a piece back.
    model = sentencepiece_model_pb2.ModelProto.FromString(trained.getvalue())
    counts = Counter(" ".join(prompts).replace(",", "").split())
    known = {piece.piece: piece for piece in model.pieces}
    for word in sorted(counts):
        piece = known.get("\u2581" + word) or model.pieces.add(piece="\u2581" + word)
        piece.score = math.log(counts[word] / counts.total())
    model.trainer_spec.vocab_size = len(model.pieces)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    (directory / "spiece.model").write_bytes(model.SerializeToString(deterministic=True))
    config = {
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "extra_ids": 0,
        "additional_special_tokens": [],
        "legacy": True,
        "model_max_length": 512,
        "tokenizer_class": "T5Tokenizer",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    assert len(T5Tokenizer.from_pretrained(directory)) == len(model.pieces)


class UnigramWords:
    """From numbers of a vocabulary's words to token ids, on the device, as the tokenizer makes them of the text."""

    def __init__(self, directory, vocabulary, device):
        from transformers import T5Tokenizer

        if not (directory / "spiece.model").exists():
            raise SystemExit(f"{directory}: no spiece.model; run the stage `tokenizers` first")
        self.tokenizer = T5Tokenizer.from_pretrained(directory)
        ids = [0]
        for word in vocabulary[1:]:
            tokens = self.tokenizer(f"red{word}" if word == "," else f"red {word}").input_ids
            if len(tokens) != 3:
                raise SystemExit(f"tokenizers: the word {word!r} is not one token")
            ids.append(tokens[1])
        self.ids = torch.tensor(ids, device=device)

    def __call__(self, words, length):
        """Words [B, at most length - 1], 0 behind the last one -> ids [B, length], the last one 1, then 0"""
        count = (words > 0).sum(dim=1, keepdim=True)
        result = torch.zeros((words.shape[0], length), dtype=torch.long, device=words.device)
        result[:, : words.shape[1]] = torch.where(words > 0, self.ids[words], 0)
        return result.scatter(1, count, 1)


# ---- losses and costs


def vae_loss(error, posterior):
    """Squares of what is wrong in each pixel, since absolute values give up what is small and fine, and a trace of KL
    divergence from the standard Gaussian, which keeps the latents small. -> (loss, mean squared error)"""
    squares = error.square().mean()
    divergence = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
    return 10 * squares + 2e-4 * divergence, squares.detach()


@torch.no_grad()
def initialize_vae(vae, branch_ends):
    """Convolutions that keep the size of what they are given, for nothing else does between the norms, and no biases
    that would drown it. Residual branches, which end in modules of those names, begin as zero, so that a chain of
    resamplings is learned first."""
    for name, module in vae.named_modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)):
            torch.nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            torch.nn.init.zeros_(module.bias)
        if name.endswith(branch_ends):
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)


def train_vae(model, step, next_batch, statistics, options):
    """The stage `vae`. step: of `Gradients`, gives the mean squared error second; next_batch: generator -> what it takes;
    statistics: () -> what a checkpoint says of the latents besides"""
    tensors, progress = load_checkpoint(options.work, "vae")
    if progress:
        load_module(model, tensors)
    progress = progress or {"step": 0, "seconds": 0.0}
    if options.compile:
        step.compile(dynamic=False)
    rate = options.sizes.vae_rate
    parameters = list(model.parameters())
    gradients = Gradients(step, parameters, options)
    average = Average(parameters, 0.999)
    optimizer = torch.optim.AdamW(
        parameters, lr=rate, betas=(0.9, 0.99), weight_decay=1e-3, fused=options.device != "cpu"
    )
    generator, clock, steps = generator_of(options, progress["step"]), Clock(options, progress), 0

    def save():
        with average.applied():
            now = {"step": progress["step"] + steps, "seconds": clock.before + clock.seconds(), **statistics()}
            save_checkpoint(options.work, "vae", model.state_dict(), now)
        print(f"vae: saved step {now['step']}, {now['seconds']:.0f} s", flush=True)

    while not clock.is_over():
        for group in optimizer.param_groups:
            group["lr"] = clock.rate(rate, steps, 200)
        loss, error = gradients(next_batch(generator))
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.update()
        steps += 1
        if clock.is_due("printed", 10):
            psnr = 10 * math.log10(4 / float(error))
            print(
                f"vae: step {progress['step'] + steps}, {clock.before + clock.seconds():.0f} s, "
                f"{steps / clock.seconds():.1f} steps/s, loss {float(loss):.4f}, {psnr:.1f} dB",
                flush=True,
            )
        if clock.is_due("saved", 60):
            save()
    save()


def print_sizes(models, dense=("vae",), kept=()):
    """Parameters, bytes as bf16 and NF4 of components by name. In NF4 are linears, but for those of the components
    `dense` and those that have a name of `kept` in their path."""
    total = 0
    for name, model in models.items():
        linears = {
            n: m.weight.numel()
            for n, m in model.named_modules()
            if isinstance(m, torch.nn.Linear) and name not in dense and not set(n.split(".")) & set(kept)
        }
        quantized, count = sum(linears.values()), sum(p.numel() for p in model.parameters())
        nf4 = 0.5625 * quantized + 2 * (count - quantized)
        odd = [n for n, elements in linears.items() if elements % 64]
        total += nf4
        print(f"{name}: {count:,} parameters, {2 * count / 1e6:.2f} MB in bf16, {nf4 / 1e6:.2f} MB in NF4", *odd)
    print(f"all: {total / 1e6:.2f} MB with NF4")


def flops_of(run):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def print_time(name, run, options, repeats=20):
    """Milliseconds of one run, after three that are not timed."""
    synchronize = torch.cuda.synchronize if options.device != "cpu" else lambda: None
    for _ in range(3):
        run()
    synchronize()
    start = time.monotonic()
    for _ in range(repeats):
        run()
    synchronize()
    print(f"profile: {name}: {1000 * (time.monotonic() - start) / repeats:.2f} ms", flush=True)


def bytes_under(directory):
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
