"""Metrics over videos: one model and one video in memory at a time, nothing measured twice."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import isfinite
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Protocol

import torch
from attrs import field, frozen

from jtcore.errors import JtError
from jtcore.evaluation.identity import Identity, code_digest, file_digest, identify
from jtcore.evaluation.ledger import Ledger, Values, key_of
from jtcore.media import read_sample
from jtcore.types import Metric, Sample

if TYPE_CHECKING:
    from jtcore.structure import Component


@frozen
class Video:
    """What is measured: a file, which model made it, and of what."""

    file: Path
    model: str
    prompt: str
    seed: int

    @property
    def sha256(self) -> str:
        return file_digest(self.file)


@frozen(eq=False)
class Measured:
    """What a metric says of each video; or why it could not be asked, and then no values."""

    kind: str
    better: str | None
    identity: Identity | None = None
    missing: str | None = None
    values: Sequence[Values] = field(factory=tuple)  # in the videos' order


class Watch(Protocol):
    """Hears how far measuring has come."""

    def metric(self, name: str, videos: int, known: int) -> None:
        """A metric begins; values of `known` out of so many videos are there already."""

    def measured(self) -> None:
        """One more video."""


class Unwatched:
    """Nobody looks."""

    def metric(self, name: str, videos: int, known: int) -> None: ...

    def measured(self) -> None: ...


def measure_all(
    videos: Sequence[Video],
    metrics: Mapping[str, Component],
    device: torch.device,
    watch: Watch | None = None,
    between: Callable[[], None] = lambda: None,
) -> dict[str, Measured]:
    """What every metric says of all videos; one that lacks something says why, and the others go
    on. `between` is called before each video and may raise Interrupted. Raises JtError where a
    video cannot be read."""
    found = {}
    for name, metric in metrics.items():
        told = {"kind": metric.kind, "better": getattr(metric.spec, "better", None)}
        try:
            measuring = Measuring(name, metric, device)
            values = measuring.measure(videos, watch or Unwatched(), between)
        except Missing as error:
            found[name] = Measured(**told, missing="; ".join(error.problems))
            continue
        found[name] = Measured(**told, identity=measuring.identity, values=values)
    return found


class Missing(JtError):
    """What a metric lacks; its problems begin with the option."""


class Measuring:
    """One metric, which is loaded for the first video that it has not measured yet."""

    def __init__(self, name: str, metric: Component, device: torch.device):
        """Raises Missing."""
        self.name, self.spec, self.device = name, metric.spec, device
        if problems := getattr(metric.spec, "problems", list)():
            raise Missing(problems)
        try:
            self.identity = identify(metric)
        except JtError as error:
            raise Missing(error.problems) from error
        self.ledger = Ledger(self.identity.hash, code_digest(metric))

    def measure(
        self, videos: Sequence[Video], watch: Watch, between: Callable[[], None]
    ) -> list[Values]:
        """Values by name of every video; a value that is no number is none. Raises JtError,
        Missing."""
        keys = [key_of(video.sha256, video.prompt, video.seed) for video in videos]
        watch.metric(self.name, len(videos), sum(self.ledger.get(key) is not None for key in keys))
        asking, busy = Asking(self._load), []
        for key, video in zip(keys, videos, strict=True):
            if self.ledger.get(key) is None:
                between()
                if not self.ledger.measure(key, partial(asking, video)):
                    busy.append((key, video))  # another process measures it: others meanwhile
                    continue
            watch.measured()
        for key, video in busy:
            self.ledger.measure(key, partial(asking, video), between)
            watch.measured()
        asking.free()
        return [self.ledger.get(key) for key in keys]

    def _load(self) -> Metric:
        try:
            return self.spec.load(self.device)
        except JtError as error:
            raise Missing(error.problems) from error


class Asking:
    """A metric, loaded when it is first asked."""

    def __init__(self, load: Callable[[], Metric]):
        self.load = load
        self.metric: Metric | None = None

    def __call__(self, video: Video) -> Values:
        if self.metric is None:
            self.metric = self.load()
        return _ask(self.metric, video)

    def free(self) -> None:
        if self.metric is not None:
            held, self.metric = _watched(self.metric), None
            _free(held)


@torch.no_grad()
def _ask(metric: Metric, video: Video) -> Values:
    pixels, fps = read_sample(video.file)
    answer = metric(Sample(pixels, video.prompt, video.seed, fps))
    return {name: float(value) for name, value in answer.items() if isfinite(value)}


def _watched(metric: Metric) -> Callable[[], object]:
    """What answers it as long as it is there; one that cannot be watched is taken to stay."""
    if isinstance(metric, FunctionType) and metric.__closure__ is None:
        return lambda: None  # a module's own: it stays, and holds nothing
    try:
        return weakref.ref(metric)
    except TypeError:  # a class with slots, and none for this
        stays = type(metric)
        return lambda: stays


def _free(held: Callable[[], object]) -> None:
    """What a metric held is gone before the next one is loaded.

    Looking for circles takes a third of a second among all that torch imports: only where a metric
    is still there, or a network on a GPU may be.
    """
    if held() is not None or torch.cuda.is_available():
        gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
