"""Controls of sampling: what leads a video besides its prompt, without being trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import torch
from attrs import Factory, frozen
from torch import Generator, Tensor

from jtcore.attention import TextAttention, biased
from jtcore.errors import JtError
from jtcore.scales import Moment, moments
from jtcore.words import Words, finder

if TYPE_CHECKING:
    from jtcore.recipe import Sampling
    from jtcore.types import Backbone, BackboneSpec, Sampler

Grid = tuple[int, int, int]  # frames, rows and columns of video tokens
Scores = Sequence[tuple[Tensor, Sequence[int]]]  # (F, H, W) of video tokens, for those text tokens


@frozen(eq=False)
class Held:
    """A region that follows what a phrase names"""

    cells: Callable[[], Tensor]  # now: (F, H, W) of latents, bool
    tokens: Sequence[int]  # of the phrase


@frozen(eq=False)
class Walk:
    """The way of one video from noise to latents, as all of its controls know it"""

    prompt: str
    words: Callable[[str], tuple[int, ...]]  # tokens of the prompt that spell a phrase; or JtError
    moments: Sequence[Moment]  # at which the steps stand
    frames: int  # of pixels
    size: tuple[int, int]  # height and width in px
    shape: tuple[int, int, int]  # of the latents that are sampled: F, H, W
    first: int  # of these latent frames that become pixels: a sampler may begin with more
    moved: Tensor  # (F, 2), rows and columns of latents by which each frame was moved so far
    held: list[Held] = Factory(list)

    def pixel_frames(self, latent: int) -> range:
        """The frames that a latent frame stands for: all alike, or one and then so many each."""
        index, count = max(latent - self.first, 0), self.shape[0] - self.first
        if count == self.frames:
            return range(index, index + 1)
        every = (self.frames - 1) // (count - 1)
        return range(1) if index == 0 else range(1 + (index - 1) * every, 1 + index * every)


class Control:
    """Leads one video; the base of what `ControlSpec.begin` returns."""

    def scores(self, index: int, grid: Grid, together: int) -> Scores:
        """What is added in step `index`, before the softmax, to how video tokens of the prompted
        half attend to text tokens; a token stands for `together` latent frames."""
        return ()

    def move(self, index: int, latents: Tensor, rng: Generator) -> Tensor:
        """What becomes of `latents` (C, F, H, W) after step `index`; the same where nothing does.
        Randomness is drawn from `rng` alone, and only where something does."""
        return latents


class ControlSpec(Protocol):
    """Options of a control."""

    def begin(self, walk: Walk) -> Control:
        """Raises JtError where it cannot lead such a video; `walk` costs nothing to make, and a
        check makes one too."""


def begin(
    settings: Sampling,
    backbone: Backbone,
    words: Words,
    prompt: str,
    sampler: Sampler,
    shape: tuple[int, int, int],
    count: int,
) -> list[Control]:
    """The controls of one video, whose latents are of `shape` (F, H, W); the last `count` frames of
    them become pixels. Raises JtError, beginning with "control.NAME: "."""
    if not settings.control:
        return []
    walk = Walk(
        prompt=prompt,
        words=lambda phrase: words(prompt, phrase),
        moments=moments(sampler.times, backbone.levels),
        frames=settings.frames,
        size=settings.size,
        shape=shape,
        first=shape[0] - count,
        moved=torch.zeros(shape[0], 2),
    )
    begun, problems = [], []
    for name, component in settings.control.items():
        try:
            begun.append(component.spec.begin(walk))
            if not (hasattr(backbone, "text_attentions") or _only_moves(begun[-1])):
                problems.append(f"control.{name}: this backbone shows no attention to the text")
        except JtError as error:
            problems += [f"control.{name}: {problem}" for problem in error.problems]
    if problems:
        raise JtError(problems)
    return begun


def _only_moves(control: Control) -> bool:
    return type(control).scores is Control.scores


def control_problems(
    settings: Sampling, spec: BackboneSpec, backbone: Backbone, replaced: Mapping[str, str]
) -> Iterator[str]:
    """What keeps the controls from leading any of the prompts; `backbone` may be without weights,
    and `replaced` is what is read in place of words."""
    if not settings.control:
        return
    try:
        shape = spec.latent_shape(settings.frames, *settings.size)[1:]
        sampler = backbone.sampler(settings.steps, settings.scheduler)
    except (ValueError, JtError):
        return  # told as problems of the size and of the steps
    words = finder(spec, replaced)
    for prompt in dict.fromkeys(settings.prompts):
        try:
            begin(settings, backbone, words, prompt, sampler, shape, shape[0])
        except JtError as error:
            yield from error.problems


@contextmanager
def leading(
    backbone: Backbone,
    controls: Sequence[Sequence[Control]],  # of each video
    index: int,
    halves: int,
    latents: Tensor,  # (B, C, F, H, W)
    length: int,  # text tokens
) -> Iterator[None]:
    """In step `index`, attention as the controls want it, in the prompted half of guidance."""
    if not any(controls) or not hasattr(backbone, "text_attentions"):
        yield
        return
    made: dict[tuple[int, int, int], Tensor | None] = {}

    def bias(site: TextAttention) -> Tensor | None:
        if site.patch not in made:
            grid = site.grid(*latents.shape[2:])
            wanted = [[c.scores(index, grid, site.patch[0]) for c in each] for each in controls]
            made[site.patch] = _bias(wanted, grid, halves, length, latents.device)
        return made[site.patch]

    with biased(backbone.text_attentions(), bias):
        yield


def _bias(
    wanted: Sequence[Sequence[Scores]], grid: Grid, halves: int, length: int, device: torch.device
) -> Tensor | None:  # (halves * B, video tokens, text tokens)
    if not any(scores for each in wanted for scores in each):
        return None
    bias = torch.zeros(halves * len(wanted), torch.Size(grid).numel(), length)
    for video, each in zip(bias[-len(wanted) :], wanted, strict=True):
        for scores in each:
            for amount, tokens in scores:
                video[:, list(tokens)] += amount.reshape(-1, 1)
    return bias.to(device)


def moved(
    controls: Sequence[Control], index: int, latents: Tensor, rng: Generator
) -> Tensor:  # (1, C, F, H, W)
    """The latents of one video after step `index`, as its controls move them."""
    for control in controls:
        latents = control.move(index, latents[0], rng)[None]
    return latents
