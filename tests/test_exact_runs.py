"""Whole runs under options of memory: the same bytes, or one clear problem before anything runs."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w

from jtcore import JtError, cli
from jtcore.check import check
from jtcore.recipe import build_recipe

SAVING = {
    "gradient_checkpointing": True,
    "memory": {"checkpoints": "host", "stream_blocks": 1, "keep_blocks": 1},
}


@pytest.fixture
def pocket(table: dict) -> dict:
    """The recipe on pocket's five blocks."""
    table["backbone"] = {"kind": "pocket", "weights": "random"}
    for data in table["data"].values():
        data["prompt"] = "a red ball"
    table["sample"]["prompts"] = ["a red ball moves left"]
    return table


def results(run: Path) -> dict[str, bytes]:
    patterns = ("adapters/*.safetensors", "samples/*/*.mp4", "metrics.json")
    files = [path for pattern in patterns for path in run.glob(pattern)]
    assert len(files) >= 4
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def test_a_run_that_saves_memory_ends_in_the_same_bytes_also_if_resumed_without(table, jt_run):
    table["stage"]["joint"]["accumulate"] = 2
    table["validation"] = {"data": ["held_out"], "draws": 1}
    table["checkpoint"] = {"every": 1}
    plain = results(jt_run(table, name="plain"))
    run = jt_run(table | {"engine": SAVING}, name="saving")
    assert results(run) == plain

    last = max(run.glob("checkpoints/step-*"))
    for path in (last, run / "result.json", *(run / name for name in plain)):
        path.unlink()
    resolved = run / "recipe.resolved.toml"
    changed = tomllib.loads(resolved.read_text())
    changed["engine"] |= {"gradient_checkpointing": False, "memory": {}}
    resolved.write_text(tomli_w.dumps(changed))
    assert cli.run(["--resume", str(run), "--quiet"]) == 0
    assert results(run) == plain


@pytest.fixture
def problems(pocket: dict, plugins) -> Callable[..., list[str]]:
    """What the check of the recipe tells of an [engine.memory]."""

    def told(checkpointing: bool = True, **memory) -> list[str]:
        engine = {"gradient_checkpointing": checkpointing, "memory": memory}
        try:
            check(build_recipe(pocket | {"engine": engine}, plugins))
        except JtError as error:
            return list(error.problems)
        return []

    return told


def test_options_that_are_of_checkpointing_need_it(problems):
    found = problems(False, checkpoints="host", keep_blocks=1, stream_blocks=1)
    needs = "needs engine.gradient_checkpointing = true"
    options = ("checkpoints", "keep_blocks", "stream_blocks")
    assert found == [f"engine.memory.{option}: {needs}" for option in options]


def test_more_blocks_than_there_are_is_told(problems):
    assert problems(keep_blocks=2, stream_blocks=3) == []
    assert problems(stream_blocks=6) == [
        "engine.memory.stream_blocks: the backbone has 5 blocks, found 6"
    ]
    assert problems(keep_blocks=6) == [
        "engine.memory.keep_blocks: the backbone has 5 blocks, found 6"
    ]
    assert problems(keep_blocks=2, stream_blocks=4) == [
        "engine.memory.stream_blocks: the backbone has 3 blocks but for those of keep_blocks = 2,"
        " found 4"
    ]


def test_trained_weights_in_a_streamed_block_are_told_with_both(problems, pocket):
    pocket["adapter"]["joint"] = {"kind": "weights", "targets": "transformer_blocks.2.attn1.*"}
    assert problems(stream_blocks=2) == []  # the blocks 1 and 3
    assert problems(stream_blocks=3, keep_blocks=2) == [
        "engine.memory.stream_blocks: the block 'transformer_blocks.2' is streamed, and"
        " adapter.joint trains the weights of 'transformer_blocks.2.attn1.norm_q' in it; stream"
        " fewer blocks, or none, or train others"
    ]
