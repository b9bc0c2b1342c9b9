"""Features of references belong to one metric and to what it is compared with."""

from pathlib import Path

import pytest
import torch
from attrs import evolve, frozen

from jtcore.evaluation.features import of_references

CPU = torch.device("cpu")


@frozen
class Comparing:
    """Compares with files"""

    subject: str
    wide: bool = False


@pytest.fixture
def spec(tmp_path, monkeypatch) -> Comparing:
    monkeypatch.setenv("JT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "subject").mkdir()
    (tmp_path / "subject" / "0.png").write_bytes(b"a picture")
    return Comparing(str(tmp_path / "subject"))


def ask(spec: Comparing, made: list[Comparing]) -> list[torch.Tensor]:
    def make() -> list[torch.Tensor]:
        made.append(spec)
        return [torch.full((number, 2), float(len(made))) for number in range(12)]

    return of_references(spec, CPU, make)


def test_features_are_found_again_in_their_order(spec):
    made: list[Comparing] = []
    first, again = ask(spec, made), ask(evolve(spec), made)

    assert made == [spec]
    assert [feature.shape for feature in again] == [(number, 2) for number in range(12)]
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))


def test_other_options_have_features_of_their_own(spec):
    made: list[Comparing] = []
    ask(spec, made)
    ask(evolve(spec, wide=True), made)
    assert len(made) == 2


@pytest.mark.parametrize("name", ["0.png", "1.png"])
def test_other_references_have_features_of_their_own(spec, name):
    made: list[Comparing] = []
    ask(spec, made)
    Path(spec.subject, name).write_bytes(b"another picture")
    assert ask(spec, made)[1][0, 0] == 2
    Path(spec.subject).rename(f"{spec.subject}-elsewhere")
    ask(evolve(spec, subject=f"{spec.subject}-elsewhere"), made)
    assert len(made) == 2
