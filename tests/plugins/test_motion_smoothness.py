"""AMT-S, and the smoothness that it and OpenCV's flow say of videos."""

from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from checkpoints.quality import build_amt, build_musiq, drawn_picture, filled
from torch import Tensor
from torch.nn import functional

from jtcore.media import read_sample
from jtcore.types import Sample
from jtplugins.metrics._amt import AMTS
from jtplugins.metrics._correlation import BothWays, pixel_grid, warped
from jtplugins.metrics.motion_smoothness import MotionSmoothness, halfway_by_flow

CPU = torch.device("cpu")
CLIPS = Path(__file__).parents[3] / "shared" / "data" / "motions" / "playing_guitar"
PUBLISHED = "260e6ea545aecae63fba8a248a319da218d23728e0d6a09f386bf613282b1251"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return build_amt(tmp_path_factory.mktemp("amt"))


@pytest.fixture(scope="module")
def network() -> AMTS:
    network = AMTS()
    network.load_state_dict(filled(network.state_dict()))
    return network.requires_grad_(False).eval()


def smoothness(video: Tensor, **options) -> dict[str, float]:  # (3, F, H, W)
    return dict(MotionSmoothness(**options).load(CPU)(Sample(video, "a dog", 0, 8.0)))


def texture(height: int, width: int, seed: int = 1) -> Tensor:  # (3, height, width)
    """Blots of about 9 px, over the whole range of colours."""
    rough = drawn_picture(1, 3, height + 16, width + 16, seed=seed)
    blurred = functional.avg_pool2d(functional.avg_pool2d(rough, 9, 1), 9, 1)[0]
    return (blurred - blurred.min()) / (blurred.max() - blurred.min())


def seen_at(places: list[int], size: int = 96) -> Tensor:  # (3, F, size, size)
    """A window that slides over a larger picture, to the right, so many pixels from the left."""
    picture = texture(size, size + max(places))
    return torch.stack([picture[:, :, place : place + size] for place in places], 1)


def test_names_and_shapes_are_those_of_the_published_file():
    with torch.device("meta"):
        tensors = AMTS().state_dict()
    lines = sorted(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
    assert len(lines) == 213
    assert sum(tensor.numel() for tensor in tensors.values()) == 2_990_543
    assert sha256("\n".join(lines).encode()).hexdigest() == PUBLISHED


def test_the_frame_between_is_what_the_released_network_draws(network):
    """Computed once by the network in VBench 0.1.5 with these weights, in double precision."""
    double = AMTS().double()
    double.load_state_dict(network.state_dict())
    before = functional.avg_pool2d(drawn_picture(1, 3, 132, 148).double(), 5, 1)
    drawn = double(before, before.roll((1, 3), (2, 3)))[0]
    assert drawn.mean().item() == pytest.approx(0.45356236745177503, abs=1e-9)
    places = ((0, 30, 25), (1, 17, 62), (2, 6, 0), (2, 105, 22))
    said = [drawn[place].item() for place in places]
    expected = [0.12807855094032972, 0.7954126101388529, 0.7678682841663456, 0.3260557425699626]
    assert said == pytest.approx(expected, abs=1e-9)


def test_pairs_are_drawn_alike_alone_and_together(network):
    frames = torch.stack([texture(64, 80, seed=seed) for seed in range(4)])
    together = network(frames[:2], frames[2:])
    for index in range(2):
        alone = network(frames[index][None], frames[index + 2][None])
        torch.testing.assert_close(together[index], alone[0], atol=1e-4, rtol=0)


def test_frames_of_any_size_are_filled_up_by_their_edges(network):
    frames = torch.stack([texture(50, 81, seed=seed) for seed in range(2)])
    drawn = network(frames[:1], frames[1:])
    assert drawn.shape == (1, 3, 50, 81)
    rows = torch.arange(-7, 57).clamp(0, 49)
    columns = torch.arange(-7, 89).clamp(0, 80)  # of 15 px the odd one is put after
    whole = frames[:, :, rows][:, :, :, columns]
    expected = network.between(whole[:1], whole[1:])[:, :, 7:57, 7:88]
    torch.testing.assert_close(drawn, expected)


def bilinear(picture: np.ndarray, x: float, y: float) -> float:
    """At a place of a picture (H, W) that is not on its edge."""
    column, row = int(np.floor(x)), int(np.floor(y))
    a, b = x - column, y - row
    near = picture[row : row + 2, column : column + 2]
    return float(np.array([1 - b, b]) @ near @ np.array([1 - a, a]))


def test_a_picture_is_warped_by_reading_where_the_flow_points():
    picture = drawn_picture(1, 2, 7, 9)
    flow = 6 * drawn_picture(1, 2, 7, 9, seed=2) - 3
    seen = warped(picture, flow)
    edged = np.pad(picture[0].double().numpy(), ((0, 0), (5, 5), (5, 5)), mode="edge")
    for row in range(7):
        for column in range(9):
            x, y = column + flow[0, 0, row, column].item(), row + flow[0, 1, row, column].item()
            expected = [bilinear(channel, x + 5, y + 5) for channel in edged]
            assert seen[0, :, row, column].tolist() == pytest.approx(expected, abs=1e-5)


def test_correlations_are_looked_up_in_both_frames_around_where_the_flow_points():
    one, other = (functional.avg_pool2d(drawn_picture(1, 5, 8, 16, seed=s), 1) for s in (1, 2))
    flow = 4 * drawn_picture(1, 2, 8, 16, seed=3) - 2
    at = pixel_grid(flow)
    found = BothWays(one, other, levels=2).look_up(at + flow, at - flow, radius=1)
    assert found.shape == (1, 2 * 2 * 9, 8, 16)
    for row, column in ((0, 0), (3, 9), (7, 15), (5, 2)):
        expected = []
        for here, there, sign in ((one, other, 1), (other, one, -1)):
            alike = (here[0, :, row, column] @ there[0].flatten(1) / 5**0.5).view(8, 16).numpy()
            x, y = (at[0] + sign * flow[0])[:, row, column].tolist()
            for level in range(2):
                size = 2**level
                coarse = alike.reshape(8 // size, size, 16 // size, size).mean((1, 3))
                dark = np.pad(coarse, 6)  # outside nothing is alike
                expected += [
                    bilinear(dark, x / size + right + 6, y / size + down + 6)
                    for right in (-1, 0, 1)  # the slower one, as in RAFT
                    for down in (-1, 0, 1)
                ]
        assert found[0, :, row, column].tolist() == pytest.approx(expected, abs=1e-5)


def test_half_of_the_flow_is_half_of_the_way():
    before, truth, after = seen_at([0, 3, 6]).unbind(1)
    drawn = halfway_by_flow(before[None], after[None])[0]
    inside = slice(12, -12)
    there = (drawn - truth)[:, inside, inside].abs().mean()
    assert there < 0.003
    assert ((before + after) / 2 - truth)[:, inside, inside].abs().mean() > 10 * there


def test_videos_are_as_smooth_as_one_would_say():
    still = smoothness(seen_at([0] * 9))["motion_smoothness_dis"]
    linear = smoothness(seen_at([2 * n for n in range(9)]))["motion_smoothness_dis"]
    shuffled = smoothness(seen_at([0, 10, 4, 16, 2, 14, 6, 12, 8]))["motion_smoothness_dis"]
    flickering = seen_at([0] * 9)
    flickering[:, 1::2] = 1 - flickering[:, 1::2]
    assert still == pytest.approx(1, abs=1e-6)
    assert still > linear > 0.99
    assert linear - 0.05 > shuffled
    assert shuffled > smoothness(flickering)["motion_smoothness_dis"] + 0.1


@pytest.mark.skipif(not CLIPS.is_dir(), reason="playing_guitar is not on this machine")
def test_a_filmed_clip_is_smoother_than_shuffled_or_flickering():
    video, _ = read_sample(sorted(CLIPS.glob("*.avi"))[0])
    filmed = video[:, :7, ::2, ::2]
    darker = filmed.clone()
    darker[:, 1::2] = (darker[:, 1::2] - 0.2).clamp(min=0)
    ways = (filmed, filmed[:, [0, 4, 2, 6, 1, 5, 3]], darker)
    smooth, shuffled, flickering = (smoothness(way)["motion_smoothness_dis"] for way in ways)
    assert smooth > shuffled > flickering


def test_a_flicker_costs_what_it_changes():
    flickering = torch.full((3, 5, 40, 40), 100 / 255)
    flickering[:, 1::2] = 151 / 255
    assert smoothness(flickering)["motion_smoothness_dis"] == pytest.approx(0.8, abs=1e-6)


def test_amts_smoothness_is_one_less_the_mean_error_of_what_it_draws(model, network):
    video = (seen_at([0, 3, 5, 12, 13, 14], size=64) * 255).round() / 255
    errors = []
    for index in (1, 3):  # the last has no neighbour after it
        before, after = video[None, :, index - 1], video[None, :, index + 1]
        errors.append((network(before, after)[0] - video[:, index]).abs().mean().item())
    expected = {"motion_smoothness_amt": pytest.approx(1 - sum(errors) / 2, abs=1e-6)}
    for batch in (1, 2):
        told = smoothness(video, interpolation="amt", model=str(model), batch=batch)
        assert told == expected


def test_as_released_what_is_drawn_is_cut_to_whole_pixel_values(model, network):
    video = (seen_at([0, 3, 5], size=64) * 255).round() / 255
    drawn = network(video[None, :, 0], video[None, :, 2])[0]
    cut = (drawn * 255).permute(1, 2, 0).numpy().clip(0, 255).astype(np.uint8)
    truth = (video[:, 1] * 255).round().byte().permute(1, 2, 0).numpy()
    expected = (255 - cv2.absdiff(cut, truth).mean()) / 255
    options = {"interpolation": "amt", "model": str(model)}
    told = smoothness(video, **options, compat="jointtuner")["motion_smoothness_amt"]
    assert told == pytest.approx(expected, abs=1e-6)
    assert told != smoothness(video, **options)["motion_smoothness_amt"]


def test_less_than_three_frames_have_no_value():
    assert smoothness(seen_at([0, 1])) == {}
    assert smoothness(seen_at([0, 2, 4, 6, 8, 10, 12, 14]), frames=2) == {}  # of one second


def test_the_two_ways_to_draw_never_share_an_identity(model):
    dis, amt = MotionSmoothness(), MotionSmoothness(interpolation="amt", model=str(model))
    assert dis.identity() == {
        "flow": {
            "name": "dis",
            "library": f"opencv {cv2.__version__}",
            "preset": "medium",
            "finest_scale": 0,
        },
        "frames": "all",
    }
    weights = sha256(model.read_bytes()).hexdigest()
    told = {"network": "AMT-S", "weights": weights, "scale": 1, "frames": "all"}
    assert amt.identity() == told
    assert (dis.files(), amt.files()) == ([], [model])


@pytest.mark.parametrize("option", [{"model": "amt-s.pth"}, {"compat": "jointtuner"}])
def test_options_of_amt_are_refused_where_flow_draws(option):
    (name,) = option
    with pytest.raises(ValueError, match=f'expected {name} only with interpolation = "amt"'):
        MotionSmoothness(**option)


def test_a_model_that_is_not_there_is_one_problem_that_says_how_to_get_it():
    assert MotionSmoothness().problems() == []
    assert MotionSmoothness(interpolation="amt", model="nowhere").problems() == [
        "model: 'nowhere' is no file, folder or hub id; get amt-s.pth by `hf download"
        " lalala125/AMT amt-s.pth --local-dir FOLDER` and set model to the folder or the file"
    ]


def test_a_file_is_held_against_the_network_before_anything_is_measured(model, tmp_path):
    assert MotionSmoothness(interpolation="amt", model=str(model)).problems() == []
    path = build_musiq(tmp_path)
    (problem,) = MotionSmoothness(interpolation="amt", model=str(path)).problems()
    assert problem.startswith(f"model: {path} does not fit AMTS: feat_encoder.conv1.weight is")
