"""RAFT, re-derived from its paper with the tensors of its published file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints.motion import build_raft, drawn, raft_shapes
from checkpoints.quality import drawn_picture
from safetensors.torch import save_file

from jtcore.errors import JtError
from jtplugins.metrics._raft import RADIUS, RAFT, correlate, load_raft, look_up, upsample
from jtplugins.metrics.dynamic_degree import DynamicDegree

CPU = torch.device("cpu")
GET = (
    "get raft-things.pth by `hf download sczhou/ProPainter raft-things.pth --local-dir FOLDER`"
    " and set model to the folder or the file"
)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return build_raft(tmp_path_factory.mktemp("raft"))


@pytest.fixture(scope="module")
def network() -> RAFT:
    network = RAFT()
    network.load_state_dict(drawn(dict(raft_shapes())))
    return network.requires_grad_(False).eval()


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_names_and_shapes_are_those_of_the_published_file():
    with torch.device("meta"):
        network = RAFT()
    found = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert found == dict(raft_shapes())
    assert sum(each.numel() for each in network.parameters()) == 5_257_536  # as the paper has it


def test_the_flow_is_what_the_authors_formulation_says(network):
    """Computed once with these weights, in double precision, by a transcription of it."""
    double = RAFT().double().eval()
    double.load_state_dict(network.state_dict())
    video = np.random.RandomState(1).randint(0, 256, (2, 3, 128, 136)) / 255
    with torch.no_grad():
        flow = double(torch.from_numpy(video))
    places = [(0, 0, 0, 0), (0, 1, 64, 70), (0, 0, 100, 33), (0, 1, 127, 135)]
    expected = [-5.886722604178692, -18.088718224441262, 7.501045186211432, 9.123544009879565]
    assert [flow[place].item() for place in places] == pytest.approx(expected, abs=1e-9)
    assert flow.std().item() == pytest.approx(22.21798615295475, abs=1e-9)


def test_correlations_are_scaled_products_of_all_pairs_and_means_of_squares():
    first, second = numbers(2, 6, 8, 9), numbers(2, 6, 8, 9, seed=1)
    levels = correlate(first, second)
    assert [tuple(each.shape[1:]) for each in levels] == [
        (1, 8, 9),
        (1, 4, 4),
        (1, 2, 2),
        (1, 1, 1),
    ]
    for pair, v, u, y, x in ((0, 0, 0, 0, 0), (1, 7, 8, 3, 2), (0, 4, 5, 6, 7)):
        row = (pair * 8 + v) * 9 + u
        product = float(first[pair, :, v, u] @ second[pair, :, y, x]) / 6**0.5
        assert levels[0][row, 0, y, x].item() == pytest.approx(product, abs=1e-6)
        square = levels[0][row, 0, :4, 4:8].mean().item()
        assert levels[2][row, 0, 0, 1].item() == pytest.approx(square, abs=1e-6)


def test_looking_up_reads_between_cells_with_the_x_offset_slower_and_nothing_outside():
    levels = [numbers(2 * 3 * 4, 1, 11, 13, seed=level) for level in range(2)]
    places = 2 + 6 * torch.rand((2, 2, 3, 4), generator=torch.Generator().manual_seed(3))
    found = look_up(levels, places)
    assert found.shape == (2, 2 * 81, 3, 4)
    for pair, row, column in ((0, 0, 0), (1, 2, 3), (1, 0, 2)):
        x, y = places[pair, :, row, column].tolist()
        volume = [each[(pair * 3 + row) * 4 + column, 0] for each in levels]
        reach = range(-RADIUS, RADIUS + 1)
        expected = [
            _between(volume[level], x / 2**level + across, y / 2**level + down)
            for level in range(2)
            for across in reach
            for down in reach
        ]
        assert found[pair, :, row, column].tolist() == pytest.approx(expected, abs=1e-4)


def _between(cells: torch.Tensor, x: float, y: float) -> float:  # (h, w)
    """Bilinear, by its definition."""
    total = 0.0
    for row in range(cells.shape[0]):
        for column in range(cells.shape[1]):
            share = max(0.0, 1 - abs(x - column)) * max(0.0, 1 - abs(y - row))
            total += share * cells[row, column].item()
    return total


def test_a_pixels_flow_is_a_convex_combination_of_the_nine_cells_around():
    flow, weights = numbers(2, 2, 3, 4), numbers(2, 9 * 64, 3, 4, seed=1)
    fine = upsample(flow, weights)
    assert fine.shape == (2, 2, 24, 32)
    padded = torch.nn.functional.pad(flow, (1, 1, 1, 1))
    for pair, y, x in ((0, 0, 0), (1, 23, 31), (0, 13, 18), (1, 8, 7)):
        row, column = y // 8, x // 8
        logits = [weights[pair, k * 64 + (y % 8) * 8 + x % 8, row, column] for k in range(9)]
        shares = torch.stack(logits).softmax(0)
        near = [padded[pair, :, row + k // 3, column + k % 3] for k in range(9)]
        expected = sum(share * 8 * each for share, each in zip(shares, near, strict=True))
        assert fine[pair, :, y, x].tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_an_equal_flow_stays_equal_inside_whatever_the_weights():
    flow = torch.tensor([1.5, -2.0]).view(1, 2, 1, 1).expand(1, 2, 5, 5)
    fine = upsample(flow, numbers(1, 9 * 64, 5, 5))
    assert fine[0, 0, 8:-8, 8:-8].numpy() == pytest.approx(12.0, abs=1e-5)
    assert fine[0, 1, 8:-8, 8:-8].numpy() == pytest.approx(-16.0, abs=1e-5)


def test_flows_do_not_depend_on_how_many_pairs_go_through_at_once(file):
    video = drawn_picture(3, 3, 50, 70)
    one, two = (torch.stack(list(load_raft(file, CPU, batch)(video))) for batch in (1, 2))
    assert one.shape == (2, 2, 50, 70)
    assert torch.allclose(one, two, atol=1e-3, rtol=1e-4)
    assert torch.equal(two, torch.stack(list(load_raft(file, CPU, 2)(video))))


def test_the_published_file_loads_with_or_without_a_prefix_and_as_safetensors(file, tmp_path):
    video = drawn_picture(3, 2, 64, 64)
    (expected,) = load_raft(file, CPU, 1)(video)
    bare = build_raft(tmp_path / "bare", prefix="")
    safe = tmp_path / "raft-things.safetensors"
    save_file({f"module.{n}": t.clone() for n, t in drawn(dict(raft_shapes())).items()}, safe)
    for path in (bare, safe):
        (found,) = load_raft(path, CPU, 1)(video)
        assert torch.equal(found, expected)


def test_a_file_that_is_missing_or_another_networks_is_told_before_it_is_loaded(file, tmp_path):
    spec = DynamicDegree(flow="raft", model=str(tmp_path))
    assert spec.problems() == [f"model: '{tmp_path}' has no raft-things.pth; {GET}"]
    shapes = dict(raft_shapes()) | {"cnet.conv2.bias": (7,)}
    del shapes["fnet.conv1.bias"]
    other = tmp_path / "other.pth"
    torch.save(drawn(shapes), other)
    told = (
        f"model: {other} does not fit RAFT: fnet.conv1.bias is missing,"
        " cnet.conv2.bias is (7,), expected (256,)"
    )
    assert DynamicDegree(flow="raft", model=str(other)).problems() == [told]
    with pytest.raises(JtError) as error:
        load_raft(other, CPU, 1)
    assert error.value.problems == (told,)
    assert DynamicDegree(flow="raft", model=str(file.parent)).problems() == []
