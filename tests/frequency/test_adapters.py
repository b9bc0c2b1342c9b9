"""What adapters learned, against dense linear algebra."""

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from torch import Tensor

from jtcore.frequency.adapters import effective_rank, layers, overlaps, singular_values

RANK, WIDE, OUT = 3, 12, 9


class Updates:
    """An adapter, as far as its factors go"""

    def __init__(self, **factors: tuple[Tensor, Tensor]) -> None:
        self.found = factors

    def factors(self) -> dict[str, tuple[Tensor, Tensor]]:
        return self.found


def draw(seed: int, rank: int = RANK) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, WIDE, generator=rng, dtype=torch.float64)
    return down, torch.randn(OUT, rank, generator=rng, dtype=torch.float64)


def test_singular_values_are_those_of_the_whole_update():
    down, up = draw(0)
    dense = torch.linalg.svdvals(up @ down)[:RANK]
    torch.testing.assert_close(singular_values((down, up)), dense)


def test_the_effective_rank_counts_directions_by_their_weight():
    assert effective_rank(torch.tensor([2.0, 2.0, 2.0])) == pytest.approx(3)
    assert effective_rank(torch.tensor([2.0, 0.0, 0.0])) == pytest.approx(1)
    assert 1 < effective_rank(torch.tensor([2.0, 1.0, 0.0])) < 2
    assert effective_rank(torch.zeros(3)) == 0


def test_a_layer_has_the_norm_of_its_update():
    down, up = draw(0)
    (layer,) = layers(Updates(one=(down, up)))
    assert layer.norm == pytest.approx(float((up @ down).norm()))


def test_overlaps_are_mean_squared_cosines_of_principal_angles():
    (down, up), (other_down, other_up) = draw(0), draw(1, 2)
    (found,) = overlaps(Updates(a=(down, up), b=draw(3)), Updates(a=(other_down, other_up)))
    angles = subspace_angles(down.T.numpy(), other_down.T.numpy())
    assert found.read == pytest.approx(float(np.mean(np.cos(angles) ** 2)))
    angles = subspace_angles(up.numpy(), other_up.numpy())
    assert found.write == pytest.approx(float(np.mean(np.cos(angles) ** 2)))


def test_random_spaces_overlap_by_chance_as_said():
    found = [
        overlaps(Updates(a=draw(2 * seed)), Updates(a=draw(2 * seed + 1, 2)))[0]
        for seed in range(300)
    ]
    for key in ("read", "write"):
        mean = np.mean([getattr(each, key) for each in found])
        assert mean == pytest.approx(getattr(found[0], f"{key}_by_chance"), rel=0.1)


def test_an_update_that_is_zero_has_no_space_to_agree_on():
    down, up = draw(0)
    (found,) = overlaps(Updates(a=(down, up * 0)), Updates(a=(down, up)))
    assert np.isnan(found.write)


def test_an_update_may_have_a_rank_above_the_width_of_what_it_reads():
    (down, up), (other_down, other_up) = draw(0, OUT + 1), draw(1, 2)
    (found,) = overlaps(Updates(a=(down[:, :4], up)), Updates(a=(other_down[:, :4], other_up)))
    assert found.read == pytest.approx(1)  # it reads all 4 dimensions that there are
    left = torch.linalg.svd(up @ down[:, :4], full_matrices=False)[0]
    angles = subspace_angles(left.numpy(), other_up.numpy())
    assert found.write == pytest.approx(float(np.mean(np.cos(angles) ** 2)))
