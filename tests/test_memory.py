"""Memory that is too small is told, and what is not needed any more is given back."""

from jtcore import cli
from jtcore.trainer import Trainer

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
