"""One branch of one step: forward, losses, backward."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from attrs import evolve, frozen
from torch import Generator, Tensor

from jtcore import recipe
from jtcore.adapter import Adapter, switched_on, told
from jtcore.attention import AttentionTo
from jtcore.noise import Draws
from jtcore.references import shown
from jtcore.types import Backbone, Noised, Part
from jtcore.words import Maps, Watch, Words, watching


@frozen(eq=False)
class Branch:
    """What `jt_run_branch` gets: a branch of the recipe, its adapters, and its batch."""

    path: str  # stage.NAME.branch.NAME
    settings: recipe.Branch
    backbone: Backbone
    adapters: Mapping[str, Adapter]  # that are on
    parts: tuple[Part, ...]
    rng: Generator
    draws: Draws  # of times and noise
    noise_rng: Generator  # that those come from: another's too, where two branches share them
    words: Words  # where a phrase is in a prompt
    autocast: Callable[[], AbstractContextManager]  # in which the denoiser runs
    backward: Callable[[Tensor], None]  # takes the place of `loss.backward()`


def run_branch(branch: Branch) -> dict[str, Tensor]:
    """Forward and backward of each part in turn; gradients add up, memory does not.

    Returns each loss term, (), unweighted, averaged over the samples that it is on.
    """
    values: dict[str, list[Tensor]] = {}
    with training_only(branch.adapters, branch.settings.trained):
        for part in branch.parts:
            scales = dict.fromkeys(branch.adapters.values(), 1.0)
            part, noised = noise(branch, part)
            reference = shown(part, branch.settings.drop_reference, branch.rng)
            on = switched_on(scales, len(part.prompts), part.files, reference)
            with on, watching(branch.backbone, branch.words, attended(branch, part), part) as watch:
                prediction, maps = predict(branch, part, noised, watch)
                terms = loss_terms(branch, part, noised, prediction, maps)
                branch.backward(weighted_sum(branch, terms))
            for name, value in terms.items():
                values.setdefault(f"{branch.path}.losses.{name}", []).append(value.detach())
    return {name: torch.stack(each).mean() for name, each in values.items()}


def noise(branch: Branch, part: Part) -> tuple[Part, Noised]:
    """Noise the latents; the part is told as well, for a branch may see one frame of it alone."""
    noised = branch.backbone.noise(part.latents, branch.noise_rng, branch.draws)
    if branch.settings.frame == "random":
        return random_frames(part, noised, branch.rng)
    return part, noised


def predict(
    branch: Branch, part: Part, noised: Noised, watch: Watch | None = None
) -> tuple[Tensor, Mapping[str, Maps]]:
    """Ask the denoiser: (B, C, F, H, W), fp32; and, by loss, the attention that one asked to see
    meanwhile."""
    text = told(branch.adapters.values(), part.text, part.prompts)
    with branch.autocast(), watch.recording() if watch else nullcontext({}) as maps:
        prediction = branch.backbone.predict(noised.latents, noised.times, text)
    return prediction.float(), maps


def random_frames(part: Part, noised: Noised, rng: Generator) -> tuple[Part, Noised]:
    """One frame of each sample, as videos of one frame; all with an even chance."""
    batch, _, frames = part.latents.shape[:3]
    assert noised.latents.shape[2] == frames, "a latent frame is not a frame"
    chosen = torch.randint(frames, (batch,), generator=rng).tolist()

    def of(clip: Tensor) -> Tensor:  # (B, C, F, H, W) -> (B, C, 1, H, W)
        return torch.stack([clip[sample, :, [k]] for sample, k in enumerate(chosen)])

    mask = None if part.mask is None else of(part.mask)
    still = evolve(noised, latents=of(noised.latents), target=of(noised.target))
    return evolve(part, latents=of(part.latents), mask=mask), still


def drop_text(part: Part, chance: float, empty: Tensor, rng: Generator) -> Part:
    """Each sample's caption becomes "", whose embedding is `empty` (L, D), with that chance."""
    dropped = torch.rand(len(part.prompts), generator=rng) < chance
    of_each = dropped.view(-1, 1, 1).to(part.text.device)
    text = torch.where(of_each, empty.to(part.text), part.text)
    prompts = zip(dropped.tolist(), part.prompts, strict=True)
    return evolve(part, text=text, prompts=tuple("" if gone else told for gone, told in prompts))


def attended(branch: Branch, part: Part) -> dict[str, AttentionTo]:
    """What losses that are on the part's medium ask to see, by their names."""
    losses = branch.settings.losses.items()
    specs = {name: term.loss.spec for name, term in losses if term.on in ("all", part.medium)}
    return {n: spec.attention for n, spec in specs.items() if hasattr(spec, "attention")}


def loss_terms(
    branch: Branch, part: Part, noised: Noised, prediction: Tensor, maps: Mapping[str, Maps]
) -> dict[str, Tensor]:
    """Each loss term that is on the part's medium: its mean over samples, ()."""
    terms = {}
    for name, term in branch.settings.losses.items():
        if term.on in ("all", part.medium):
            seen = (maps[name],) if name in maps else ()
            values = term.loss.spec(prediction, noised, part, branch.rng, *seen)
            place = f"{branch.path}.losses.{name}"
            assert values.shape == prediction.shape[:1], f"{place}: {values.shape}, expected (B,)"
            terms[name] = values.mean()
    return terms


def weighted_sum(branch: Branch, terms: Mapping[str, Tensor]) -> Tensor:
    return sum(branch.settings.losses[name].weight * value for name, value in terms.items())


@contextmanager
def training_only(adapters: Mapping[str, Adapter], trained: tuple[str, ...]) -> Iterator[None]:
    """Gradients for these adapters alone: the others are on, but frozen."""
    frozen_ones = [adapter for name, adapter in adapters.items() if name not in trained]
    for adapter in frozen_ones:
        adapter.requires_grad_(False)
    try:
        yield
    finally:
        for adapter in frozen_ones:
            adapter.requires_grad_(True)
