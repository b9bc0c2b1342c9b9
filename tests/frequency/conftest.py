"""A short run on pocket, and what is looked into of it."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def pocket(table: dict) -> dict:
    """The recipe of the tests on the model that is shipped."""
    changed = {key: value for key, value in table.items() if key != "plugins"}
    changed["sample"] |= {"prompts": ["a red ball stays"], "preview": {"every": 2, "prompts": 1}}
    return {**changed, "backbone": {"kind": "pocket"}}


@pytest.fixture
def trained(pocket: dict, jt_run: Callable[..., Path]) -> Path:
    return jt_run(pocket)


@pytest.fixture
def jt_freq(tmp_path: Path, capsys) -> Callable[..., Path]:
    """Run an analysis to its end, and say where its figures are."""
    from jtcore.frequency.cli import main

    def run(analysis: str, source: object, *options: str) -> Path:
        out = tmp_path / analysis
        status = main([analysis, str(source), *options, "--out", str(out)])
        assert status == 0, capsys.readouterr().err
        return out

    return run
