"""What few bits cost in exactness: answers of a block as wide as CogVideoX-5B's, and the held-out
loss of pocket, which is a trained model.

`python -m benchmarks.low_bit_error [--tokens N] [--clips N] [--out DIR]`
"""

import argparse
from collections.abc import Iterator, Mapping
from statistics import mean, stdev

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.compare import Row
from benchmarks.report import report
from jtcore.lowbit import STORAGE, LowBitLinear, lower
from jtcore.types import Backbone
from jtplugins.backbones.cogvideox import CogVideoX
from jtplugins.backbones.pocket import Pocket
from jtplugins.pocket.plan import Plan
from jtplugins.pocket.training import draw_clips
from jtplugins.pocket.world import FRAMES

CPU = torch.device("cpu")
TEXT = 226  # tokens of CogVideoX's text
CLIPS, TOKENS = 128, 512


def measure() -> Iterator[Row]:
    """For the table of all benchmarks: the answer's error beside that of rounding to bf16."""
    plain = block_errors("bf16", 64)["answer"]
    for base in STORAGE:
        found = block_errors(base, 64)["answer"]
        yield Row(f"error of a block in {base}, beside bf16's", found, plain, "of what it adds")


def block_errors(base: str, tokens: int) -> dict[str, float]:
    """Of one block of CogVideoX-5B's width with weights as it begins with, in float32."""
    backbone = CogVideoX(weights="random", config="5b", layers=1).load(CPU, torch.float32)
    (block,) = backbone.blocks().values()
    rng = torch.Generator().manual_seed(0)
    video, text = (torch.randn(1, n, 3072, generator=rng) for n in (tokens, TEXT))
    time = torch.randn(1, 512, generator=rng)
    whole = {name: module.weight.clone() for name, module in _linears(block).items()}
    before = _block(block, video, text, time)
    if base == "bf16":
        for module in _linears(block).values():
            module.weight.copy_(module.weight.bfloat16())
    else:
        lower(backbone, base, CPU)
        (block,) = backbone.blocks().values()
    after = _block(block, video, text, time)
    moved = sum((m.weight - whole[n]).square().sum() for n, m in _linears(block).items())
    size = sum(weight.square().sum() for weight in whole.values())
    (answer, gradient), (others, other) = before, after
    return {
        "weights": (moved / size).sqrt().item(),
        "answer": _relative(others - answer, answer - torch.cat([text, video], 1)),
        "gradient": _relative(other - gradient, gradient),
    }


def _block(block: nn.Module, video: Tensor, text: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """What a block answers (1, L + N, D), and the gradient to its `video`."""
    video = video.clone().requires_grad_()
    found, told = block(video, text, time)
    answer = torch.cat([told, found], 1)
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((found * direction).sum(), video)
    return answer.detach(), gradient


def pocket_errors(clips: int) -> dict[str, dict[str, float]]:
    """By base, of clips of pocket's world that it was not trained on, with the same noise for all:
    shown as pretraining ended, drawn from another seed."""
    spec, plan = Pocket(), Plan()
    pixels, captions = draw_clips(np.random.default_rng([12345]), clips, FRAMES, plan, plan.steps)
    text = spec.load_text_encoder(CPU).embed(captions)
    rng = torch.Generator().manual_seed(0)
    latents = spec.load_codec(CPU).encode(pixels, rng)
    answers, targets = {}, None
    for base in (None, *STORAGE):
        backbone: Backbone = spec.load(CPU, torch.float32)
        if base:
            lower(backbone, base, CPU)
        noised = backbone.noise(latents, torch.Generator().manual_seed(1))
        targets = noised.target
        with torch.no_grad():
            answers[base] = backbone.predict(noised.latents, noised.times, text)
    losses = {base: _losses(answer, targets) for base, answer in answers.items()}
    found: dict[str, dict[str, float]] = {"full": {"loss": mean(losses[None])}}
    for base in STORAGE:
        changes = [new - old for new, old in zip(losses[base], losses[None], strict=True)]
        found[base] = {
            "predictions": _relative(answers[base] - answers[None], answers[None]),
            "change": mean(changes),
            "deviation": stdev(changes) / clips**0.5,
        }
    return found


def _losses(answers: Tensor, targets: Tensor) -> list[float]:
    return (answers - targets).square().flatten(1).mean(1).tolist()


def _relative(error: Tensor, of: Tensor) -> float:
    return (error.norm() / of.norm()).item()


def _linears(block: nn.Module) -> Mapping[str, nn.Linear]:
    return {n: m for n, m in block.named_modules() if isinstance(m, nn.Linear | LowBitLinear)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--tokens", type=int, default=TOKENS, help="of the video, in the wide block"
    )
    parser.add_argument("--clips", type=int, default=CLIPS, help="of pocket's world")
    parser.add_argument("--out", help="a folder for the table")
    given = parser.parse_args()
    pocket = pocket_errors(given.clips)
    loss = pocket["full"]["loss"]
    about = (
        f"A block as wide as CogVideoX-5B's, weights as it begins with, {given.tokens} tokens of"
        f" video; pocket's loss on {given.clips} clips that it was not trained on: {loss:.4f}"
    )
    with report("low_bit_error", given.out, about) as say:
        say("| base | weights | what the block adds | its gradient | pocket's answers | its loss |")
        say("| --- | --- | --- | --- | --- | --- |")
        for base in ("bf16", *STORAGE):
            wide = block_errors(base, given.tokens)
            cells = [f"{wide[key]:.2%}" for key in ("weights", "answer", "gradient")]
            if base in pocket:
                own = pocket[base]
                spread = own["deviation"] / loss
                cells += [
                    f"{own['predictions']:.2%}",
                    f"{own['change'] / loss:+.2%} ± {spread:.2%}",
                ]
            else:
                cells += ["", ""]
            say(f"| {base} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
