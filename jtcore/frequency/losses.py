"""What losses teach: their gradients, split into what is expected and what is noise.

A loss reaches weights through the prediction alone. On the same clips, times and noise, each loss
is asked several times, for what it draws itself (a shift, an anchor). Of its gradient g

    E[g]            is what it teaches;
    bias            is |E[g] - E[g of another]|^2 / |E[g of another]|^2, without the part that
                    finite draws add: 0 where both teach the same;
    own variance    is what its own draws add, beside that of noise and times;
    signal to noise is |E[g]|^2 over all variance, of one draw.

Squared norms of means are unbiased: products of different draws (U-statistics), and may come out
below 0. Intervals are 95 %, over draws of noise: bootstraps of what is told of weights, Student's t
of jackknife pseudo-values at each frequency.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import cycle, islice

import numpy as np
import torch
from attrs import evolve, field, frozen
from attrs.validators import ge
from torch import Tensor

from jtcore.adapter import Adapter, switched_on, told
from jtcore.errors import JtError
from jtcore.frequency.asked import Asked
from jtcore.frequency.figures import Figure, Panel
from jtcore.frequency.shift import line
from jtcore.frequency.subject import Subject
from jtcore.model import Model
from jtcore.references import shown
from jtcore.rng import generator
from jtcore.spectrum import Spectrum, radial, temporal
from jtcore.types import Part

ROLES = ("spatial", "temporal", "attention", "feed_forward", "text_cross")
ALL = "all"
RESAMPLED = 1000
OWN = "variance over own draws"
SPLIT = ("mean over noise", "variance over noise", OWN)


@frozen
class Settings:
    """How losses are looked into"""

    draws: int = field(default=16, validator=ge(3))  # of a clip, a time and noise
    own: int = field(default=8, validator=ge(2))  # of what a loss draws, for each of those
    bands: int = field(default=8, validator=ge(1))
    seed: int = 0


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


def gradients(
    subject: Subject, stream: str, asked: Mapping[str, Asked], settings: Settings
) -> dict[str, Gradients]:
    """Of each loss, on the same clips, times and noise, to the weights that the recipe trains on
    these clips; the adapters that it has on there are on, and dropout is off."""
    collected: dict[str, list] = {name: [] for name in asked}
    on, weights = subject.adapters(stream)[0], _weights(subject, stream)
    if not weights:
        raise JtError("adapter: this recipe has none with weights, of which gradients are told")
    told = list(on.values()), list(weights.values())
    for number, part in enumerate(_parts(subject, stream, settings.draws)):
        for name, one in asked.items():
            collected[name].append(_of_one(subject.model, told, part, one, number, settings))
    return {name: _gathered(found, settings.own) for name, found in collected.items()}


def _gathered(found: Sequence[tuple[np.ndarray, ...]], own: int) -> Gradients:
    *means, variances = zip(*found, strict=True)
    return Gradients(*(np.stack(each) for each in means), sum(variances) / len(variances), own)


def _parts(subject: Subject, stream: str, count: int) -> Iterator[Part]:
    """The files' first clips, in turn."""
    found = subject.stream(stream)
    return islice(cycle(found.single(file, subject.texts) for file in range(len(found))), count)


def _weights(subject: Subject, stream: str) -> dict[tuple[str, str], Tensor]:
    """Those that the recipe trains on a table, by adapter and name."""
    _, trained = subject.adapters(stream)
    return {
        (adapter, name): weight
        for adapter, module in trained.items()
        for name, weight in module.named_parameters()
        if weight.requires_grad
    }


def _of_one(
    model: Model,
    told_of: tuple[Sequence[Adapter], Sequence[Tensor]],
    part: Part,
    asked: Asked,
    number: int,
    settings: Settings,
) -> tuple[np.ndarray, ...]:
    adapters, weights = told_of
    noise_rng = generator(settings.seed, "frequency", "noise", number)
    noised = model.backbone.noise(part.latents, noise_rng, asked.draws)
    scales = dict.fromkeys(adapters, 1.0)
    with switched_on(scales, len(part.prompts), part.files, shown(part)):
        text = told(adapters, part.text, part.prompts)
        with model.engine.autocast():
            prediction = model.backbone.predict(noised.latents, noised.times, text).float()
        rng = generator(settings.seed, "frequency", "own", number)
        of_prediction, mean, squares = [], 0.0, 0.0
        for _ in range(settings.own):
            leaf = prediction.detach().requires_grad_()
            (of_leaf,) = torch.autograd.grad(asked.loss(leaf, noised, part, rng).mean(), leaf)
            if not of_prediction or not torch.equal(of_leaf[0].cpu(), of_prediction[-1]):
                vector = _through(prediction, weights, of_leaf)  # where nothing is drawn, once
            of_prediction.append(of_leaf[0].cpu())
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
    subject: Subject, stream: str, found: Mapping[str, Gradients], against: str, seed: int = 0
) -> list[Row]:
    """Each loss beside the one `against`, for all weights and for those of each role that the
    backbone knows and an adapter reaches; roles that have the same ones are told of once."""
    places = {ALL: slice(None), **_places(subject, stream)}
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


def _places(subject: Subject, stream: str) -> dict[str, np.ndarray]:
    """Where in the row of all weights those of each role are."""
    weights, found = _weights(subject, stream), {}
    ends = np.cumsum([weight.numel() for weight in weights.values()])
    for role in ROLES:
        try:
            targets = tuple(f"{target}." for target in subject.model.backbone.targets(role))
        except JtError:
            continue  # it has no such part
        spans = [
            np.arange(end - weight.numel(), end)
            for ((_, name), weight), end in zip(weights.items(), ends, strict=True)
            if name.startswith(targets)
        ]
        places = np.concatenate(spans) if spans else np.zeros(0, int)
        if spans and not any(np.array_equal(places, other) for other in found.values()):
            found[role] = places
    return found


def figure(found: Mapping[str, Gradients], settings: Settings, of: str) -> Figure:
    """The gradient of the prediction by frequency: its mean over draws of noise, how much it varies
    with them, and with what a loss draws."""
    folds = {"space": partial(radial, bands=settings.bands), "time": temporal}
    split = {d: {n: _split(one, fold) for n, one in found.items()} for d, fold in folds.items()}
    panels = []
    for index, title in enumerate(SPLIT):
        for domain, each in split.items():
            told = {name: parts[index] for name, parts in each.items()}
            axis = next(iter(told.values())).axes[0]
            drawn = {name: one for name, one in told.items() if one.energy.any()}
            lines = [line(name, one, positive=title == OWN) for name, one in drawn.items()]
            label = f"{axis.name} ({axis.unit})"
            panels.append(Panel(f"{title}, in {domain}", label, "energy", lines, True))
    note = (
        f"{of}; {settings.draws} draws of noise, {settings.own} of each loss's own; mean and 95 %"
        " interval over draws of noise"
    )
    title = "What losses teach, by frequency: gradients of the prediction"
    return Figure(title, panels, 2, note, same_scale=True)


def _split(found: Gradients, fold: Callable[[np.ndarray], Spectrum]) -> tuple[Spectrum, ...]:
    """Of the energy of gradients at each frequency, what each of `SPLIT` has, told by each draw of
    noise; their sum is the energy of one draw. Means over finite draws have a part of what varies,
    which is taken off: what is left of a mean may come out below 0, where it is not told from it.
    Of that, draws have jackknife pseudo-values, M theta - (M - 1) theta without that draw, whose
    mean is theta and whose spread tells how sure it is (Efron and Stein, 1981)."""
    clips, count = found.of_prediction, len(found.of_prediction)
    own, whole, middle = fold(found.own_of_prediction), fold(clips), clips.mean(0, keepdims=True)
    # at each frequency the product of a draw and the mean: the spectrum of sums is a square
    product = (fold(clips + middle).energy - fold(clips - middle).energy) / 4
    others = count * product - whole.energy  # with all other draws
    mean = others.mean(0) / (count - 1)
    pseudo = (2 * others - count * mean) / (count - 2)
    varying = whole.energy - pseudo - own.energy / found.own
    return evolve(whole, energy=pseudo), evolve(whole, energy=varying), own
