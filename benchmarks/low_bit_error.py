"""What few bits cost in exactness: answers of a block as wide as CogVideoX-5B's, and the held-out
loss of pocket, which is a trained model.

    python -m benchmarks.low_bit_error --out benchmarks/results
"""

import argparse
from collections.abc import Mapping, Sequence
from copy import deepcopy
from statistics import mean, stdev

import numpy as np
import torch
from attrs import frozen
from torch import Tensor, nn

from benchmarks.adapter_overhead import HEAD, TEXT, TIME, make_block
from benchmarks.report import report
from jtcore.lowbit import STORAGE, lower
from jtplugins.backbones.pocket import Pocket
from jtplugins.pocket.plan import Plan
from jtplugins.pocket.training import draw_clips
from jtplugins.pocket.world import FRAMES

CPU = torch.device("cpu")
HEADS = 48  # of 64, CogVideoX-5B's
SEED = 12345  # of the clips: pretraining's own are drawn from 0


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parse(arguments)
    pocket = pocket_errors(given.clips)
    loss = pocket["full"]["loss"]
    about = (
        f"A block of CogVideoX's, {given.heads * HEAD} wide, weights as it begins with,"
        f" {given.tokens} tokens of video; pocket, on {given.clips} clips that it was not trained"
        f" on, with a loss of {loss:.4f}"
    )
    with report("low_bit_error", given.out, about) as say:
        say("| base | weights | what the block adds | its gradient | pocket's answers | its loss |")
        say("| --- | --- | --- | --- | --- | --- |")
        for base, wide in block_errors(given.heads, given.tokens).items():
            cells = [f"{wide[key]:.2%}" for key in ("weights", "answer", "gradient")]
            cells.append(f"{pocket[base]['answers']:.2%}")
            change, deviation = pocket[base]["change"] / loss, pocket[base]["deviation"] / loss
            say(f"| {base} | {' | '.join(cells)} | {change:+.2%} ± {deviation:.2%} |")


@frozen(eq=False)
class Alone:
    """A backbone of one block, as far as it is asked for its blocks"""

    denoiser: nn.ModuleDict

    def blocks(self) -> dict[str, nn.Module]:
        return {"block": self.denoiser["block"]}


def block_errors(heads: int, tokens: int) -> dict[str, dict[str, float]]:
    """By base: of its weights, of what it adds to its input, and of the gradient to that; each is
    a norm in parts of the exact one's. In float32, "bf16" being its weights rounded to that."""
    torch.manual_seed(0)
    block = make_block(heads, CPU, torch.float32)
    rng = torch.Generator().manual_seed(1)
    shapes = ((1, tokens, heads * HEAD), (1, TEXT, heads * HEAD), (1, TIME))
    inputs = [torch.randn(shape, generator=rng) for shape in shapes]
    whole, (answer, gradient) = _weights(block), _answer(block, *inputs)
    found = {}
    for base in ("bf16", *STORAGE):
        backbone = Alone(nn.ModuleDict({"block": deepcopy(block)}))
        _store(backbone, base)
        stored = backbone.blocks()["block"]
        own = sum((new - whole[n]).square().sum() for n, new in _weights(stored).items())
        size = sum(weight.square().sum() for weight in whole.values())
        others, other = _answer(stored, *inputs)
        found[base] = {
            "weights": (own / size).sqrt().item(),
            "answer": _relative(others - answer, answer - torch.cat([inputs[0], inputs[1]], 1)),
            "gradient": _relative(other - gradient, gradient),
        }
    return found


def pocket_errors(clips: int) -> dict[str, dict[str, float]]:
    """By base, with the same noise for all; "full" has the loss."""
    spec, plan = Pocket(), Plan()
    pixels, captions = draw_clips(np.random.default_rng(SEED), clips, FRAMES, plan, plan.steps)
    text = spec.load_text_encoder(CPU).embed(captions)
    latents = spec.load_codec(CPU).encode(pixels, torch.Generator().manual_seed(0))
    answers = {}
    for base in ("full", "bf16", *STORAGE):
        backbone = spec.load(CPU, torch.float32)
        _store(backbone, base)
        noised = backbone.noise(latents, torch.Generator().manual_seed(1))
        with torch.no_grad():
            answers[base] = backbone.predict(noised.latents, noised.times, text)
    losses = {base: _losses(answer, noised.target) for base, answer in answers.items()}
    found = {"full": {"loss": mean(losses["full"])}}
    for base in ("bf16", *STORAGE):
        changes = [new - old for new, old in zip(losses[base], losses["full"], strict=True)]
        found[base] = {
            "answers": _relative(answers[base] - answers["full"], answers["full"]),
            "change": mean(changes),
            "deviation": stdev(changes) / clips**0.5,  # standard error, clips paired
        }
    return found


def _store(backbone, base: str) -> None:
    """The linear layers of blocks in few bits, or rounded to bf16, or as they are."""
    if base in STORAGE:
        lower(backbone, base, CPU)
    elif base == "bf16":
        for block in backbone.blocks().values():
            for name, weight in _weights(block).items():
                block.get_submodule(name).weight.copy_(weight.bfloat16())


@torch.no_grad()
def _weights(block: nn.Module) -> Mapping[str, Tensor]:
    """A copy of each, by the name of its layer."""
    linears = {n: m for n, m in block.named_modules() if isinstance(m, nn.Linear)}
    return {name: linear.weight.clone() for name, linear in linears.items()}


def _answer(block: nn.Module, video: Tensor, text: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """What a block answers (1, N + L, D), and the gradient of a sum of it to its `video`."""
    video = video.clone().requires_grad_()
    answer = torch.cat(block(video, text, time), 1)
    direction = torch.randn(answer.shape, generator=torch.Generator().manual_seed(2))
    (gradient,) = torch.autograd.grad((answer * direction).sum(), video)
    return answer.detach(), gradient


def _losses(answers: Tensor, targets: Tensor) -> list[float]:
    return (answers - targets).square().flatten(1).mean(1).tolist()


def _relative(error: Tensor, of: Tensor) -> float:
    return (error.norm() / of.norm()).item()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.low_bit_error")
    parser.add_argument("--heads", type=int, default=HEADS, help="of 64 each, in the block")
    parser.add_argument("--tokens", type=int, default=256, help="of video, in the block")
    parser.add_argument("--clips", type=int, default=128, help="of pocket's world")
    parser.add_argument("--out", help="a folder, in which the table is written to a file too")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
