"""What losses teach: their gradients, split into what is expected and what is noise.

A loss reaches weights through the prediction alone. On the same clips, times and noise, each loss
is asked several times, for what it draws itself (a shift, an anchor). Of its gradient g

    E[g]            is what it teaches;
    bias            is |E[g] - E[g of another]|^2 / |E[g of another]|^2, without the part that
                    finite draws add: 0 where both teach the same;
    own variance    is what its own draws add, beside that of noise and times;
    signal to noise is |E[g]|^2 over all variance, of one draw.

Squared norms of means are unbiased: products of different draws (U-statistics), and may come out
below 0. Intervals are bootstraps over draws of noise, 95 %.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import cycle, islice

import numpy as np
import torch
from attrs import NOTHING, evolve, field, fields, frozen
from attrs.validators import ge
from torch import Tensor

from jtcore.adapter import switched_on, told
from jtcore.errors import JtError
from jtcore.frequency.figures import Figure, Panel
from jtcore.frequency.shift import line
from jtcore.frequency.subject import Subject
from jtcore.model import Model
from jtcore.noise import AXES, PLAIN, Draws, SharedNoise
from jtcore.rng import generator
from jtcore.spectrum import Spectrum, radial, temporal
from jtcore.types import Loss, Part

ROLES = ("spatial", "temporal", "attention", "feed_forward", "text_cross")
ALL = "all"
RESAMPLED = 1000
SPLIT = ("mean over noise", "variance over noise", "variance over own draws")


@frozen
class Settings:
    """How losses are looked into"""

    draws: int = field(default=16, validator=ge(2))  # of a clip, a time and noise
    own: int = field(default=8, validator=ge(2))  # of what a loss draws, for each of those
    bands: int = field(default=8, validator=ge(1))
    seed: int = 0


@frozen(eq=False)
class Asked:
    """A loss, and what it is given: noise may have a part that axes share."""

    loss: Loss
    draws: Draws = PLAIN


@frozen(eq=False)
class Gradients:
    """Of one loss, over draws of noise."""

    of_prediction: np.ndarray  # (M, C, F, H, W), the mean over its own draws
    own_of_prediction: np.ndarray  # (M, C, F, H, W), one draw's departure from that
    of_weights: np.ndarray  # (M, weights), the mean over its own draws, float32: they are many
    own_variance: np.ndarray  # (weights,), over its own draws, a mean over those of noise
    own: int  # how many those were


@frozen
class Estimate:
    value: float
    low: float
    high: float


@frozen
class Row:
    """What a loss does to the weights of a role."""

    loss: str
    role: str
    norm: float  # |E[g]|^2
    bias: Estimate
    cosine: Estimate  # of E[g] and the other's
    own_variance: float  # over |E[g of the other]|^2
    snr: float


def askable(
    subject: Subject, kinds: Sequence[str], against: str, offset: Sequence[str]
) -> dict[str, Asked]:
    """Losses of those kinds with default options; all that need neither masks nor attention where
    none is named. `offset` are axes that a part of the noise shares, for one more: the loss
    `against` with that noise in latents and target alike. Raises JtError for an unknown kind."""
    for axis in offset:
        if axis not in AXES:
            raise JtError(f"--offset {axis}: no axis of noise; there are {', '.join(AXES)}")
    found = {}
    for kind in kinds or sorted(subject.plugins.families["losses"]):
        loss = subject.plugins.find("losses", kind)
        if _watches_more(loss):
            if kinds:
                raise JtError(f"--losses {kind}: it needs more than the prediction, or options")
            continue
        found[kind] = Asked(loss())
    if against not in found:
        raise JtError(f"--against {against}: it is none of {', '.join(found)}")
    if offset:
        noise = Draws(offset=SharedNoise(1.0, tuple(offset)))
        found[f"{against}, noise shifted"] = Asked(found[against].loss, noise)
    return found


def _watches_more(loss: type) -> bool:
    """Whether it must be told something, or sees more than the prediction."""
    if any(each.default is NOTHING for each in fields(loss)):
        return True
    made = loss()
    return getattr(made, "needs_mask", False) or hasattr(made, "attention")


def gradients(
    subject: Subject, stream: str, asked: Mapping[str, Asked], settings: Settings
) -> dict[str, Gradients]:
    """Of each loss, on the same clips, times and noise; adapters are on, and dropout off."""
    model, collected = subject.model, {name: [] for name in asked}
    parts = _parts(subject, stream, settings.draws)
    for number, part in enumerate(parts):
        for name, one in asked.items():
            collected[name].append(_of_one(model, part, one, number, settings))
    return {name: _gathered(found, settings.own) for name, found in collected.items()}


def _gathered(found: Sequence[tuple[np.ndarray, ...]], own: int) -> Gradients:
    *means, variances = zip(*found, strict=True)
    return Gradients(*(np.stack(each) for each in means), sum(variances) / len(variances), own)


def _parts(subject: Subject, stream: str, count: int) -> Iterator[Part]:
    """The files' first clips, in turn."""
    found = subject.stream(stream)
    return islice(cycle(found.single(file, subject.texts) for file in range(len(found))), count)


def _of_one(
    model: Model, part: Part, asked: Asked, number: int, settings: Settings
) -> tuple[np.ndarray, ...]:
    noise_rng = generator(settings.seed, "frequency", "noise", number)
    noised = model.backbone.noise(part.latents, noise_rng, asked.draws)
    adapters = list(model.adapters.values())
    weights = [w for a in adapters for w in a.parameters() if w.requires_grad]
    with switched_on(dict.fromkeys(adapters, 1.0), len(part.prompts), part.files):
        text = told(adapters, part.text, part.prompts)
        with model.engine.autocast():
            prediction = model.backbone.predict(noised.latents, noised.times, text).float()
        rng = generator(settings.seed, "frequency", "own", number)
        of_prediction, mean, squares = [], 0.0, 0.0
        for _ in range(settings.own):
            leaf = prediction.detach().requires_grad_()
            (of_leaf,) = torch.autograd.grad(asked.loss(leaf, noised, part, rng).mean(), leaf)
            of_prediction.append(of_leaf[0].cpu())
            vector = _through(prediction, weights, of_leaf)
            mean, squares = mean + vector, squares + vector**2
    count, stacked = settings.own, torch.stack(of_prediction).double().numpy()
    mean = mean / count
    variance = np.maximum(squares / count - mean**2, 0) * count / (count - 1)
    own = (stacked[0] - stacked.mean(0)) * (count / (count - 1)) ** 0.5  # of the size of one draw's
    return stacked.mean(0), own, mean.astype(np.float32), variance


def _through(prediction: Tensor, weights: Sequence[Tensor], gradient: Tensor) -> np.ndarray:
    """J^T g, of all weights in a row."""
    found = torch.autograd.grad(prediction, weights, gradient, retain_graph=True, allow_unused=True)
    flat = [
        torch.zeros(w.numel()) if g is None else g.detach().flatten().cpu()
        for g, w in zip(found, weights, strict=True)
    ]
    return torch.cat(flat).double().numpy()


def table(
    subject: Subject, found: Mapping[str, Gradients], against: str, seed: int = 0
) -> list[Row]:
    """Each loss beside the one `against`, for all weights and for those of each role that the
    backbone knows and an adapter reaches."""
    places = {ALL: slice(None), **_places(subject.model)}
    return [
        _row(name, role, each, found[against], at, seed)
        for role, at in places.items()
        for name, each in found.items()
    ]


def _row(
    name: str, role: str, found: Gradients, other: Gradients, at: slice | np.ndarray, seed: int
) -> Row:
    ones, others = (each.of_weights[:, at].astype(np.float64) for each in (found, other))
    gram, base, cross = ones @ ones.T, others @ others.T, ones @ others.T
    apart = (ones - others) @ (ones - others).T  # draw by draw
    own = float(found.own_variance[at].sum())
    of_noise = float(np.trace(gram)) / len(gram) - _off(gram) - own / found.own
    norms = partial(_norms, gram, base)
    return Row(
        name,
        role,
        _off(gram),
        _interval(lambda pick: _off(apart, pick) / _length(base, pick), len(gram), seed),
        _interval(lambda pick: _off(cross, pick) / norms(pick), len(gram), seed),
        own / _length(base),
        _off(gram) / (max(of_noise, 0) + own),
    )


def _norms(gram: np.ndarray, base: np.ndarray, pick: np.ndarray) -> float:
    """The product of two lengths."""
    return float(np.sqrt(_length(gram, pick) * _length(base, pick)))


def _length(gram: np.ndarray, pick: np.ndarray | None = None) -> float:
    """|E[g]|^2, nan where these draws do not tell it from 0: nothing can be measured by it."""
    found = _off(gram, pick)
    return found if found > 0 else float("nan")


def _off(gram: np.ndarray, pick: np.ndarray | None = None) -> float:
    """The mean of products of different draws; of a bootstrap, those picked."""
    if pick is None:
        count = len(gram)
        return float((gram.sum() - np.trace(gram)) / (count * (count - 1)))
    chosen = gram[np.ix_(pick, pick)]
    different = pick[:, None] != pick[None]  # a draw that is picked twice is not two
    return float(chosen[different].mean()) if different.any() else float("nan")


def _interval(statistic: Callable[[np.ndarray], float], count: int, seed: int) -> Estimate:
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(count, size=count)) for _ in range(RESAMPLED)]
    values = [value for value in values if np.isfinite(value)] or [float("nan")]
    low, high = np.percentile(values, [2.5, 97.5])
    return Estimate(statistic(np.arange(count)), float(low), float(high))


def _places(model: Model) -> dict[str, np.ndarray]:
    """Where in the row of all weights those of each role are."""
    names, sizes = [], []
    for adapter in model.adapters.values():
        for name, weight in adapter.named_parameters():
            if weight.requires_grad:
                names.append(name)
                sizes.append(weight.numel())
    ends = np.cumsum(sizes)
    found = {}
    for role in ROLES:
        try:
            targets = tuple(f"{target}." for target in model.backbone.targets(role))
        except JtError:
            continue  # it has no such part
        spans = [
            np.arange(end - size, end)
            for name, size, end in zip(names, sizes, ends, strict=True)
            if name.startswith(targets)
        ]
        if spans:
            found[role] = np.concatenate(spans)
    return found


def figure(found: Mapping[str, Gradients], settings: Settings, of: str) -> Figure:
    """The gradient of the prediction by frequency: its mean over draws of noise, how much it varies
    with them, and with what a loss draws."""
    panels = []
    for domain, fold in (("space", partial(radial, bands=settings.bands)), ("time", temporal)):
        each = {name: _split(one, fold) for name, one in found.items()}
        for index, title in enumerate(SPLIT):
            told = {name: parts[index] for name, parts in each.items()}
            axis = next(iter(told.values())).axes[0]
            lines = [line(name, one) for name, one in told.items() if one.energy.any()]
            label = f"{axis.name} ({axis.unit})"
            panels.append(Panel(f"{title}, in {domain}", label, "energy", lines, True))
    note = f"{of}; {settings.draws} draws of noise, {settings.own} of each loss's own"
    title = "What losses teach, by frequency: gradients of the prediction"
    return Figure(title, panels, len(SPLIT), note)


def _split(found: Gradients, fold: Callable[[np.ndarray], Spectrum]) -> tuple[Spectrum, ...]:
    """Of the energy of gradients at each frequency, what each of `SPLIT` has; their sum is that of
    one draw. Means over finite draws have a part of what varies, which is taken off: what is left
    of a mean may come out below 0, where it is not told from it."""
    count = len(found.of_prediction)
    own = fold(found.own_of_prediction)
    whole = fold(found.of_prediction)
    of_mean = fold(found.of_prediction.mean(0, keepdims=True)).energy
    mean = (count * of_mean - whole.energy.mean(0)) / (count - 1)
    varying = whole.energy - mean - own.energy.mean(0) / found.own
    return evolve(whole, energy=mean), evolve(whole, energy=varying), own
