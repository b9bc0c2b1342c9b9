"""Memory that is too small is told, and what is not needed any more is given back."""

import pytest
import torch
from safetensors.torch import load_file

from jtcore import cli, engine
from jtcore.trainer import Trainer
from jtplugins.backbones.pocket import Pocket

TOO_LARGE = """
    import torch
    from attrs import frozen
    from jtcore import hookimpl

    @frozen
    class TooLarge:
        def __call__(self, prediction, noised, part, rng):
            raise torch.OutOfMemoryError("Tried to allocate 80.00 GiB.\\nMore of it.")

    @hookimpl
    def jt_losses():
        return {"too_large": TooLarge}
"""


def test_too_little_memory_is_told_with_what_to_change(
    table, write_recipe, plugin_folder, tmp_path, capsys
):
    table["stage"]["joint"]["branch"]["joint"]["losses"] = {"error": {"kind": "too_large"}}
    folder = plugin_folder(large=TOO_LARGE)
    given = ["--out", str(tmp_path / "run"), "--plugin-folder", str(folder), "--quiet"]

    assert cli.run([str(write_recipe(table)), *given]) == 2
    told = capsys.readouterr().err
    assert told.startswith("not enough memory for training; set engine.gradient_checkpointing, ")
    assert told.endswith(" It said: Tried to allocate 80.00 GiB.\n")


def test_no_gradient_is_kept_when_a_stage_has_ended(table, jt_run, monkeypatch):
    ended = []
    train_stage = Trainer.train_stage

    def watched(self, *arguments) -> None:
        train_stage(self, *arguments)
        ended.append([w.grad for a in self.model.adapters.values() for w in a.parameters()])

    monkeypatch.setattr(Trainer, "train_stage", watched)
    jt_run(table)
    assert ended and all(gradient is None for stage in ended for gradient in stage)


@pytest.fixture
def pocket_table(table) -> dict:
    """The recipe on pocket, which has a text encoder."""
    table["backbone"] = {"kind": "pocket", "weights": "random"}
    for data in table["data"].values():
        data["prompt"] = "a red ball"
    table["data"]["motion"]["frames"] = 2
    table["stage"]["joint"]["steps"] = 1
    del table["sample"], table["metric"]
    return table


def test_captions_are_embedded_on_the_host_and_the_rest_on_the_device_with_the_same_numbers(
    pocket_table, jt_run, tmp_path, monkeypatch
):
    device, asked, results = torch.device("cpu", 0), [], []  # which is another name of the CPU
    monkeypatch.setattr(engine, "own_device", lambda settings, processes: device)
    for part in ("load_text_encoder", "load_codec", "load"):
        monkeypatch.setattr(Pocket, part, _told(getattr(Pocket, part), part, asked))
    for place in ("device", "host"):
        monkeypatch.setenv("JT_CACHE", str(tmp_path / f"cache-{place}"))
        run = jt_run(
            pocket_table | {"engine": {"memory": {"text_encoder": place}}}, name=f"on-the-{place}"
        )
        results.append((run / "adapters/joint.safetensors").read_bytes())
        there = {part: where for part, where in asked if where.type != "meta"}
        host = torch.device("cpu")
        text = host if place == "host" else device
        assert there == {"load_text_encoder": text, "load_codec": device, "load": device}
        asked.clear()
    assert results[0] == results[1]


def _told(load, part: str, asked: list):
    def loads(self, where: torch.device, *more):
        asked.append((part, where))
        return load(self, where, *more)

    return loads


REFUSED = (
    "engine.memory.text_encoder: with adapter.joint the text encoder is on the device beside the"
    ' denoiser in each pass, and not on the "host"; take "device", or leave the adapter out\n'
)


def test_a_text_encoder_that_is_asked_in_each_pass_is_not_on_the_host(
    pocket_table, write_recipe, jt_run, tmp_path, capsys
):
    pocket_table["adapter"] = {"joint": {"kind": "token", "word": "sks", "initial": "ball"}}
    pocket_table["backbone"] = {"kind": "pocket"}
    for data in pocket_table["data"].values():
        data["prompt"] = "a red sks"
    host = ["--set", "engine.memory.text_encoder=host"]
    assert cli.run([str(write_recipe(pocket_table)), "--check", *host]) == 2
    assert capsys.readouterr().err == REFUSED

    adapter = str(jt_run(pocket_table) / "adapters/joint.safetensors")
    asked = [adapter, "--prompt", "a red sks moves left", "--out", str(tmp_path / "out")]
    asked += ["--frames", "2", "--size", "24", "24", *host]
    assert cli.sample(asked) == 2
    assert capsys.readouterr().err == REFUSED

    pocket_table["adapter"]["joint"]["insert_at"] = "encoder_output"  # after it has been asked
    table = pocket_table | {"engine": {"memory": {"text_encoder": "host"}}}
    assert load_file(jt_run(table, name="run2") / "adapters/joint.safetensors")["vectors"].any()
