"""`jt-sample`: what was trained is attached again, and generates what it did."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from jtcore import cli
from jtcore.media import read_sample
from jtplugins.pocket.text import build_tokenizer


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:
    """A finished run on pocket's architecture, in which two videos of each model stand."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = folder / "recipe.toml"
    recipe.write_text(f"""
seed = 1
backbone = {{ kind = "pocket", weights = "random" }}
data.subject = {{ source = "{data / "subject"}", size = [24, 24] }}
adapter.joint = {{ kind = "glora", targets = "visual", rank = 2 }}
engine.precision = "bf16"

[sample]
prompts = ["a wug", "a ball moves"]
frames = 2
size = [24, 24]
steps = 2
seeds = [7]
scales = {{ joint = 0.5 }}

[stage.joint]
steps = 3
lr = 0.1
branch.joint = {{ data = ["subject"], adapters = ["joint"], losses.error.kind = "diffusion" }}
""")
    assert cli.run([str(recipe), "--out", str(folder / "run"), "--quiet"]) == 0
    return folder / "run"


@pytest.fixture
def jt_sample(tmp_path, capsys) -> Callable[..., Path]:
    """Sample what stands in a run, in this process, and say where."""

    def sample(*arguments: str | Path) -> Path:
        prompts = ["--prompt", "a wug", "--prompt", "a ball moves"]
        out = tmp_path / "videos"
        given = [*map(str, arguments), *prompts, "--out", str(out), "--quiet"]
        assert cli.sample(given) == 0, capsys.readouterr().err
        return out

    return sample


def videos(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("*.mp4"))]


@pytest.mark.parametrize("source", [".", "adapters/joint.safetensors"])
def test_sampling_a_run_again_gives_the_same_videos(trained, jt_sample, source):
    out = jt_sample(trained / source, "--seed", "7")

    assert len(videos(out / "adapted")) == 2
    assert videos(out / "adapted") == videos(trained / "samples/adapted")


def test_the_backbone_of_a_recipe_is_sampled_alone(trained, jt_sample):
    out = jt_sample(trained.parent / "recipe.toml", "--seed", "7")

    assert sorted(path.name for path in out.iterdir()) == ["base", "samples.json"]
    assert videos(out / "base") == videos(trained / "samples/base")


def test_the_backbone_of_a_shipped_recipe_is_sampled_alone(jt_sample):
    out = jt_sample("jointtuner_pocket", "--frames", "1", "--steps", "1")

    assert len(videos(out / "base")) == 2


def test_what_is_sampled_with_captions_is_data_of_a_class(trained, jt_sample, tmp_path):
    recipe = trained.parent / "recipe.toml"
    out = jt_sample(recipe, "--frames", "1", "--count", "3", "--captions")

    told = [path.read_text().strip() for path in sorted((out / "base").glob("*.txt"))]
    assert told == ["a wug"] * 3 + ["a ball moves"] * 3
    learn = [f"data.subject.source={out / 'base'}", "stage.joint.steps=1", "sample.steps=1"]
    settings = [part for each in learn for part in ("--set", each)]
    assert cli.run([str(recipe), "--out", str(tmp_path / "run"), "--quiet", *settings]) == 0


def test_a_recipe_has_no_adapters_to_scale(trained, tmp_path, capsys):
    given = [str(trained.parent / "recipe.toml"), "--prompt", "a wug", "--out", str(tmp_path / "v")]
    assert cli.sample([*given, "--scale", "joint=1"]) == 2
    assert capsys.readouterr().err == "--scale joint=1: no adapter 'joint'; there are []\n"
    assert cli.sample([*given, "--count", "0"]) == 2
    assert "sample.seeds" in capsys.readouterr().err


def test_at_scale_zero_an_adapter_changes_nothing(trained, jt_sample):
    out = jt_sample(trained, "--seed", "7", "--scale", "joint=0")

    assert videos(out / "adapted") == videos(trained / "samples/base")
    assert videos(out / "adapted") != videos(trained / "samples/adapted")


def test_an_adapter_file_needs_nothing_of_its_run(trained, jt_sample, tmp_path):
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((trained / "adapters/joint.safetensors").read_bytes())

    assert videos(jt_sample(alone, "--seed", "7") / "adapted") == videos(
        trained / "samples/adapted"
    )


def test_options_change_what_is_sampled(trained, jt_sample):
    out = jt_sample(trained, "--frames", "3", "--fps", "5", "--steps", "1")

    video, fps = read_sample(out / "adapted/00-seed0.mp4")
    assert (video.shape[1], fps) == (3, pytest.approx(5))
    assert json.loads((out / "samples.json").read_text())[1] == {
        "file": "adapted/01-seed0.mp4",
        "model": "adapted",
        "prompt": "a ball moves",
        "seed": 0,
        "scales": {"joint": 0.5},
    }


def test_a_precision_that_the_backbone_cannot_compute_in_is_refused(trained, tmp_path, capsys):
    backbone = ["kind='wan'", "weights='random'", "layers=1", "seed=0"]
    changes = [f"backbone.{each}" for each in backbone] + ["engine.precision='fp16'"]
    given = [part for change in changes for part in ("--set", change)]
    asked = ["--prompt", "a wug", "--size", "32", "32", "--frames", "5"]
    assert cli.sample([str(trained), *asked, *given, "--out", str(tmp_path / "out")]) == 2
    assert "engine.precision: Wan was trained in bf16" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def motion(data) -> Path:
    return min((data / "motion").glob("*.mp4"))


@pytest.fixture(scope="module")
def scheduled(trained, motion, tmp_path_factory) -> Path:
    """The run's adapter as one whose recipe sampled in every unusual way, at its full scale."""
    source = trained / "adapters/joint.safetensors"
    ((name, facts),) = metadata(source).items()
    facts = json.loads(facts)
    facts["sample"] |= {
        "scales": {"joint": 1.0},
        "scheduler": "dpm",
        "dynamic_guidance": True,
        "batch": 2,
        "noise_prior": {"video": str(motion), "share": 0.25, "steps": 2, "prompt": "a wug"},
        "schedule": {"joint": {"unit": "step", "at": [1.0], "scales": [0.0, 1.0], "on": "both"}},
    }
    other = tmp_path_factory.mktemp("scheduled") / "joint.safetensors"
    save_file(load_file(source), other, {name: json.dumps(facts)})
    return other


def told(out: Path) -> dict:
    """What is said of the first sample beyond file, model, prompt, seed and scales."""
    entry = json.loads((out / "samples.json").read_text())[0]
    return {key: entry[key] for key in list(entry)[5:]}


PLAIN = ("--no-dynamic-guidance", "--batch", "1", "--noise-share", "0", "--scheduler", "ddim")


def test_an_adapter_is_sampled_as_its_recipe_did(scheduled, jt_sample, motion):
    assert told(jt_sample(scheduled)) == {
        "scheduler": "dpm",
        "dynamic_guidance": True,
        "noise_prior": {"video": str(motion), "share": 0.25, "steps": 2, "prompt": "a wug"},
        "batch": 2,
        "schedule": {"joint": {"unit": "step", "at": [1.0], "scales": [0.0, 1.0], "on": "both"}},
    }


def test_what_a_recipe_did_can_be_taken_away(trained, scheduled, jt_sample):
    scale = ("--seed", "7", "--scale", "joint=0.5")
    out = jt_sample(scheduled, *PLAIN, *scale, "--schedule", "joint=false")

    assert told(out) == {"scheduler": "ddim"}
    assert videos(out / "adapted") == videos(trained / "samples/adapted")


def test_options_sample_in_unusual_ways(trained, jt_sample, motion):
    schedule = "joint={unit='fraction', at=[0.5], scales=[0, 2], on='prompted'}"
    prior = ("--noise-prior", str(motion), "--noise-share", "0.75")
    asked = ("--scheduler", "dpm", "--dynamic-guidance", "--batch", "2", *prior)

    out = jt_sample(trained, "--seed", "7", *asked, "--schedule", schedule)
    assert told(out) == {
        "scheduler": "dpm",
        "dynamic_guidance": True,
        "noise_prior": {"video": str(motion), "share": 0.75, "steps": 50, "prompt": ""},
        "batch": 2,
        "schedule": {
            "joint": {"unit": "fraction", "at": [0.5], "scales": [0.0, 2.0], "on": "prompted"}
        },
    }


@pytest.mark.parametrize(
    "option",
    [
        ("--scheduler", "dpm"),
        ("--dynamic-guidance",),
        ("--noise-prior", "MOTION"),
        ("--schedule", "joint={unit='step', at=[1], scales=[0, 1]}"),
        ("--schedule", "joint={unit='step', at=[1], scales=[1, 0], on='negative'}"),
    ],
    ids=" ".join,
)
def test_every_option_changes_the_videos(trained, jt_sample, motion, option):
    option = [str(motion) if word == "MOTION" else word for word in option]
    out = jt_sample(trained, "--seed", "7", *option)

    plain, found = videos(trained / "samples/adapted"), videos(out / "adapted")
    assert [a == b for a, b in zip(plain, found, strict=True)] == [False, False]


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        (
            ("--scheduler", "dmp"),
            ["--scheduler: unknown scheduler 'dmp'; did you mean 'dpm'?"],
        ),
        (
            ("--noise-prior", "nowhere.mp4"),
            ["--noise-prior: nowhere.mp4: cannot be read: No such file or directory"],
        ),
        (
            ("--noise-share", "0.5"),
            ["--noise-share: of no video; name one with --noise-prior FILE"],
        ),
        (
            ("--schedule", "joined=false"),
            ["--schedule joined=false: no adapter 'joined'; there are ['joint']"],
        ),
        (
            ("--schedule", "joint=1"),
            ["sample.schedule.joint: expected a table, got 1 (int)"],
        ),
        (
            ("--schedule", "joint={unit='step', at=[1], scales=[1]}"),
            ["sample.schedule.joint.scales: expected 2, one more than boundaries, got 1"],
        ),
    ],
)
def test_an_option_that_means_nothing_is_told(trained, capsys, options, messages):
    assert refused(capsys, trained, *options).splitlines() == messages


def refused(capsys, *arguments: str | Path) -> str:
    """What the command says to arguments that it refuses."""
    capsys.readouterr()
    given = [*map(str, arguments), "--prompt", "a wug", "--out", "out"]
    assert cli.sample(given) == 2
    return capsys.readouterr().err


def test_a_video_is_not_written_over(trained, jt_sample, capsys, tmp_path, monkeypatch):
    jt_sample(trained, "--seed", "7")
    monkeypatch.chdir(tmp_path)
    Path("videos").rename("out")

    said = refused(capsys, trained, "--seed", "7")
    assert said == "out/adapted/00-seed7.mp4 exists; name another folder with --out\n"


def test_a_size_that_does_not_fit_is_told(trained, capsys):
    assert refused(capsys, trained, "--size", "23", "24") == (
        "--frames, --size: pocket knows one size of frame, found 23x24 px; the nearest is 24x24\n"
    )


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ("joined=1", "--scale joined=1: no adapter 'joined'; there are ['joint']"),
        ("joint=big", "--scale joint=big: expected ADAPTER=NUMBER"),
        ("joint", "--scale joint: expected ADAPTER=NUMBER"),
        ("joint=nan", "--scale joint=nan: expected ADAPTER=NUMBER"),
    ],
)
def test_a_scale_that_means_nothing_is_told(trained, capsys, scale, message):
    assert refused(capsys, trained, "--scale", scale) == f"{message}\n"


def test_a_torn_adapter_file_is_told(trained, capsys, tmp_path):
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes((trained / "adapters/joint.safetensors").read_bytes()[:-1])

    said = refused(capsys, torn)
    assert said.startswith(f"{torn}: not a readable safetensors file: ")
    assert said.count("\n") == 1


def test_a_file_of_another_kind_is_told(capsys, tmp_path):
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(1)}, other, {"format": "pt"})

    assert refused(capsys, other) == (
        f"{other}: not an adapter file of jtcore: it has no 'jtcore-adapter-1' in it\n"
    )


def test_an_adapter_file_that_is_nowhere_is_told(capsys):
    said = refused(capsys, "nowhere.safetensors")
    assert said.startswith("nowhere.safetensors: not a readable safetensors file: ")


def test_a_run_without_adapters_is_told(capsys, tmp_path):
    said = f"{tmp_path}: no adapters in it; is it a run that has been trained?\n"
    assert refused(capsys, tmp_path) == said


def test_tensors_that_do_not_fit_are_told(trained, capsys, tmp_path):
    source, other = trained / "adapters/joint.safetensors", tmp_path / "other.safetensors"
    tensors = load_file(source)
    first = min(tensors)
    del tensors[first]
    save_file(tensors, other, metadata(source))

    assert (
        refused(capsys, other)
        == f"{other}: 1 tensors do not fit the adapter, the first {first!r}\n"
    )


def metadata(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as opened:
        return opened.metadata()


@pytest.mark.parametrize("key", ["name", "adapter", "backbone", "sample", "engine", "identity"])
def test_metadata_that_lack_a_key_are_told(trained, capsys, tmp_path, key):
    source, other = trained / "adapters/joint.safetensors", tmp_path / "other.safetensors"
    ((name, facts),) = metadata(source).items()
    facts = json.loads(facts)
    del facts[key]
    save_file(load_file(source), other, {name: json.dumps(facts)})

    assert refused(capsys, other) == f"{other}: its metadata are damaged: KeyError({key!r})\n"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "{",
            "JSONDecodeError('Expecting property name enclosed in double quotes: line 1 column"
            " 2 (char 1)')",
        ),
        ("[]", "TypeError('list indices must be integers or slices, not str')"),
    ],
)
def test_metadata_of_another_form_are_told(trained, capsys, tmp_path, text, error):
    source, other = trained / "adapters/joint.safetensors", tmp_path / "other.safetensors"
    save_file(load_file(source), other, dict.fromkeys(metadata(source), text))

    assert refused(capsys, other) == f"{other}: its metadata are damaged: {error}\n"


def test_a_run_whose_record_is_damaged_is_told(trained, capsys, tmp_path):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    (run / "run.json").write_text("")

    said = f"{run}/run.json: damaged: Expecting value: line 1 column 1 (char 0)\n"
    assert refused(capsys, run) == said
    assert cli.run(["--resume", str(run)]) == 2
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("setting", ["sample.steps=3", "adapter=false", "backbone=false"])
def test_only_backbone_engine_and_adapters_can_be_changed(trained, capsys, setting):
    said = f"--set {setting}: only backbone, engine and adapter can be changed here\n"
    assert refused(capsys, trained, "--set", setting) == said


def test_all_that_pocket_cannot_do_is_told_at_once(trained, capsys):
    asked = ["--prompt", "a guitar moves", "--negative", "a drum", "--steps", "1001"]

    unknown = "has words that pocket does not know"
    assert refused(capsys, trained, "--size", "24", "23", *asked).splitlines() == [
        "--frames, --size: pocket knows one size of frame, found 24x23 px; the nearest is 24x24",
        f"--prompt: 'a guitar moves' {unknown}: 'guitar'; see `jt-pocket list`",
        f"--negative: 'a drum' {unknown}: 'drum'; see `jt-pocket list`",
        "--steps: 1001 steps of denoising; the schedule has 1000",
    ]


def test_weights_that_are_nowhere_are_told_at_their_place(trained, capsys, tmp_path):
    build_tokenizer().save_pretrained(tmp_path / "tokenizer")
    setting = f"backbone.weights={tmp_path}"

    assert refused(capsys, trained, "--set", setting) == (
        f"backbone.weights: no folder 'transformer' in {str(tmp_path)!r}; expected what"
        ' `jt-pocket pretrain` wrote, "shipped" or "random"\n'
    )


def test_an_adapter_of_another_backbone_is_sampled_and_told(trained, capsys, tmp_path):
    asked = ["--prompt", "a wug", "--out", str(tmp_path / "v"), "--steps", "1", "--frames", "1"]
    capsys.readouterr()

    assert cli.sample([str(trained), *asked]) == 0
    video = f"{tmp_path / 'v/adapted/00-seed0.mp4'}: a wug"
    assert capsys.readouterr() == (f"{video}\n", "")

    asked[3] = str(tmp_path / "w")
    assert cli.sample([str(trained), *asked, "--set", "backbone.seed=1"]) == 0
    file = trained / "adapters/joint.safetensors"
    assert capsys.readouterr().out.splitlines() == [
        f"{file}: was trained on another denoiser, text, codec of the backbone",
        f"{tmp_path / 'w/adapted/00-seed0.mp4'}: a wug",
    ]


def test_two_files_of_one_name_are_told(trained, capsys):
    file = trained / "adapters/joint.safetensors"
    assert refused(capsys, file, file) == (
        f"{file} and {file} both hold an adapter named 'joint'; give one another name, as in"
        f" other={file}\n"
    )


def test_an_adapter_whose_plugin_is_missing_names_file_and_kind(
    table, jt_run, plugin_folder, capsys
):
    folder = plugin_folder(
        own="""
        from jtcore import hookimpl
        from jtplugins.adapters.lora import LoRA

        @hookimpl
        def jt_adapters():
            return {"own": LoRA}
        """
    )
    table["adapter"]["joint"]["kind"] = "own"
    file = jt_run(table, "--plugin-folder", str(folder)) / "adapters/joint.safetensors"
    (folder / "own.py").unlink()

    said = refused(capsys, file).splitlines()
    assert said[0].startswith(f"{file}: adapters.kind: unknown adapter 'own'; ")


def test_an_adapter_of_a_local_plugin_is_sampled_from_its_run(
    table, jt_run, plugin_folder, tmp_path
):
    run = jt_run(table)

    assert cli.sample([str(run), "--prompt", "a wug", "--out", str(tmp_path / "v")]) == 0

    assert videos(tmp_path / "v/adapted") == videos(run / "samples/adapted")
