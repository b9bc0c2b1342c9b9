"""What adapters learned: singular values and effective rank of their updates, how far the
subspaces of two of them agree, and the strengths that they gave themselves."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from jtcore.adapter import Adapter, switched_on, told
from jtcore.errors import JtError
from jtcore.frequency.figures import Figure, Line, Panel
from jtcore.frequency.subject import Subject
from jtcore.references import shown
from jtcore.rng import generator

DEPTH = "layer, in order of depth"
Factors = tuple[Tensor, Tensor]  # down (rank, in), up (out, rank)


@frozen
class Layer:
    """The update of one linear"""

    name: str
    norm: float  # Frobenius
    singular: tuple[float, ...]  # falling
    effective_rank: float


@frozen
class Overlap:
    """Of two adapters' updates of one linear: the mean squared cosine of principal angles, 1 where
    one space is inside the other; and what two random spaces of these ranks would have."""

    name: str
    read: float  # of what they read of the input
    write: float  # of what they write to the output
    read_by_chance: float
    write_by_chance: float


def singular_values(factors: Factors) -> Tensor:  # (rank,), falling
    """Those of up @ down, out of matrices as wide as the rank."""
    down, up = (each.detach().double().cpu() for each in factors)
    _, of_up = torch.linalg.qr(up)
    _, of_down = torch.linalg.qr(down.T)
    return torch.linalg.svdvals(of_up @ of_down.T)


def effective_rank(singular: Tensor) -> float:
    """exp of the entropy of the energies' shares: how many directions an update has, counted by
    weight (Roy and Vetterli, 2007, with squares). 0 of an update that is 0."""
    energy = singular**2
    if not energy.any():
        return 0.0
    share = energy / energy.sum()
    return float(torch.special.entr(share).sum().exp())


def layers(adapter: Adapter) -> list[Layer]:
    """Of an adapter whose updates are of low rank. Raises JtError of another."""
    found = []
    for name, factors in adapter.factors().items():
        singular = singular_values(factors)
        rank = effective_rank(singular)
        found.append(Layer(name, float(singular.norm()), tuple(singular.tolist()), rank))
    return found


def overlaps(one: Adapter, other: Adapter) -> list[Overlap]:
    """Of the linears that both update."""
    ones, others = one.factors(), other.factors()
    return [_overlap(name, ones[name], others[name]) for name in ones if name in others]


def _overlap(name: str, one: Factors, other: Factors) -> Overlap:
    spaces = [_space(each) for each in (one, other)]
    (read, write), (other_read, other_write) = spaces
    return Overlap(
        name,
        _agreement(read, other_read),
        _agreement(write, other_write),
        _chance(read, other_read),
        _chance(write, other_write),
    )


def _space(factors: Factors) -> tuple[Tensor, Tensor]:
    """Orthonormal bases of what an update reads (in, k) and writes (out, k); k is its rank."""
    down, up = (each.detach().double().cpu() for each in factors)
    q_up, of_up = torch.linalg.qr(up)
    q_down, of_down = torch.linalg.qr(down.T)
    left, singular, right = torch.linalg.svd(of_up @ of_down.T, full_matrices=False)
    kept = singular > singular.max() * 1e-7 if len(singular) else singular.bool()
    kept &= singular > 0
    return q_down @ right[kept].T, q_up @ left[:, kept]


def _agreement(one: Tensor, other: Tensor) -> float:
    smaller = min(one.shape[1], other.shape[1])
    return float((one.T @ other).square().sum()) / smaller if smaller else float("nan")


def _chance(one: Tensor, other: Tensor) -> float:
    """Of random spaces of k and l dimensions in n: k l / n, over the smaller of k and l."""
    return max(one.shape[1], other.shape[1]) / one.shape[0]


@torch.no_grad()
def strengths(
    subject: Subject, streams: Sequence[str], times: Sequence[float], seed: int = 0
) -> Iterator[tuple[str, str, float, Mapping[str, float]]]:
    """What adapters multiply their updates by: adapter, table, time, and by layer the mean over
    the first clips of its files, where those are on that the recipe has on there. Nothing of
    adapters that have no such strengths."""
    model = subject.model
    for stream in streams:
        data, (on, _) = subject.stream(stream), subject.adapters(stream)
        scales = dict.fromkeys(on.values(), 1.0)
        for time in times:
            totals: dict[str, dict[str, list[float]]] = {}
            for file in range(len(data)):
                part = data.single(file, subject.texts)
                rng = generator(seed, "frequency", "strengths", stream, file)
                noise = torch.randn(part.latents.shape, generator=rng).to(part.latents)
                at = torch.full((len(noise),), time, device=noise.device)
                signal, sigma = model.backbone.levels(at).over(noise)
                with switched_on(scales, len(noise), part.files, shown(part)):
                    text = told(scales, part.text, part.prompts)
                    with model.engine.autocast():
                        model.backbone.predict(signal * part.latents + sigma * noise, at, text)
                    for name, adapter in on.items():
                        for layer, strength in adapter.strengths().items():
                            of_layer = totals.setdefault(name, {}).setdefault(layer, [])
                            of_layer.append(float(strength))
            for name, found in totals.items():
                yield name, stream, time, {k: sum(v) / len(v) for k, v in found.items()}


def strength_rows(
    found: Sequence[tuple[str, str, float, Mapping[str, float]]],
) -> Iterator[dict[str, str | float]]:
    """Each strength with its place."""
    for adapter, stream, time, strengths in found:
        for layer, strength in strengths.items():
            yield {
                "adapter": adapter,
                "data": stream,
                "time": time,
                "layer": layer,
                "strength": strength,
            }


def rank_figure(adapters: Mapping[str, Adapter], of: str) -> Figure:
    """Norms and effective ranks by layer, in the order of the denoiser; and spectra of updates."""
    told_of = {name: layers(adapter) for name, adapter in adapters.items()}
    panels = []
    for title, key in (("size of updates", "norm"), ("effective rank", "effective_rank")):
        lines = [
            Line(
                name,
                list(range(len(found))),
                [getattr(each, key) for each in found],
                names=[each.name for each in found],
            )
            for name, found in told_of.items()
        ]
        panels.append(Panel(title, DEPTH, title, lines))
    lines = [_spectrum(name, found) for name, found in told_of.items()]
    panels.append(Panel("spectra of updates", "singular value", "share of energy", lines, True))
    note = f"{of}; of spectra the mean over layers, and the least and the largest"
    return Figure("What adapters learned", panels, 2, note)


def _spectrum(name: str, found: Sequence[Layer]) -> Line:
    """Squared singular values, those of a layer adding up to 1: the mean over layers, and from the
    least to the largest; layers of a lower rank have zeros, and those without an update no say."""
    count = max(len(layer.singular) for layer in found)
    energy = np.zeros((len(found), count))
    for row, layer in zip(energy, found, strict=True):
        row[: len(layer.singular)] = np.square(layer.singular)
    energy = energy[energy.any(1)]
    if not len(energy):
        return Line(name, [], [])
    share = energy / energy.sum(1, keepdims=True)
    x = list(range(1, count + 1))
    return Line(name, x, *(fold(0).tolist() for fold in (share.mean, share.min, share.max)))


def overlap_figure(found: Mapping[str, Sequence[Overlap]], of: str) -> Figure:
    """Of each pair: the agreement of what they read and write, beside what chance has."""
    panels = []
    for pair, each in found.items():
        x, names = list(range(len(each))), [one.name for one in each]
        lines = []
        for key in ("read", "write"):
            lines.append(Line(key, x, [getattr(one, key) for one in each], names=names))
            chance = [getattr(one, f"{key}_by_chance") for one in each]
            lines.append(Line(f"{key} by chance", x, chance, names=names, beside=key))
        panels.append(Panel(pair, DEPTH, "agreement", lines))
    return Figure("Where adapters could interfere", panels, 2, of, same_scale=True)


def strength_figure(rows: Sequence[tuple[str, str, float, Mapping[str, float]]], of: str) -> Figure:
    """By time and table: the mean over layers; and by layer, the mean over times."""
    if not rows:
        raise JtError("none of these adapters has strengths of its own to tell")
    over_time, over_layers = {}, {}
    for adapter, stream, time, found in rows:
        name = f"{adapter}, {stream}"
        over_time.setdefault(name, []).append((time, sum(found.values()) / len(found)))
        for layer, value in found.items():
            over_layers.setdefault(name, {}).setdefault(layer, []).append(value)
    by_time = [Line(name, *map(list, zip(*each, strict=True))) for name, each in over_time.items()]
    by_layer = [
        Line(
            name,
            list(range(len(each))),
            [sum(v) / len(v) for v in each.values()],
            names=list(each),
        )
        for name, each in over_layers.items()
    ]
    panels = [
        Panel("over times", "time (the schedule's own)", "mean strength", by_time),
        Panel("over layers", DEPTH, "mean strength", by_layer),
    ]
    return Figure("How strongly adapters act", panels, 2, of)
