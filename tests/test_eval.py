"""`jt-eval`: what is measured of runs and folders, once, and what is written of it."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import tomli_w
import torch

from jtcore import cli
from jtcore.evaluation import suites
from jtcore.media import write_video

PLUGINS = {
    "noted": '''
        """Mean brightness, and a note of every video that is looked at."""

        import os
        import signal
        from pathlib import Path
        from typing import ClassVar

        from attrs import frozen

        from jtcore import hookimpl

        NOTES = Path(__file__).with_name("notes.txt")


        @frozen
        class Noted:
            "Mean brightness times a factor"

            better: ClassVar[str] = "higher"
            factor: float = 1.0

            def load(self, device):
                return self.look

            def look(self, sample):
                looked = NOTES.read_text().count("\\n") if NOTES.exists() else 0
                if looked == int(os.environ.get("KILLED_AT", -1)):
                    os.kill(os.getpid(), signal.SIGKILL)
                with NOTES.open("a") as file:
                    file.write(f"{sample.prompt} {sample.seed}\\n")
                return {"level": self.factor * sample.video.mean().item()}


        @hookimpl
        def jt_metrics():
            return {"noted": Noted}
    ''',
    "lacking": '''
        """What needs a model that is not there, and what it is compared with."""

        from attrs import frozen

        from jtcore import hookimpl
        from jtcore.errors import JtError


        @frozen
        class Lacking:
            "Needs a model"

            model: str = "owner/network"
            other: str = "word"

            def problems(self):
                return [f"model: {self.model!r} is not there; get it by `hf download`"]

            def load(self, device):
                raise AssertionError


        @frozen
        class Breaking:
            "Its model is damaged"

            def load(self, device):
                raise JtError("model: damaged")


        @frozen
        class Compared:
            "Counts its references"

            subject: str | None = None
            motion: str | None = None

            def problems(self):
                return [] if self.subject else ["subject: is not given"]

            def load(self, device):
                from jtcore.data import source_files

                return lambda sample: {"pictures": len(source_files(self.subject))}


        @hookimpl
        def jt_metrics():
            return {"lacking": Lacking, "breaking": Breaking, "compared": Compared}
    ''',
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Videos of one level are the same file in every test."""
    monkeypatch.setenv("JT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(plugin_folder) -> Path:
    """A folder of plugins: metrics that leave notes, or lack something."""
    return plugin_folder(**{name: dedent(source) for name, source in PLUGINS.items()})


@pytest.fixture
def jt_eval(folder, capsys):
    """Evaluate in this process; the status, what was printed, and what went wrong."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = cli.evaluate([*map(str, arguments), "--plugin-folder", str(folder)])
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def suite(tmp_path):
    """Write metrics as a suite, and say where."""

    def write(**metrics: dict) -> Path:
        path = tmp_path / "suite.toml"
        path.write_text(tomli_w.dumps({"metric": metrics}))
        return path

    return write


@pytest.fixture
def films(tmp_path):
    """Tiny videos by name and level, in a folder."""

    def film(place: str, **levels: float) -> Path:
        for name, level in levels.items():
            path = tmp_path / place / f"{name.replace('_', '-').strip('-')}.mp4"
            write_video(path, torch.full((3, 2, 64, 64), level), 8)
        return tmp_path / place

    return film


def noted(folder: Path) -> list[str]:
    notes = folder / "notes.txt"
    return notes.read_text().splitlines() if notes.exists() else []


def rows_of(folder: Path) -> list[dict]:
    with (folder / "evaluation.csv").open() as file:
        return list(csv.DictReader(file))


def evaluation(folder: Path) -> dict:
    return json.loads((folder / "evaluation.json").read_text())


NOTED = {"kind": "noted"}


def test_after_a_run_nothing_is_measured_twice_and_its_numbers_are_found_again(
    table, jt_run, jt_eval, folder
):
    table["metric"]["light"] = NOTED
    table["sample"]["seeds"] = [0, 1]
    run = jt_run(table, "--plugin-folder", str(folder))
    of_run, metrics = noted(folder), (run / "metrics.json").read_bytes()
    own = evaluation(run / "evaluation")
    assert sorted(of_run) == ["a wug 0", "a wug 0", "a wug 1", "a wug 1"]

    status, out, _ = jt_eval(run)

    assert status == 0 and "light: 4 videos, 4 of them known already" in out
    assert noted(folder) == of_run
    assert (run / "metrics.json").read_bytes() == metrics
    found = evaluation(run / "evaluation")
    for key in ("videos", "summary", "paired", "metrics", "references"):
        assert found[key] == own[key]
    measured = json.loads(metrics)["samples"]
    assert [video["values"] for video in found["videos"]] == [e["metrics"] for e in measured]


def test_an_evaluation_says_what_the_schema_promises(table, jt_run, jt_eval, folder, data):
    table["metric"] = {"light": NOTED, "compared": {"kind": "compared"}}
    run = jt_run(table, "--plugin-folder", str(folder))
    assert jt_eval(run)[0] == 0

    found = evaluation(run / "evaluation")

    assert list(found) == [
        *("version", "created", "command", "title", "recipe", "metrics", "videos", "summary"),
        *("paired", "references"),
    ]
    assert (found["version"], found["title"]) == (1, "tiny")
    light = found["metrics"]["light"]
    assert (light["kind"], light["better"], light["missing"]) == ("noted", "higher", None)
    assert light["identity"] == {"kind": "noted", "version": 1, "options": {"factor": 1.0}}
    assert found["metrics"]["compared"]["better"] is None
    base, adapted = found["videos"]
    assert base["file"] == "../samples/base/00-seed0.mp4"
    assert (run / "evaluation" / base["file"]).is_file()
    assert (base["model"], base["prompt"], base["seed"]) == ("base", "a wug", 0)
    assert set(adapted["values"]) == {"light.level", "compared.pictures"}
    assert adapted["values"]["compared.pictures"] == 2
    assert found["summary"]["base"]["light.level"]["mean"] == base["values"]["light.level"]
    difference = adapted["values"]["light.level"] - base["values"]["light.level"]
    assert found["paired"][0]["difference"] == pytest.approx(difference)
    assert (found["paired"][0]["one"], found["paired"][0]["other"]) == ("adapted", "base")
    assert found["references"]["subject"] == [
        str(path) for path in sorted((data / "subject").glob("*.png"))
    ]
    rows = rows_of(run / "evaluation")
    assert [float(row["light.level"]) for row in rows] == [
        video["values"]["light.level"] for video in found["videos"]
    ]
    assert rows[0]["prompt"] == "a wug"
    assert (run / "report.html").is_file()


def test_killed_and_started_again_it_measures_nothing_twice(films, suite, folder, tmp_path):
    videos = films("videos", **{f"{n:02d}_word_{n}": n / 12 for n in range(12)})
    command = [sys.executable, "-m", "jtcore.cli", "eval", "--videos", str(videos)]
    command += ["--suite", str(suite(light=NOTED)), "--plugin-folder", str(folder), "--quiet"]
    clean = {**os.environ, "JT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    killed = subprocess.run(command, env=clean | {"KILLED_AT": "5"}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert noted(folder) == [f"word {n}" for n in range(5)]
    again = subprocess.run(command, env=clean, capture_output=True, text=True)

    assert (again.returncode, again.stderr) == (0, "")
    assert noted(folder) == [f"word {n}" for n in range(12)]
    values = [
        video["values"]["light.level"] for video in evaluation(videos / "evaluation")["videos"]
    ]
    assert values == pytest.approx([n / 12 for n in range(12)], abs=0.02)


def test_a_metric_that_lacks_something_is_named_and_the_others_go_on(films, suite, jt_eval):
    videos = films("videos", **{"0_a_cat_7": 0.5})
    metrics = suite(
        light=NOTED,
        network={"kind": "lacking"},
        broken={"kind": "breaking"},
        compared={"kind": "compared"},
    )

    status, out, err = jt_eval("--videos", videos, "--suite", metrics)

    assert (status, err) == (0, "")
    assert out.splitlines()[-5:-3] == [
        "missing: metric.broken: model: damaged",
        "missing: metric.compared: subject: is not given",
    ]
    found = evaluation(videos / "evaluation")
    told = "model: 'owner/network' is not there; get it by `hf download`"
    assert found["metrics"]["network"]["missing"] == told
    assert (found["metrics"]["network"]["identity"], found["metrics"]["network"]["hash"]) == (
        {},
        "",
    )
    assert found["metrics"]["light"]["missing"] is None
    assert found["videos"][0]["values"].keys() == {"light.level"}
    strict = jt_eval("--videos", videos, "--suite", metrics, "--strict", "--quiet")
    assert strict == (
        2,
        "",
        f"metric.network: {told}\nmetric.broken: model: damaged\n"
        "metric.compared: subject: is not given\n",
    )


def test_where_nothing_could_be_measured_it_is_a_mistake_and_what_was_there_stays(
    films, suite, jt_eval
):
    videos = films("videos", **{"0_a_cat_7": 0.5})
    jt_eval("--videos", videos, "--suite", suite(light=NOTED))
    before = (videos / "evaluation" / "evaluation.json").read_bytes()

    lacking = suite(network={"kind": "lacking"})
    status, out, err = jt_eval("--videos", videos, "--suite", lacking)

    told = "metric.network: model: 'owner/network' is not there; get it by `hf download`\n"
    assert (status, out, err) == (2, "", told)
    assert (videos / "evaluation" / "evaluation.json").read_bytes() == before


def test_references_of_the_command_are_of_all_metrics_that_name_none(
    films, suite, jt_eval, data, tmp_path
):
    videos = films("videos", **{"0_a_cat_7": 0.5})
    one = tmp_path / "one"
    one.mkdir()
    shutil.copy(next((data / "subject").glob("*.png")), one)
    metrics = suite(filled={"kind": "compared"}, own={"kind": "compared", "subject": str(one)})

    subject = ("--subject", data / "subject")
    assert jt_eval("--videos", videos, "--suite", metrics, *subject)[0] == 0

    found = evaluation(videos / "evaluation")
    assert found["videos"][0]["values"] == {"filled.pictures": 2.0, "own.pictures": 1.0}
    assert found["metrics"]["filled"]["hash"] != found["metrics"]["own"]["hash"]
    assert len(found["references"]["subject"]) == 2


def test_a_changed_metric_measures_again_and_a_changed_video_too(films, suite, jt_eval, folder):
    videos = films("videos", **{"0_a_cat_7": 0.5, "1_a_dog_7": 0.2})
    metrics = suite(light=NOTED)
    jt_eval("--videos", videos, "--suite", metrics)
    jt_eval("--videos", videos, "--suite", metrics, "--set", "metric.light.factor=2")
    assert evaluation(videos / "evaluation")["videos"][0]["values"]["light.level"] > 0.9
    assert len(noted(folder)) == 4

    films("videos", **{"1_a_dog_7": 0.9})
    jt_eval("--videos", videos, "--suite", metrics)
    assert noted(folder)[4:] == ["a dog 7"]


def test_a_folder_for_each_model_is_compared_with_the_base_first(films, suite, jt_eval):
    films("videos/ours", **{"0_a_cat_0": 0.5, "0_a_cat_1": 0.6})
    videos = films("videos/base", **{"0_a_cat_0": 0.1, "0_a_cat_1": 0.4}).parent

    assert jt_eval("--videos", videos, "--suite", suite(light=NOTED))[0] == 0

    (pair,) = evaluation(videos / "evaluation")["paired"]
    assert (pair["one"], pair["other"], pair["pairs"], pair["wins"]) == ("ours", "base", 2, 2)
    assert pair["difference"] == pytest.approx(0.3, abs=0.02)


@pytest.fixture
def asked(suite, jt_eval):
    """What videos of a folder were asked for: (prompt, seed) of each."""

    def ask(videos: Path, *arguments: object) -> list[tuple[str, int]]:
        status, _, err = jt_eval("--videos", videos, "--suite", suite(light=NOTED), *arguments)
        assert status == 0, err
        found = evaluation(videos / "evaluation")["videos"]
        return [(video["prompt"], video["seed"]) for video in found]

    return ask


def test_prompts_are_lines_in_the_order_of_names(films, asked, tmp_path):
    videos = films("videos", one=0.1, two=0.2, zero=0.3)
    (tmp_path / "prompts.txt").write_text("a cat\n# a note\n\na dog\na cat\n")
    found = asked(videos, "--prompts", tmp_path / "prompts.txt")
    assert found == [("a cat", 0), ("a dog", 0), ("a cat", 1)]


def test_prompts_of_numbered_videos_go_by_their_numbers(films, asked, tmp_path):
    videos = films("videos", **{"00_seed5": 0.1, "00_seed6": 0.2, "01_seed5": 0.3})
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    found = asked(videos, "--prompts", tmp_path / "prompts.txt")
    assert found == [("a cat", 5), ("a cat", 6), ("a dog", 5)]


def test_prompts_are_read_from_names_or_from_texts_beside(films, asked):
    videos = films(
        "videos", **{"03_a_sks_cat_runs_42": 0.1, "04_a_dog_seed7": 0.2, "05_seed9": 0.3}
    )
    (videos / "05-seed9.txt").write_text("a bird\n")
    assert asked(videos) == [("a sks cat runs", 42), ("a dog", 7), ("a bird", 9)]


def test_what_jt_sample_listed_is_taken_as_it_is(films, asked, tmp_path):
    films("out/adapted", **{"00_seed3": 0.5})
    entry = {"file": "adapted/00-seed3.mp4", "model": "adapted", "prompt": "a cat", "seed": 3}
    (tmp_path / "out" / "samples.json").write_text(json.dumps([entry]))
    assert asked(tmp_path / "out") == [("a cat", 3)]


def test_counts_that_disagree_are_told(films, jt_eval, tmp_path):
    videos = films("videos", one=0.1, two=0.2)
    numbered = films("numbered", **{"00_seed0": 0.1, "04_seed0": 0.1})
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\n")

    def told(*arguments: object) -> str:
        status, _, err = jt_eval(*arguments)
        assert status == 2
        return err

    assert told("--videos", videos, "--prompts", prompts) == (
        f"--prompts: {prompts} has 1 prompts, and {videos} has 2 videos; expected a line for each,"
        " in the order of their names\n"
    )
    assert told("--videos", numbered, "--prompts", prompts) == (
        f"--prompts: {prompts} has 1 prompts, and {numbered} has videos of number 4, which needs"
        " 5\n"
    )
    assert told("--videos", videos) == (
        f"{videos}/one.mp4 and 1 more: no prompt is known; give --prompts FILE with one a line, or"
        " name files NUMBER-prompt-words-SEED.mp4\n"
    )
    assert told("--videos", tmp_path / "nowhere") == (
        f"--videos: {str(tmp_path / 'nowhere')!r} is not a folder\n"
    )
    assert told("--videos", tmp_path / "plugin_folder") == (
        f"--videos: {str(tmp_path / 'plugin_folder')!r} holds no video, nor a folder with videos\n"
    )
    twice = films("twice", **{"0_a_cat_1": 0.1, "1_a_cat_1": 0.2})
    assert "1-a-cat-1.mp4: has the prompt and seed of 0-a-cat-1.mp4" in told("--videos", twice)


def test_a_video_that_cannot_be_read_is_named(films, suite, jt_eval):
    videos = films("videos", **{"0_a_cat_7": 0.5})
    (videos / "1-a-dog-7.mp4").write_text("no video")
    status, _, err = jt_eval("--videos", videos, "--suite", suite(light=NOTED))
    assert status == 2
    assert err.startswith(f"{videos / '1-a-dog-7.mp4'}: cannot be read: ")


def test_metrics_are_chosen_changed_and_refused_by_name(films, suite, jt_eval):
    videos = films("videos", **{"0_a_cat_7": 0.5})
    metrics = suite(light=NOTED, network={"kind": "lacking"})
    chosen = jt_eval("--videos", videos, "--suite", metrics, "--only", "light", "--strict")
    assert chosen[0] == 0

    for arguments, told in {
        ("--only", "ligth"): "--only: unknown metric 'ligth'; did you mean 'light'?",
        ("--suite", "ofline"): "--suite: no such file, nor a shipped suite: 'ofline'; did you mean"
        " 'offline'?",
        ("--set", "metric.light.factr=2"): "metric.light.factr: unknown key; did you mean"
        " 'factor'?",
        ("--set", "sample.steps=2"): "sample: unknown key",
        ("--subject", "nowhere"): f"--subject: '{Path.cwd()}/nowhere' matches no picture or video",
        ("--models", "nowhere"): "--models: 'nowhere' is not a folder",
        ("--average-score",): "--average-score: this suite has no [average_score], which names its"
        " numbers and their factors; the shipped suite jointtuner has",
    }.items():
        status, _, err = jt_eval("--videos", videos, "--suite", metrics, *arguments)
        assert status == 2
        assert err.startswith(told) or told in err, err


def test_models_are_found_by_the_last_part_of_their_names(films, suite, jt_eval, tmp_path):
    videos = films("videos", **{"0_a_cat_7": 0.5})
    (tmp_path / "models" / "network").mkdir(parents=True)
    (tmp_path / "models" / "word").mkdir()
    metrics = suite(network={"kind": "lacking"})

    _, _, err = jt_eval("--videos", videos, "--suite", metrics, "--models", tmp_path / "models")

    assert f"model: '{tmp_path}/models/network' is not there" in err
    table = {"metric": {"n": {"kind": "lacking"}}}
    from jtcore.plugins import load_plugins

    built = suites.build_suite(table, [], [], load_plugins([tmp_path / "plugin_folder"]))
    found = suites.with_models(built.metric, tmp_path / "models")["n"].spec
    assert (found.model, found.other) == (f"{tmp_path}/models/network", "word")


@pytest.fixture
def compared(table, jt_run, jt_eval, folder, tmp_path) -> tuple[dict, str]:
    """Two runs beside each other, and what was printed. Of what is measured one metric is the same
    in both, and `light` has another factor; the base model is the same, and measured once."""
    runs = []
    table["sample"]["seeds"] = [0, 1, 2]
    for name, factor, lr in (("one", 1.0, 0.01), ("two", 2.0, 0.3)):
        table["metric"] = {"light": NOTED | {"factor": factor}, "same": NOTED}
        table["stage"]["joint"]["lr"] = lr
        runs.append(jt_run(table, "--plugin-folder", str(folder), name=name))
    assert len(noted(folder)) == 6 + 9  # one: 6, of both metrics at once; two: 6 and its own 3
    status, out, _ = jt_eval(*runs, "--out", tmp_path / "compared")
    assert status == 0 and len(noted(folder)) == 15
    assert all((run / "evaluation" / "evaluation.json").is_file() for run in runs)
    return evaluation(tmp_path / "compared"), out


def test_runs_are_compared_on_the_same_prompts_and_seeds(compared, tmp_path):
    found, out = compared

    assert list(found["summary"]) == ["base", "one", "two"]
    values = {
        name: [v["values"]["same.level"] for v in found["videos"] if v["model"] == name]
        for name in found["summary"]
    }
    (pair,) = [p for p in found["paired"] if (p["one"], p["other"]) == ("two", "one")]
    differences = [b - a for a, b in zip(values["one"], values["two"], strict=True)]
    assert pair["value"] == "same.level"  # the only one that both have
    assert pair["difference"] == pytest.approx(sum(differences) / 3)
    assert (pair["pairs"], pair["wins"]) == (3, sum(d > 0 for d in differences))
    assert "two - one" in out
    assert (tmp_path / "compared" / "report.html").is_file()

    first, second, same = found["metrics"]
    hashes = [found["metrics"][name]["hash"] for name in (first, second)]
    assert [first, second, same] == [*(f"light@{each[:8]}" for each in hashes), "same"]
    assert found["metrics"][second]["identity"]["options"] == {"factor": 2.0}
    columns = {
        model: {name for v in found["videos"] if v["model"] == model for name in v["values"]}
        for model in ("base", "one", "two")
    }
    assert columns == {  # numbers of different identity never share one
        "base": {f"{first}.level", f"{second}.level", "same.level"},
        "one": {f"{first}.level", "same.level"},
        "two": {f"{second}.level", "same.level"},
    }
    rows = rows_of(tmp_path / "compared")
    assert all(not row[f"{second}.level"] for row in rows if row["model"] == "one")


def test_a_suite_may_take_the_place_of_a_runs_own_metrics(table, jt_run, jt_eval, folder, suite):
    run = jt_run(table)
    own = (run / "metrics.json").read_bytes()

    status, _, err = jt_eval(run, "--suite", suite(compared={"kind": "compared"}))

    assert status == 0, err
    found = evaluation(run / "evaluation")
    assert found["videos"][0]["values"] == {"compared.pictures": 2.0}  # of what it trained on
    assert (run / "metrics.json").read_bytes() == own


def test_of_a_grid_what_is_finished_is_measured_and_its_tables_have_it(
    table, jt_run, jt_eval, suite
):
    grid = jt_run(table | {"variant": {"one": {}, "two": {}}, "launch": {"kind": "here"}})
    (grid / "two/result.json").unlink()

    status, out, err = jt_eval(grid, "--suite", suite(compared={"kind": "compared"}))

    assert status == 0, err
    rows = list(csv.DictReader((grid / "grid.csv").read_text().splitlines()))
    assert [row["compared.pictures"] for row in rows] == ["2.0", ""]
    assert str(grid / "grid.html") in out
    (grid / "one/result.json").unlink()
    assert jt_eval(grid)[2] == f"{grid}: no run of this grid is finished\n"


@pytest.mark.parametrize("kind", ["nothing", "unfinished", "without", "twice"])
def test_what_is_no_finished_run_is_told(table, jt_run, jt_eval, tmp_path, kind):
    run = tmp_path / "run"
    run.mkdir()
    expected = (
        f"{run}: not a run directory: it has no run.json; a folder of videos is given as --videos"
        " DIR\n"
    )
    arguments = [run]
    if kind == "unfinished":
        (run / "run.json").write_text("{}")
        expected = f"{run}: the run is not finished; continue it with jt-run --resume\n"
    elif kind == "without":
        del table["sample"], table["metric"]
        run.rmdir()
        jt_run(table)
        expected = f"{run}: has no samples; its recipe has no [sample]\n"
    elif kind == "twice":
        arguments, expected = [run, run], "a run directory is named twice\n"
    assert jt_eval(*arguments) == (2, "", expected)


@pytest.mark.parametrize(
    "arguments", [[], ["run", "--videos", "folder"], ["run", "--prompts", "file"]]
)
def test_either_runs_or_videos_are_named(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.evaluate(arguments)
    assert caught.value.code == 2
    assert "jt-eval: error: " in capsys.readouterr().err


@pytest.mark.parametrize("name", suites.shipped())
def test_a_shipped_suite_is_whole(name, plugins):
    suite = suites.build_suite(suites.read_suite(name), [], [], plugins)
    assert {value.split(".")[0] for value in suite.average_of} <= set(suite.metric)
    assert suite.title
    assert suites.shipped()[name].read_text().startswith("# ")


def test_the_average_score_is_written_with_its_warning(films, suite, jt_eval):
    videos = films("videos", **{"0_a_cat_7": 0.5})
    path = suite(light=NOTED)
    path.write_text(f"{path.read_text()}\n[average_score]\nlight.level = 100\n")

    status, out, _ = jt_eval("--videos", videos, "--suite", path, "--average-score")

    assert status == 0
    found = evaluation(videos / "evaluation")["average_score"]
    assert found["models"]["videos"] == pytest.approx(50, abs=1)
    assert found["of"] == {"light.level": 100.0}
    assert f"warning: the Average-Score is {found['warning']}" in out


def test_a_stopped_evaluation_can_go_on(films, suite, folder, tmp_path):
    videos = films("videos", **{f"{n}_word_{n}": n / 3 for n in range(3)})
    (folder / "noted.py").write_text(
        (folder / "noted.py").read_text().replace("SIGKILL", "SIGTERM")
    )
    command = [sys.executable, "-m", "jtcore.cli", "eval", "--videos", str(videos)]
    command += ["--suite", str(suite(light=NOTED)), "--plugin-folder", str(folder)]
    clean = {**os.environ, "JT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    stopped = subprocess.run(
        command, env=clean | {"KILLED_AT": "1"}, capture_output=True, text=True
    )

    assert stopped.returncode == 3
    assert stopped.stdout.splitlines()[-1] == "stopped; the same command goes on from here"
    assert noted(folder) == ["word 0", "word 1"]  # the video of the signal is finished
    assert not (videos / "evaluation").exists()
