"""CoTracker3 offline, re-derived from its paper with the tensors of its published file."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints.motion import build_cotracker, cotracker_shapes, drawn
from checkpoints.quality import drawn_picture
from torch import nn

from jtplugins.metrics import _cotracker as cotracker
from jtplugins.metrics._cotracker_network import TOKENS_AT_ONCE, Attention, in_parts
from jtplugins.metrics.motion_fidelity import MotionFidelity

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return drawn(dict(cotracker_shapes()))


@pytest.fixture(scope="module")
def network(weights) -> cotracker.CoTracker3:
    network = cotracker.CoTracker3()
    network.load_state_dict(weights)
    return network.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return build_cotracker(tmp_path_factory.mktemp("cotracker"))


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_names_and_shapes_are_those_of_the_published_file():
    with torch.device("meta"):
        network = cotracker.CoTracker3()
    found = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert found == dict(cotracker_shapes())
    assert sum(each.numel() for each in network.parameters()) == 25_385_700  # the paper: 25 M


def test_the_tracks_are_what_the_authors_formulation_says(network):
    """Computed once with these weights, in double precision, by a transcription of it."""
    double = cotracker.CoTracker3().double().eval()
    double.load_state_dict(network.state_dict())
    video = np.random.RandomState(1).randint(0, 256, (3, 3, 64, 64)) / 255
    points = np.random.RandomState(2).uniform(0, 1, (3, 2)) * 63
    with torch.no_grad():
        levels = cotracker.pyramid(double.features(torch.from_numpy(video)))
        places, seen = double(levels, torch.from_numpy(points))
    first = [
        [-47.44670198805177, -26.32257128737585],
        [-9.780954130045176, -36.37009622440937],
        [-2.2870338753166664, -25.352224756519984],
    ]
    assert places[:, 0].numpy() == pytest.approx(np.array(first), abs=1e-7)
    last = [2.9458407695043753, 0.5878314572745253]
    assert places[2, 2].tolist() == pytest.approx(last, abs=1e-7)
    assert seen[2, 0].item() == pytest.approx(0.438258679528403, abs=1e-9)


def test_correlations_are_of_each_place_of_a_patch_with_each_of_the_querys():
    level = numbers(2, 5, 12, 14)
    places = torch.tensor([[[4.25, 5.5], [0.0, 11.0]], [[13.0, 3.0], [6.5, 2.75]]])  # (T, N, 2)
    query = numbers(2, 7, 7, 5, seed=1)
    found = cotracker.correlate(cotracker.patches(level, places), query)
    assert found.shape == (2, 2, 7**4)
    for t, n, i, j, u, v in ((0, 0, 0, 0, 0, 0), (1, 1, 6, 2, 3, 5), (0, 1, 1, 6, 6, 0)):
        x, y = (places[t, n] + torch.tensor([i - 3, j - 3])).tolist()
        place = ((i * 7 + j) * 7 + u) * 7 + v
        expected = _nearest_between(level[t], x, y) @ query[n, u, v]
        assert found[t, n, place].item() == pytest.approx(expected.item(), abs=1e-4)


def _nearest_between(cells: torch.Tensor, x: float, y: float) -> torch.Tensor:  # (C, h, w) -> (C,)
    """Bilinear by its definition, of the cells repeated beyond the edge."""
    x, y = min(max(x, 0), cells.shape[2] - 1), min(max(y, 0), cells.shape[1] - 1)
    columns, rows = torch.arange(float(cells.shape[2])), torch.arange(float(cells.shape[1]))
    return cells @ (1 - (columns - x).abs()).clamp(0) @ (1 - (rows - y).abs()).clamp(0)


def test_steps_are_encoded_both_ways_in_shares_of_the_frame_and_ten_octaves():
    places = numbers(3, 2, 2)
    found = cotracker.encode_steps(places)
    assert found.shape == (3, 2, 84)
    ahead, behind = places[1] - places[2], places[1] - places[0]
    moves = np.concatenate([ahead, behind], -1) / np.array([128, 96, 128, 96])  # (N, 4)
    angles = np.concatenate([moves * 2**octave for octave in range(10)], -1)
    expected = np.concatenate([moves, np.sin(angles), np.cos(angles)], -1)
    assert found[1].numpy() == pytest.approx(expected, abs=2e-5)
    assert found[0, :, 2:4].abs().max() == 0 and found[2, :, :2].abs().max() == 0


def test_the_embedding_of_time_is_of_sines_and_cosines_and_is_stretched():
    found = cotracker.time_embedding()[0].numpy()
    frame, index = 37, 200
    angle = frame / 10000 ** (index / 555)
    assert found[frame, [index, 555 + index]] == pytest.approx(
        [np.sin(angle), np.cos(angle)], abs=1e-6
    )
    ramp = torch.arange(60.0).view(1, 60, 1)
    assert cotracker.stretched(ramp, 60) is ramp
    assert cotracker.stretched(ramp, 3).flatten().tolist() == pytest.approx([9.5, 29.5, 49.5])


def test_attention_is_torchs_multi_head_attention():
    ours, theirs = Attention(), nn.MultiheadAttention(384, 8, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.to_q.weight, ours.to_kv.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.to_q.bias, ours.to_kv.bias]))
        theirs.out_proj.load_state_dict(ours.to_out.state_dict())
        queries, context = numbers(2, 5, 384), numbers(2, 7, 384, seed=1)
        expected, _ = theirs(queries, context, context)
        assert torch.allclose(ours(queries, context), expected, atol=1e-5)


def test_the_order_of_points_does_not_matter(network):
    levels = [numbers(2, 128, 24 // 2**each, 32 // 2**each, seed=each) / 11 for each in range(4)]
    points = torch.rand((4, 2), generator=torch.Generator().manual_seed(1)) * 90
    order = torch.tensor([3, 0, 1, 2])
    places, seen = network(levels, points)
    shuffled, seen_too = network(levels, points[order])
    assert torch.allclose(places[:, order], shuffled, atol=1e-2)
    assert torch.allclose(seen[:, order], seen_too, atol=1e-4)


def test_a_block_takes_many_rows_in_parts():
    sizes = []

    def block(rows: torch.Tensor) -> torch.Tensor:
        sizes.append(len(rows))
        return 2 * rows

    rows = numbers(50, 1000, 4)
    assert torch.equal(in_parts(block, rows), 2 * rows)
    assert max(sizes) * 1000 <= TOKENS_AT_ONCE and sum(sizes) == 50 and len(sizes) == 4


def test_the_grid_leaves_a_64th_of_the_width_free():
    grid = cotracker.model_grid(3).tolist()
    assert grid == [[x, y] for y in (8, 192, 376) for x in (8, 256, 504)]


def test_a_file_loads_strictly_and_says_what_it_is(file, network, data):
    tracker = cotracker.load_cotracker(file, CPU, grid=2, batch=1)
    loaded = tracker.network.state_dict()
    assert all(torch.equal(loaded[name], each) for name, each in network.state_dict().items())
    motion = str(data / "motion")
    spec = MotionFidelity(tracker="cotracker", model=str(file), motion=motion)
    assert spec.problems() == []
    assert spec.identity()["tracker"] == {
        "name": "cotracker",
        "version": "3 offline",
        "size": [384, 512],
        "iterations": 6,
        "visible_above": 0.9,
        "weights": sha256(file.read_bytes()).hexdigest(),
    }


@pytest.mark.slow  # frames of 384x512 through the encoder
def test_a_video_is_tracked_from_the_grid_on_however_many_frames_are_encoded_at_once(file):
    video = drawn_picture(3, 3, 48, 64)
    one, three = (cotracker.load_cotracker(file, CPU, 2, batch)(video) for batch in (1, 3))
    corners = np.array([[x, y] for y in (8, 376) for x in (8, 504)]) * [63 / 511, 47 / 383]
    assert one.places.shape == (3, 4, 2) and one.visible.shape == (3, 4)
    assert one.places[0] == pytest.approx(corners, abs=1e-4) and one.visible[0].all()
    assert one.places == pytest.approx(three.places, abs=1e-2)


def test_a_missing_file_is_told_with_how_to_get_it(tmp_path, data):
    spec = MotionFidelity(tracker="cotracker", model=str(tmp_path), motion=str(data / "motion"))
    assert spec.problems() == [
        f"model: '{tmp_path}' has no scaled_offline.pth; get scaled_offline.pth by"
        " `hf download facebook/cotracker3 scaled_offline.pth --local-dir FOLDER` and set model to"
        " the folder or the file"
    ]
