"""DreamVideo's three stages on the real path: a word, an identity, a motion."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from jtcore import cli

BREAK = """
    import os
    from jtcore import hookimpl

    @hookimpl
    def jt_step_finished(run, step, scalars):
        if os.environ.get("BREAK_AFTER") == str(step.number):
            raise KeyboardInterrupt
"""


@pytest.fixture
def staged(data: Path) -> dict:
    """Three stages of two steps on pocket, and every state."""
    subject = {"source": str(data / "subject"), "size": [24, 24], "masks": str(data / "masks")}
    video = {"source": str(data / "motion"), "frames": 3, "size": [24, 24]}
    noise = {"std": 0.1, "shared": ["row", "column"]}
    masked = {"loss": {"kind": "diffusion", "masked": "mean"}}
    of_subject = {"data": ["subject"], "noise": noise, "losses": masked}
    of_motion = {"data": ["motion"], "noise": noise, "losses": {"loss": {"kind": "diffusion"}}}
    branches = {
        "token": of_subject | {"adapters": ["token"]},
        "identity": of_subject | {"adapters": ["token", "identity"], "trains": ["identity"]},
        "motion": of_motion | {"adapters": ["motion"], "drop_text": 0.5, "drop_reference": 0.5},
    }
    optimizer = {"steps": 2, "lr": 0.01}
    return {
        "seed": 5,
        "backbone": {"kind": "pocket"},
        "image_encoder": {"kind": "colours", "levels": 2},
        "engine": {"threads": 1},
        "checkpoint": {"every": 1, "keep": 10},
        "data": {"subject": subject, "motion": video | {"reference": "random_frame"}},
        "adapter": {
            "token": {"kind": "token", "word": "sks creature", "initial": "creature"},
            "identity": {"kind": "bottleneck", "targets": "joint", "width": 4},
            "motion": {
                "kind": "bottleneck",
                "targets": "visual",
                "width": 4,
                "reference_width": 8,
            },
        },
        "stage": {name: {**optimizer, "branch": {name: b}} for name, b in branches.items()},
    }


def weights(run: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(run / "adapters" / f"{name}.safetensors")


def test_later_stages_leave_the_word_as_it_was_learned(staged, jt_run):
    whole = jt_run(staged)
    word = weights(whole, "token")
    assert not torch.equal(word["vectors"], word["initial"])
    states = [load_file(path) for path in sorted((whole / "checkpoints").glob("*.safetensors"))]
    kept = [state["adapter.token/vectors"] for state in states]
    changes = [not torch.equal(one, two) for one, two in pairwise(kept)]
    assert len(kept) == 6 and changes == [True, False, False, False, False]

    alone = {**staged, "stage": {"token": staged["stage"]["token"]}}
    alone["adapter"] = {"token": staged["adapter"]["token"]}
    del alone["image_encoder"]
    found = weights(jt_run(alone, name="alone"), "token")
    assert all(torch.equal(found[name], word[name]) for name in word)
    assert any(w.any() for n, w in weights(whole, "identity").items() if ".up." in n)


@pytest.mark.parametrize("step", [0, 2, 4], ids=["in the word", "in identity", "in motion"])
def test_a_run_that_is_broken_off_in_any_stage_is_resumed_exactly(
    staged, step, jt_run, write_recipe, plugin_folder, monkeypatch, tmp_path
):
    staged["plugins"] = {"folders": [str(plugin_folder(breaking=BREAK))]}
    whole = jt_run(staged)
    broken = tmp_path / "broken"
    monkeypatch.setenv("BREAK_AFTER", str(step))
    assert cli.run([str(write_recipe(staged)), "--out", str(broken), "--quiet"]) != 0
    assert not (broken / "result.json").exists()
    monkeypatch.delenv("BREAK_AFTER")
    assert cli.run(["--resume", str(broken), "--quiet"]) == 0
    for name in staged["adapter"]:
        files = [run / "adapters" / f"{name}.safetensors" for run in (whole, broken)]
        assert files[0].read_bytes() == files[1].read_bytes()
