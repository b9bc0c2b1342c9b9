"""A metric's identity is what its numbers depend on, wherever its files lie."""

import os
from pathlib import Path
from typing import ClassVar

import pytest
from attrs import frozen

from jtcore.errors import JtError
from jtcore.evaluation.identity import code_digest, identify
from jtcore.evaluation.references import References, filled, metrics_of
from jtcore.recipe import build_recipe
from jtcore.structure import Component


@frozen
class Plain:
    """Has options alone."""

    threshold: float = 0.5
    word: str = "spiral"
    batch: int = 4


@frozen
class Raised(Plain):
    """The same after its numbers have changed."""

    version: ClassVar[int] = 2


@frozen
class Comparing:
    """Has references, files, and weights that it says itself."""

    model: str
    subject: str | None = None
    motion: str | None = None
    task: str | None = None

    def files(self):
        return [Path(self.task) / "task.json"] if self.task else []

    def identity(self):
        return {"weights": (Path(self.model) / "weights").read_text(), "side": (224, 224)}


def hash_of(spec: object, kind: str = "kind") -> str:
    return identify(Component(kind, spec)).hash


def folder(path: Path, **files: str) -> str:
    path.mkdir(parents=True)
    for name, text in files.items():
        (path / name.replace("_", ".")).write_text(text)
    return str(path)


def test_kind_version_and_options_are_told():
    assert identify(Component("kind", Plain())).table == {
        "kind": "kind",
        "version": 1,
        "options": {"threshold": 0.5, "word": "spiral"},
    }


def test_kind_version_and_each_option_make_another_identity():
    every = [Plain(), Raised(), Plain(threshold=0.4), Plain(word="square")]
    hashes = {*map(hash_of, every), hash_of(Plain(), kind="other")}
    assert len(hashes) == 5


def test_how_many_frames_go_through_at_once_does_not():
    assert hash_of(Plain(batch=1)) == hash_of(Plain(batch=64))


def test_files_count_by_what_is_in_them_and_not_by_where_they_are(tmp_path):
    here, there, other = (
        Comparing(
            model=folder(tmp_path / place / "model", weights="the weights"),
            subject=folder(tmp_path / place / "subject", a_png="1", b_png=second, a_txt="caption"),
            task=folder(tmp_path / place / "task", task_json="{}", notes=place),
        )
        for place, second in (("here", "2"), ("there", "2"), ("other", "3"))
    )
    assert identify(Component("kind", here)) == identify(Component("kind", there))
    assert hash_of(here) != hash_of(other)  # one picture differs
    Path(here.task, "task.json").write_text("{ }")
    assert hash_of(here) != hash_of(there)


def test_weights_count_by_what_the_metric_says_of_them(tmp_path):
    same, also, other = (
        Comparing(folder(tmp_path / name, weights=text))
        for name, text in (("a", "one"), ("b", "one"), ("c", "two"))
    )
    assert hash_of(same) == hash_of(also) != hash_of(other)
    assert identify(Component("kind", same)).table["itself"] == {
        "weights": "one",
        "side": [224, 224],
    }


def test_a_word_that_is_the_name_of_no_file_stays_a_word(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = hash_of(Plain())
    Path("spiral").write_text("now it is one")
    assert hash_of(Plain()) != before


def test_a_file_that_changes_is_read_again(tmp_path):
    spec = Comparing(folder(tmp_path / "m", weights="w"), folder(tmp_path / "s", a_png="one"))
    before = hash_of(spec)
    aside = tmp_path / "aside"
    aside.write_text("two")
    os.replace(aside, tmp_path / "s" / "a.png")  # noqa: PTH105
    assert hash_of(spec) != before


def test_a_pattern_names_its_files(tmp_path):
    model = folder(tmp_path / "m", weights="w")
    subject = folder(tmp_path / "s", a_png="one", b_png="two")
    whole, some = Comparing(model, subject), Comparing(model, f"{subject}/*.png")
    assert hash_of(whole) == hash_of(some) != hash_of(Comparing(model, f"{subject}/a*"))


def test_the_code_of_a_metric_is_its_file_and_what_neighbours_share(load_with, plugin_folder):
    source = """
        from attrs import frozen
        from jtcore import hookimpl
        from ._shared import LEVEL

        @frozen
        class Level:
            "The level"

            def load(self, device):
                return lambda sample: {"level": LEVEL}

        @hookimpl
        def jt_metrics():
            return {"level": Level}
    """
    plugins = load_with(level=source, _shared="LEVEL = 1.0")
    metric = Component("level", plugins.find("metrics", "level")())
    before = code_digest(metric)
    plugin_folder(_shared="LEVEL = 2.0")
    assert code_digest(metric) != before


def test_references_fill_what_is_left_open(tmp_path):
    given = {
        "open": Component("k", Comparing("model")),
        "said": Component("k", Comparing("model", subject="own")),
        "without": Component("k", Plain()),
    }
    found = filled(given, References(subject="pictures", motion="clips"))

    assert found["open"].spec == Comparing("model", "pictures", "clips")
    assert found["said"].spec == Comparing("model", "own", "clips")
    assert found["without"] is given["without"]


@pytest.mark.parametrize(
    ("renamed", "subject"), [({}, "subject"), ({"subject": "cat"}, "subject"), (None, None)]
)
def test_a_run_tells_its_metrics_what_it_trains_on(
    table, data, load_with, renamed, subject
):  # None: two streams of pictures, of which none is called subject
    plugins = load_with(
        comparing="""
        from attrs import frozen
        from jtcore import hookimpl

        @frozen
        class Comparing:
            "Compares"
            subject: str | None = None
            motion: str | None = None

            def load(self, device):
                return lambda sample: {}

        @hookimpl
        def jt_metrics():
            return {"comparing": Comparing}
    """
    )
    table["metric"] = {"comparing": {"kind": "comparing"}}
    branch = table["stage"]["joint"]["branch"]["joint"]
    if renamed is None:
        renamed = {"subject": "cat"}
        table["data"]["dog"] = table["data"]["subject"]
        branch["data"].append("dog")
    for old, new in renamed.items():
        table["data"][new] = table["data"].pop(old)
        branch["data"][branch["data"].index(old)] = new
    spec = metrics_of(build_recipe(table, plugins))["comparing"].spec

    assert spec.subject == (subject and str(data / subject))
    assert spec.motion == str(data / "motion")


def test_references_that_a_command_names_must_be_there(tmp_path):
    with pytest.raises(JtError, match=r"^--motion: '.*nowhere' matches no picture or video$"):
        References(motion=str(tmp_path / "nowhere")).check()
    assert References(motion=str(tmp_path / "nowhere")).files() == {"subject": [], "motion": []}
