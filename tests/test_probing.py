"""Probes of a run: with and without its adapters, on prompts with and without what it learned."""

import json
import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from jtcore import cli, commands
from jtcore.plugins import load_plugins
from jtcore.probing.crossed import Crossed, Found, answers, changes, interactions
from jtcore.probing.settings import KINDS, Probes, Question, probe_table, shipped
from jtcore.recipe import build_recipe
from jtcore.structure import structure

PROMPTS = {
    "subject": ["a sks creature stays at mid on gray", "a sks creature moves up at top on teal"],
    "motion": ["a red ball moves eightwise at mid on gray"],
    "both": ["a sks creature moves eightwise at mid on gray", "a sks creature at top on teal"],
    "neither": ["a red ball stays at mid on gray"],
}
VIDEOS = 6  # of a model and a seed: each prompt once, though two kinds begin again


@pytest.fixture(scope="module")
def table(data) -> dict:
    """Two adapters on pocket's architecture, one of pictures and one of clips."""
    losses = {"all": {"kind": "diffusion"}}
    shape = {"size": [24, 24]}
    lora = {"kind": "lora", "targets": "visual", "rank": 2}
    return {
        "title": "two",
        "backbone": {"kind": "pocket", "weights": "random"},
        "data": {
            "subject": {"source": str(data / "subject"), **shape},
            "motion": {"source": str(data / "motion"), "frames": 2, **shape},
        },
        "adapter": {"look": lora, "path": lora},
        "stage": {
            "joint": {
                "steps": 2,
                "lr": 0.1,
                "branch": {
                    "look": {"data": ["subject"], "adapters": ["look"], "losses": losses},
                    "path": {"data": ["motion"], "adapters": ["path"], "losses": losses},
                },
            }
        },
        "sample": {"prompts": [PROMPTS["both"][0]], "frames": 2, "steps": 2, "seeds": [3], **shape},
        "metric": {"steadiness": {"kind": "steadiness"}},
        "engine": {"device": "cpu", "threads": 1},
    }


@pytest.fixture(scope="module")
def run(table, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("probed")
    (folder / "recipe.toml").write_text(tomli_w.dumps(table))
    given = [str(folder / "recipe.toml"), "--out", str(folder / "run"), "--quiet"]
    assert cli.run(given) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("asked") / "probes.toml"
    path.write_text(tomli_w.dumps({"prompts": PROMPTS}))
    return path


@pytest.fixture(scope="module")
def probed(run, asked) -> Path:
    """By a process of its own, as people do it, from anywhere."""
    given = ["-m", "jtcore.commands", "probe", str(run), "--probes", str(asked)]
    ended = subprocess.run(
        [sys.executable, *given],
        cwd=asked.parent,
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert ended.returncode == 0, ended.stderr
    assert "## Does the motion carry the look of its clips?" in ended.stdout
    return run / "probes"


def environment() -> dict[str, str]:
    root = Path(__file__).parent.parent
    return os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}


def read(folder: Path, name: str = "probes.json") -> dict:
    return json.loads((folder / name).read_text())


def test_every_prompt_is_asked_of_every_model_once(probed):
    models = ["adapted", "base", "without-look", "without-path"]
    assert sorted(path.name for path in probed.iterdir() if path.is_dir()) == models
    for model in models:
        assert len([*(probed / model).glob("*.mp4")]) == VIDEOS
    assert read(probed)["models"] == {
        "base": {},
        "adapted": {"look": 1.0, "path": 1.0},
        "without-look": {"path": 1.0},
        "without-path": {"look": 1.0},
    }
    assert len(read(probed, "evaluation.json")["videos"]) == len(models) * VIDEOS


def test_videos_are_those_that_the_run_and_its_adapters_alone_make(run, probed, tmp_path):
    for model in ("base", "adapted"):
        own = (run / "samples" / model / "00-seed3.mp4").read_bytes()
        assert (probed / model / "both-00-seed3.mp4").read_bytes() == own
    adapter, prompt = run / "adapters" / "look.safetensors", PROMPTS["both"][0]
    given = [str(adapter), "--prompt", prompt, "--seed", "3", "--out", str(tmp_path), "--quiet"]
    assert cli.sample([*given, "--set", "engine.threads=1"]) == 0
    alone = (tmp_path / "adapted" / "00-seed3.mp4").read_bytes()
    assert (probed / "without-path" / "both-00-seed3.mp4").read_bytes() == alone


def test_cross_terms_are_differences_of_the_videos_numbers(probed):
    values = {}
    for video in read(probed, "evaluation.json")["videos"]:
        values[video["model"], video["prompt"]] = video["values"]
    table = read(probed)
    name = "colour_similarity.colour_similarity"

    def mean(*signed: tuple[int, str, str]) -> float:
        """Over both prompts of a sum over (sign, model, kind)."""
        terms = [
            sum(s * values[m, PROMPTS[k][i % len(PROMPTS[k])]][name] for s, m, k in signed)
            for i in range(2)
        ]
        return sum(terms) / 2

    found = {
        (row["of"], row.get("model"), row.get("prompts")): row["estimate"]
        for row in table["interactions"]
        if row["value"] == name
    }
    for model in ("base", "adapted", "without-look"):
        cells = [(1, model, "both"), (-1, model, "subject"), (-1, model, "motion")]
        expected = mean(*cells, (1, model, "neither"))
        assert found["prompts", model, None] == pytest.approx(expected, abs=1e-12)
    cells = [(1, "adapted", "both"), (-1, "without-look", "both"), (-1, "without-path", "both")]
    expected = mean(*cells, (1, "base", "both"))
    assert found["adapters", None, "both"] == pytest.approx(expected, abs=1e-12)
    change = next(
        row
        for row in table["changes"]
        if (row["value"], row["model"], row["prompts"]) == (name, "adapted", "motion")
    )
    expected = mean((1, "adapted", "motion"), (-1, "base", "motion"))
    assert change["estimate"] == pytest.approx(expected, abs=1e-12)
    asked = table["questions"]["carried_look"]["answers"]
    told = {(row["value"], row["model"]) for row in asked}
    assert ("colour_similarity_of_motion.colour_similarity", "without-look") in told
    assert ("colour_similarity.colour_similarity", "adapted") not in told


def test_probing_again_makes_nothing_anew(run, probed, asked, capsys):
    before = {path: path.stat().st_mtime_ns for path in probed.rglob("*.mp4")}
    gone = probed / "adapted" / "motion-00-seed3.mp4"
    content = gone.read_bytes()
    gone.unlink()
    assert commands.probe([str(run), "--probes", str(asked)]) == 0
    assert gone.read_bytes() == content
    now = {path: path.stat().st_mtime_ns for path in probed.rglob("*.mp4")}
    assert {path for path in now if now[path] != before[path]} == {gone}
    assert read(probed, "evaluation.json")["command"][:2] == ["jt-probe", str(run)]


def test_other_probes_are_put_elsewhere(run, probed, asked, tmp_path, capsys):
    other = tmp_path / "probes.toml"
    other.write_text(asked.read_text().replace("red ball", "blue ball"))
    assert commands.probe([str(run), "--probes", str(other)]) == 2
    assert capsys.readouterr().err == (
        f"{probed}: holds videos of other probes; name another with --out\n"
    )


def test_what_is_no_run_and_what_no_prompt_is_for_is_told(run, tmp_path, capsys):
    assert commands.probe([str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"{tmp_path}: not a run directory: it has no run.json\n"
    path = tmp_path / "probes.toml"
    path.write_text(tomli_w.dumps({"prompts": {**PROMPTS, "both": ["a wug dances"]}}))
    given = [str(run), "--probes", str(path), "--out", str(tmp_path / "out")]
    assert commands.probe(given) == 2
    assert "'a wug dances' has words that pocket does not know: 'dances'" in capsys.readouterr().err


# Where prompts come from


def test_prompts_beside_the_data_are_taken_and_else_those_of_the_run(
    table, data, tmp_path, plugins
):
    recipe = build_recipe(table, plugins)
    found, told = probe_table(recipe, Path.cwd(), None)
    assert told == f"prompts of {data / 'probes.toml'}"
    assert set(found["prompts"]) == set(KINDS) and len(found["prompts"]["neither"]) == 8

    for name in ("subject", "motion"):
        shutil.copytree(data / name, tmp_path / name)
        table["data"][name]["source"] = str(tmp_path / name)
    found, told = probe_table(build_recipe(table, plugins), Path.cwd(), None)
    captions = (data / "subject/00.txt").read_text().strip()
    assert found["prompts"]["subject"] == [captions]
    assert found["prompts"]["both"] == list(recipe.sample.prompts)
    assert found["prompts"]["neither"] == [""]
    assert told.startswith("prompts: captions of the run's pictures")
    probes = structure(Probes, found, plugins)
    assert probes.question.keys() == shipped()["question"].keys()


# Arithmetic


def crossed(values) -> Crossed:
    """Of an array (models, kinds, prompts, seeds)."""
    models = ("base", "adapted", "without-a", "without-b")[: len(values)]
    return Crossed(
        [
            Found(model, kind, i, seed, {"m.v": values[at, k, i, seed]})
            for (at, model), (k, kind) in product(enumerate(models), enumerate(KINDS))
            for i, seed in product(range(values.shape[2]), range(values.shape[3]))
            if np.isfinite(values[at, k, i, seed])
        ]
    )


def test_what_adds_up_has_no_interaction_and_what_does_not_has_its_excess():
    rng = np.random.default_rng(0)
    subject, motion, place = rng.normal(size=(3, 4, 5, 2))  # (models, prompts, seeds)
    excess = np.array([0.0, 0.25, 0.0, 0.0])[:, None, None]
    values = np.stack([subject, motion, subject + motion + excess, 0 * place], 1)
    rows = {row["model"]: row for row in interactions(crossed(values)) if row["of"] == "prompts"}
    for model, expected in zip(("base", "adapted"), (0.0, 0.25), strict=True):
        row = rows[model]
        assert [row[key] for key in ("estimate", "low", "high")] == pytest.approx([expected] * 3)
        assert row["videos"] == 10


def test_only_what_all_cells_have_counts():
    values = np.ones((2, 4, 3, 2))
    values[1] = 3.0
    values[0, 1, 0] = np.nan
    rows = [row for row in changes(crossed(values)) if row["prompts"] == "motion"]
    assert [(row["estimate"], row["videos"]) for row in rows] == [(2.0, 4)]


@pytest.mark.parametrize(
    "shift, yes, answer",
    [
        (0.5, "above", "yes"),
        (-0.5, "above", "no, the opposite"),
        (-0.5, "below", "yes"),
        (0.0, "below", "not shown"),
    ],
)
def test_an_answer_is_what_the_interval_shows(shift, yes, answer):
    values = np.random.default_rng(1).normal(scale=0.1, size=(2, 4, 6, 2))
    values[1, 1] += shift
    question = Question("Does it?", "motion", ("m.*",), yes)
    (row,) = answers(crossed(values), {"it": question})["it"]["answers"]
    assert (row["model"], row["answer"]) == ("adapted", answer)
    assert row["low"] < row["estimate"] < row["high"]


def test_the_shipped_metrics_exist():
    suite = shipped()
    known = load_plugins().families["metrics"]
    assert {metric["kind"] for metric in suite["metric"].values()} <= known.keys()
