"""A run says how much memory it has held at the most."""

import json

import numpy as np
import pytest

from jtcore.peaks import forget_peaks, peaks

MIB = 2**20


@pytest.fixture(autouse=True)
def told():
    if not forget_peaks():
        pytest.skip("this system does not tell")


def held(count: int) -> None:
    np.ones(count * MIB, np.uint8)


def test_the_most_counts_from_the_time_that_is_asked_for():
    before = peaks(True)["host"]
    held(300)
    assert 280 * MIB < peaks(True)["host"] - before < 400 * MIB

    forget_peaks()
    assert peaks(True)["host"] - before < 100 * MIB


def test_where_it_cannot_be_told_nothing_is():
    assert "host" not in peaks(False)


def test_a_run_has_held_as_much_as_it_says(table, jt_run):
    held(900)  # before the run, and no matter of it
    found = json.loads((jt_run(table) / "result.json").read_text())

    assert set(found) == {"seconds", "peak_bytes"}
    assert 100 * MIB < found["peak_bytes"]["host"] < peaks(True)["host"] + MIB
