"""What `jt-sample` refuses, and what it says then."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from checkpoints.adapters import metadata
from safetensors.torch import load_file, save_file

from jtcore import cli
from jtplugins.pocket.text import build_tokenizer


def refused(capsys, *arguments: str | Path) -> str:
    """What the command says to arguments that it refuses."""
    capsys.readouterr()
    given = [*map(str, arguments), "--prompt", "a wug", "--out", "out"]
    assert cli.sample(given) == 2
    return capsys.readouterr().err


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
