"""What an adapter costs a block of a denoiser: forward and backward, over the frozen block's own.

    python -m benchmarks.adapter_overhead --frames 1 --rounds 5

A block of CogVideoX-5B's true width, its weights drawn, shared by all that are compared; adapters
of one rank on its attention and feed-forward. peft's LoRA, and GLoRA as the released code computes
it (https://arxiv.org/abs/2503.23951): gate, down and up each a linear of its own in float32, the
gate and dropout at the layer's full width. The gradient goes to the block's input too.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from statistics import median
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from benchmarks.compare import peak_bytes, ratios, time_all
from benchmarks.reference_step import Unfused
from benchmarks.report import report
from jtcore.adapter import switched_on
from jtcore.plugins import load_plugins
from jtcore.targets import match_targets

TARGETS = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0")
TARGETS += ("ff.net.0.proj", "ff.net.2")
HEADS, HEAD, TIME, TEXT = 48, 64, 512, 226  # of CogVideoX-5B
BASE = "base"


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parse(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    about = f"rank {given.rank}, {given.heads} heads, {given.dtype}, {given.rounds} rounds"
    with report("adapter_overhead", given.out, about) as say:
        say("| tokens | dropout | what | seconds | over base | fastest | peak memory | over base |")
        say("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for dropout in given.dropout:
            for row in measure(given, dropout):
                say(row)


def measure(given: argparse.Namespace, dropout: float) -> Iterator[str]:
    """A line for each kind of adapter: its median seconds, the median of its rounds over those of
    the base, and its fastest round over the base's, which others on a machine disturb least."""
    device, tokens = torch.device(given.device), given.frames * given.rows * given.columns
    torch.manual_seed(0)
    dtype = getattr(torch, given.dtype)
    block = make_block(given.heads, device, dtype)
    passes = {name: make(block, given.rank, dropout) for name, make in KINDS.items()}
    inputs = make_inputs(given, device, dtype)
    work = {name: lambda one=one: one(inputs) for name, one in passes.items()}
    peaks = {name: peak_bytes(each, device) for name, each in work.items()}
    taken = time_all(work, given.rounds, device)
    over = ratios(taken, BASE)
    for name in work:
        yield (
            f"| {TEXT} + {tokens} | {dropout} | {name} | {median(taken[name]):.4g}"
            f" | {over[name]:.3f} | {min(taken[name]) / min(taken[BASE]):.3f}"
            f" | {peaks[name] / 2**20:.0f} MiB"
            f" | {peaks[name] / peaks[BASE]:.3f} |"
        )


def make_block(heads: int, device: torch.device, dtype: torch.dtype) -> nn.Module:
    from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock

    with device:
        block = CogVideoXBlock(heads * HEAD, heads, HEAD, TIME)
    return block.to(dtype).requires_grad_(False)


def make_inputs(
    given: argparse.Namespace, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """Video (1, tokens, width), text (1, TEXT, width), time (1, TIME), cosines and sines."""
    from diffusers.models.embeddings import get_3d_rotary_pos_embed

    grid, width = (given.rows, given.columns), given.heads * HEAD
    crops = ((0, 0), grid)
    rotary = get_3d_rotary_pos_embed(HEAD, crops, grid, given.frames, device=device)
    tokens = given.frames * given.rows * given.columns
    shapes = ((1, tokens, width), (1, TEXT, width), (1, TIME))
    drawn = [torch.randn(shape, device=device, dtype=dtype) for shape in shapes]
    return (*(x.requires_grad_() for x in drawn[:2]), drawn[2], *rotary)


def run(block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    video, text, time, *rotary = inputs
    outputs = block(video, text, time, tuple(rotary))
    torch.autograd.backward([output.float().square().mean() for output in outputs])
    video.grad = text.grad = None


def base(block: nn.Module, rank: int, dropout: float) -> Callable:
    return lambda inputs: run(block, inputs)


def peft_lora(block: nn.Module, rank: int, dropout: float) -> Callable:
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=rank, lora_dropout=dropout, target_modules=list(TARGETS))
    adapted = inject_adapter_in_model(config, shared(block))
    trained = {n: p.data.float() for n, p in adapted.named_parameters() if "lora_" in n}
    for name, values in trained.items():
        adapted.get_parameter(name).data = values  # float32, as its own trainer keeps them
    return with_gradients(adapted, lambda inputs: run(adapted, inputs))


def unfused(block: nn.Module, rank: int, dropout: float) -> Callable:
    adapted, updates = shared(block), nn.ModuleList()
    for name in TARGETS:
        linear = adapted.get_submodule(name)
        update = Unfused(linear, rank, dropout)
        updates.append(update)
        linear.register_forward_hook(lambda _, x, output, update=update: update(x[0], output))
    return with_gradients(updates, lambda inputs: run(adapted, inputs))


def ours(kind: str, block: nn.Module, rank: int, dropout: float) -> Callable:
    adapted = shared(block)
    spec = load_plugins().find("adapters", kind)(targets=TARGETS, rank=rank, dropout=dropout)
    found = SimpleNamespace(targets=lambda query: match_targets(adapted, {}, query))
    adapter = spec.attach(found, {}).to(next(block.parameters()).device)

    def work(inputs: tuple[Tensor, ...]) -> None:
        with switched_on({adapter: 1.0}, 1):
            run(adapted, inputs)

    return with_gradients(adapter, work)


KINDS: Mapping[str, Callable[[nn.Module, int, float], Callable]] = {
    BASE: base,
    "LoRA of peft": peft_lora,
    "GLoRA, unfused": unfused,
    "our LoRA": lambda *given: ours("lora", *given),
    "our GLoRA": lambda *given: ours("glora", *given),
}


def with_gradients(trained: nn.Module, work: Callable) -> Callable:
    """The same, made to forget its gradients; none of the updates is zero any more."""
    for weight in trained.parameters():
        if weight.requires_grad:
            nn.init.normal_(weight, std=0.01)

    def forgetting(inputs: tuple[Tensor, ...]) -> None:
        work(inputs)
        trained.zero_grad(set_to_none=True)

    return forgetting


def shared(block: nn.Module) -> nn.Module:
    """A copy that has the very weights of `block`."""
    return deepcopy(block, {id(weight): weight for weight in block.parameters()})


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adapter_overhead")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--frames", type=int, default=1, help="latent ones")
    parser.add_argument("--rows", type=int, default=30, help="of tokens")
    parser.add_argument("--columns", type=int, default=45, help="of tokens")
    parser.add_argument("--heads", type=int, default=HEADS, help="of 64; 48 are CogVideoX-5B's")
    parser.add_argument("--rank", type=int, default=128)
    parser.add_argument("--dropout", type=float, nargs="+", default=[0.0, 0.1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", help="a folder, in which the table is written to a file too")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
