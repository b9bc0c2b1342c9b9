"""However many videos and metrics there are: one of each is in memory."""

import gc
import weakref
from pathlib import Path

import pytest
import torch
from attrs import frozen
from rich.console import Console

from jtcore.claims import claimed
from jtcore.evaluation.identity import code_digest, identify
from jtcore.evaluation.ledger import Ledger, key_of
from jtcore.evaluation.measuring import Video, measure_all
from jtcore.evaluation.progress import watching
from jtcore.media import write_video
from jtcore.structure import Component

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_video(path, torch.full((3, 2, 64, 64), 0.5), 8)
    return path


def videos(film: Path, count: int) -> list[Video]:
    """One file, asked for so many prompts."""
    return [Video(film, "adapted", f"prompt {number}", 0) for number in range(count)]


class Alive:
    """How many of what it was shown are in memory at once, at most."""

    def __init__(self):
        self.shown: list[weakref.ref] = []
        self.most = 0

    def add(self, shown: object) -> None:
        self.shown = [each for each in self.shown if each() is not None]
        self.shown.append(weakref.ref(shown))
        self.most = max(self.most, len(self.shown))


class Model:
    """What a metric loads."""

    def __init__(self, seen: Alive):
        self.seen = seen
        self.itself = self  # a cycle, as networks have: it goes when garbage is collected

    def __call__(self, sample):
        self.seen.add(sample.video)
        return {"mean": sample.video.mean().item()}


@frozen(eq=False)
class Heavy:
    """Knows how many videos and models there are at once."""

    seen = Alive()
    models = Alive()
    name: str = ""

    def load(self, device):
        model = Model(self.seen)
        self.models.add(model)
        return model


def test_of_a_hundred_videos_one_is_in_memory_and_of_three_models_one(film):
    metrics = {name: Component("heavy", Heavy(name)) for name in ("a", "b", "c")}
    gc.disable()  # so that nothing is freed by chance
    try:
        found = measure_all(videos(film, 100), metrics, CPU)
    finally:
        gc.enable()

    assert [len(each.values) for each in found.values()] == [100, 100, 100]
    # the one that is being decoded, while the one before is only just let go of
    assert Heavy.seen.most <= 2
    assert Heavy.models.most == 1


def test_a_model_is_not_loaded_for_what_is_known_already(film):
    @frozen
    class Once:
        """Loads once."""

        def load(self, device):
            loads.append(device)
            return lambda sample: {"frames": sample.video.shape[1]}

    loads: list[torch.device] = []
    metrics = {"once": Component("once", Once())}
    first = measure_all(videos(film, 3), metrics, CPU)
    again = measure_all(videos(film, 2), metrics, CPU)

    assert len(loads) == 1
    assert list(again["once"].values) == list(first["once"].values[:2]) == [{"frames": 2.0}] * 2


def test_what_another_process_measures_is_waited_for_when_all_else_is_done(film):
    @frozen
    class Answering:
        """Notes what it is asked."""

        def load(self, device):
            return lambda sample: asked.append(sample.prompt) or {"one": 1.0}

    asked: list[str] = []
    metric, wanted = Component("answering", Answering()), videos(film, 3)
    other = Ledger(identify(metric).hash, code_digest(metric))
    first = key_of(wanted[0].sha256, wanted[0].prompt, 0)
    held = claimed(other.path.with_name(f".{other.path.stem}-{first}.lock"))
    assert held.__enter__()

    def between() -> None:
        if len(asked) == 2:
            other.put(first, {"one": 7.0})
            held.__exit__(None, None, None)

    found = measure_all(wanted, {"m": metric}, CPU, between=between)
    assert asked == ["prompt 1", "prompt 2"]
    assert found["m"].values == [{"one": 7.0}, {"one": 1.0}, {"one": 1.0}]


def plain(sample):
    return {}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's memory is looked after anyway")
def test_circles_are_not_looked_for_in_a_function_of_a_module(film, monkeypatch):
    @frozen
    class Plain:
        """Loads what is there anyway."""

        def load(self, device):
            return plain

    monkeypatch.setattr(gc, "collect", pytest.fail)
    measure_all(videos(film, 1), {"m": Component("plain", Plain())}, CPU)


def test_metrics_are_asked_without_gradients(film):
    @frozen
    class Learning:
        """Would keep a graph."""

        def load(self, device):
            weight = torch.ones((), requires_grad=True)
            return lambda sample: {"graph": float((weight * sample.video).requires_grad)}

    found = measure_all(videos(film, 1), {"m": Component("learning", Learning())}, CPU)
    assert found["m"].values == [{"graph": 0.0}]


def test_a_terminal_has_a_bar_for_each_metric(film, monkeypatch):
    console = Console(force_terminal=True, width=100, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    monkeypatch.setattr("rich.get_console", lambda: console)
    said: list[str] = []
    metrics = {name: Component("heavy", Heavy(name)) for name in ("first", "second")}
    with watching(False, said.append) as watch:
        measure_all(videos(film, 5), metrics, CPU, watch)

    shown = console.export_text()
    console.file.close()
    assert said == []
    assert "first" in shown and "second" in shown and "5/5" in shown


def test_elsewhere_a_line_tells_of_each_metric_and_quiet_tells_nothing(film):
    said: list[str] = []
    metrics = {"first": Component("heavy", Heavy("first"))}
    for count in (2, 3):
        with watching(True, said.append) as watch:
            measure_all(videos(film, count), metrics, CPU, watch)
    assert said == ["first: 2 videos", "first: 3 videos, 2 of them known already"]
