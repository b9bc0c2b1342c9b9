"""Released files that do not fit are told, and nothing of them is run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints.released import COGVIDEOX, SPATIAL, TEMPORAL, wrap
from checkpoints.stock import Stock, weights
from checkpoints.unet import build_unet

from jtcore import cli


@pytest.fixture
def refused(tmp_path, capsys, zeroscope) -> Callable[..., str]:
    """What is said of a released file that cannot be read; nothing is written."""

    def refuse(held: Any, *options: str, stock: Stock = zeroscope) -> str:
        released, out = tmp_path / "released.pt", tmp_path / "out.safetensors"
        torch.save(held, released)
        given = [str(released), *options, "--backbone", stock.kind, *weights(stock)]
        capsys.readouterr()
        assert cli.convert([*given, "--out", str(out)]) == 2
        assert not out.exists()
        said = capsys.readouterr().err
        assert said.startswith(f"{released}: ") and said.count("\n") == 1
        return said.removeprefix(f"{released}: ").rstrip("\n")

    return refuse


JOINTTUNER = ("--from", "jointtuner")
MOTIONDIRECTOR = ("--from", "motiondirector")


def test_a_list_of_another_length_is_told_with_both_numbers(refused, cogvideox):
    saved = wrap(cogvideox.load().transformer, COGVIDEOX)
    assert refused(saved[:-3], *JOINTTUNER, stock=cogvideox) == (
        "has 33 tensors, but CogVideoXTransformer3DModel takes 36, 3 for each of 12 linear layers;"
        " is it of another backbone or size?"
    )
    assert refused(saved, *MOTIONDIRECTOR) == (
        "has 36 tensors; of UNet3DConditionModel a temporal file has 100, and a spatial one 48 for"
        " each video; is it of another backbone or size?"
    )


def test_shapes_that_do_not_fit_are_told(refused):
    saved = wrap(build_unet(), SPATIAL + TEMPORAL)
    saved[3], saved[6] = saved[3][:-1], saved[6][:, :1]
    assert refused(saved, *JOINTTUNER) == (
        "tensor 3 has the shape (7, 2), but 'up' of"
        " down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k at rank 2 has (8, 2);"
        " is it of another backbone or size? (and 1 more)"
    )


def test_a_file_without_gates_is_no_jointtuner(refused):
    saved = wrap(build_unet(), SPATIAL + TEMPORAL, gated=False)
    assert refused(saved, *JOINTTUNER).startswith(
        "has 148 tensors, but UNet3DConditionModel takes 222, 3 for each of 74 linear layers;"
    )


@pytest.mark.parametrize("options", [(), ("--set", "format.video=2")])
def test_several_videos_need_one_to_be_named(refused, options):
    each = [wrap(build_unet(), SPATIAL, gated=False) for _ in range(2)]
    assert refused([*each[0], *each[1]], *MOTIONDIRECTOR, *options) == (
        "has spatial LoRAs of 2 videos; take one with --set format.video=N, N from 0 to 1"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            JOINTTUNER,
            "JointTuner was released for CogVideoX, ZeroScope and ModelScope, and"
            " WanTransformer3DModel has none of their blocks",
        ),
        (
            MOTIONDIRECTOR,
            "MotionDirector was released for ZeroScope and ModelScope, and WanTransformer3DModel"
            " has none of their blocks",
        ),
    ],
)
def test_a_backbone_that_it_was_not_released_for_is_told(refused, wan, options, said):
    assert refused([torch.zeros(2, 2)], *options, stock=wan) == said


class Sly:
    """Runs code where it is unpickled"""

    def __reduce__(self):
        return Path.touch, (Path("touched"),)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"a": torch.zeros(1, 1)}, "expected a list of tensors, found dict"),
        ([], "expected a list of tensors, found list"),
        ([torch.zeros(1, 1), 3], "item 1 of its list is of type int, not a matrix"),
        (
            [torch.zeros(3)],
            "item 0 of its list is a tensor of torch.float32 and shape (3,), not a matrix",
        ),
        (
            [torch.zeros(1, 1, dtype=torch.int64)],
            "item 0 of its list is a tensor of torch.int64 and shape (1, 1), not a matrix",
        ),
    ],
    ids=["dict", "empty", "number", "vector", "integers"],
)
def test_what_is_no_list_of_matrices_is_told(refused, held, said):
    assert refused(held, *JOINTTUNER) == said


def test_code_in_a_file_is_not_run(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = refused([Sly()], *JOINTTUNER)
    assert said.startswith("cannot be read as a list of tensors alone: Weights only load failed")
    assert not Path("touched").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04torn", b"no pickle at all"])
def test_a_damaged_file_is_told(zeroscope, capsys, tmp_path, content):
    released = tmp_path / "released.pt"
    released.write_bytes(content)
    given = [str(released), *JOINTTUNER, "--backbone", "zeroscope", *weights(zeroscope)]
    assert cli.convert([*given, "--out", str(tmp_path / "out.safetensors")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{released}: cannot be read as a list of tensors alone: ")
    assert said.count("\n") == 1
