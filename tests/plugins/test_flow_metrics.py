"""What metrics of flow say of videos with known motion, and what all metrics of motion share."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from checkpoints.motion import build_raft
from torch import Tensor
from waves import CPU, HEIGHT, RIGHT, WIDTH, measured, moving

from jtcore.errors import JtError
from jtcore.evaluation.identity import identify
from jtcore.media import write_video
from jtcore.plugins import load_plugins
from jtcore.structure import Component, structure_component
from jtcore.types import Sample
from jtplugins.metrics._dynamics import dynamics
from jtplugins.metrics._opencv import DIS, LucasKanade
from jtplugins.metrics.dynamic_degree import DynamicDegree
from jtplugins.metrics.dynamic_degree_distance import DynamicDegreeDistance
from jtplugins.metrics.flow_error import FlowError
from jtplugins.metrics.motion_fidelity import MotionFidelity
from jtplugins.metrics.temporal_flickering import TemporalFlickering


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    """A file in which all moves by RIGHT."""
    path = tmp_path_factory.mktemp("motion") / "right.mp4"
    write_video(path, moving(RIGHT), 8.0)
    return str(path)


@pytest.mark.parametrize("step", [(2.0, -1.0), (0.5, 0.25), (-3.3, 4.6)])
def test_flow_and_tracks_of_a_known_shift_are_that_shift(step):
    video = moving(step, frames=3)
    flows = torch.stack(list(DIS()(video)))
    inside = flows[:, :, 12:-12, 12:-12] - torch.tensor(step).view(1, 2, 1, 1)
    assert flows.shape == (2, 2, HEIGHT, WIDTH) and inside.abs().max() < 0.1
    tracks = LucasKanade(grid=9)(video)
    inner = (abs(tracks.places[0] - [WIDTH / 2, HEIGHT / 2]) < [45, 30]).all(1)
    steps = np.diff(tracks.places, axis=0)[:, inner]
    assert tracks.visible[:, inner].all()
    assert abs(steps - step).max() < 0.1


def test_flow_does_not_depend_on_the_number_of_threads():
    video, before = moving(RIGHT, frames=2), cv2.getNumThreads()
    try:
        found = []
        for threads in (1, 4):
            cv2.setNumThreads(threads)
            found.append(next(DIS()(video)))
    finally:
        cv2.setNumThreads(before)
    assert torch.equal(*found)


def test_points_that_something_covers_do_not_find_back_and_are_lost():
    video, other = moving((1.0, 0.0), frames=2).clone(), moving((1.0, 0.0), frames=2, texture=3)
    video[:, 1, :, : WIDTH // 2] = other[:, 1, :, : WIDTH // 2]
    tracks = LucasKanade(grid=15)(video)
    across = tracks.places[0, :, 0]
    assert tracks.visible[1, across < WIDTH / 2 - 16].mean() < 0.3
    assert tracks.visible[1, across > WIDTH / 2 + 16].all()


def test_points_that_leave_the_picture_are_lost_for_good_and_stay_where_they_were():
    tracks = LucasKanade(grid=9)(moving((9.0, 0.0), frames=8))
    last = tracks.places[0, :, 0] > WIDTH - 20
    assert not tracks.visible[-1, last].any() and tracks.visible[0].all()
    assert (tracks.visible[1:] <= tracks.visible[:-1]).all()
    gone = ~tracks.visible[-1] & ~tracks.visible[-2]
    assert (tracks.places[-1, gone] == tracks.places[-2, gone]).all()


def test_references_are_read_once_at_loading(tmp_path):
    path = tmp_path / "clip.mp4"
    write_video(path, moving(RIGHT, frames=3), 8.0)
    specs = (
        MotionFidelity(motion=str(path), grid=5),
        DynamicDegreeDistance(motion=str(path)),
        FlowError(motion=str(path)),
    )
    metrics = [spec.load(CPU) for spec in specs]
    path.unlink()
    assert all(metric(Sample(moving(RIGHT, frames=3), "", 0, 8.0)) for metric in metrics)


def pairs_of(*lengths: float) -> Callable[[Tensor], Iterator[Tensor]]:
    """Stored flows of 10x10 pixels, of which seven are so many pixels long."""

    def flow(video: Tensor) -> Iterator[Tensor]:
        assert video.shape[1] == len(lengths) + 1
        for length in lengths:
            stored = torch.zeros(2, 10, 10)
            stored[0, 2, :7] = length
            yield stored

    return flow


@pytest.mark.parametrize(
    ("frames", "moved", "expected"), [(16, 4, True), (16, 3, False), (8, 2, True), (2, 0, False)]
)
def test_a_video_is_dynamic_where_a_quarter_of_its_pairs_is(frames, moved, expected):
    lengths = [6.1] * moved + [5.9] * (frames - 1 - moved)
    found = dynamics(pairs_of(*lengths), torch.zeros(3, frames, 256, 300), fps=8)
    assert found.is_dynamic is expected
    assert found.tops == pytest.approx(lengths)  # 5 of 100 pixels
    assert found.means == pytest.approx([0.07 * length for length in lengths])


@pytest.mark.parametrize(
    ("fps", "taken", "top"), [(8, 13, 6.0), (24, 5, 6.0), (12, 7, 6.0), (10, 13, 6.0), (4, 13, 3.0)]
)
def test_lengths_are_of_8_frames_a_second_at_a_side_of_256(fps, taken, top):
    flow = pairs_of(*[3.0] * (taken - 1))
    found = dynamics(flow, torch.zeros(3, 13, 200, 128), fps)
    assert found.top == pytest.approx(top)


def test_dynamic_degree_is_vbenchs_formula_of_its_flow():
    video = torch.cat([moving(RIGHT, frames=5), moving((0.2, 0.1), frames=6)], 1)
    shown = [(frame * 255).byte().movedim(0, -1).numpy() for frame in video.movedim(1, 0)][::2]
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in shown]
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    lengths = [
        np.hypot(*np.moveaxis(search.calc(one, other, None).astype(float), -1, 0)).ravel()
        for one, other in pairwise(gray)
    ]
    most = int(0.05 * HEIGHT * WIDTH)
    tops = [np.sort(each)[-most:].mean() for each in lengths]
    moves = sum(top > 6 * HEIGHT / 256 for top in tops) >= round(4 * len(shown) / 16)
    found = measured(DynamicDegree(), video, fps=16)
    scale = 256 / HEIGHT
    assert found["dis"] == moves == 1
    assert found["dis_top"] == pytest.approx(np.mean(tops) * scale, abs=1e-5)
    magnitude = np.mean([each.mean() for each in lengths]) * scale
    assert found["dis_magnitude"] == pytest.approx(magnitude, abs=1e-5)


def test_a_frozen_video_is_not_dynamic_and_a_faster_one_is_more_so():
    found = [measured(DynamicDegree(), moving((speed, 0))) for speed in (0, 1, 4)]
    assert [each["dis"] for each in found] == [0, 0, 1]
    assert found[0]["dis_magnitude"] == 0
    assert found[1]["dis_magnitude"] == pytest.approx(256 / HEIGHT, rel=0.02)
    assert found[2]["dis_magnitude"] > 3 * found[1]["dis_magnitude"]
    assert measured(DynamicDegree(), moving(RIGHT, frames=1)) == {}


def test_the_distance_to_the_motions_dynamic_degree_is_of_amounts_alone(clip):
    spec = DynamicDegreeDistance(motion=clip)
    reference = measured(DynamicDegree(), moving(RIGHT))
    found = {step: measured(spec, moving(step)) for step in (RIGHT, (-1.0, 3.0), (0, 0), (4, 3))}
    assert found[RIGHT]["dis"] < 0.05
    assert found[(-1.0, 3.0)]["dis"] < 0.1
    still = found[(0, 0)]
    assert still["dis"] == pytest.approx(reference["dis_magnitude"], abs=0.05)
    assert still["dis_top"] == pytest.approx(reference["dis_top"], abs=0.3)
    assert found[(4, 3)]["dis"] == pytest.approx((5 - 10**0.5) * 256 / HEIGHT, rel=0.05)


def test_flickering_is_vbenchs_formula():
    video = moving(RIGHT)
    frames = [(frame * 255).numpy().round() for frame in video.movedim(1, 0)]
    apart = [abs(a - b).mean() for a, b in pairwise(frames)]
    found = measured(TemporalFlickering(), video)
    assert found == pytest.approx({"temporal_flickering": (255 - np.mean(apart)) / 255}, abs=1e-6)
    assert measured(TemporalFlickering(), video[:, :1]) == {}


def test_frozen_then_moving_then_flickering_then_shuffled_videos_flicker_more():
    video = moving(RIGHT, frames=8)
    flicker = 0.1 * torch.tensor([0.0, 1.0] * 4).view(1, 8, 1, 1)
    kinds = [video[:, :1].expand(-1, 8, -1, -1), video, video[:, [0, 4, 1, 5, 2, 6, 3, 7]]]
    kinds.append(kinds[0] + flicker)
    frozen, plain, shuffled, flickering = (
        measured(TemporalFlickering(), each)["temporal_flickering"] for each in kinds
    )
    assert frozen == 1
    assert frozen > plain > shuffled
    assert flickering == pytest.approx(0.9, abs=1e-6)


def test_flow_error_is_the_distance_of_flows_from_a_reference_or_a_camera(clip):
    told = (RIGHT[0] * 5 / WIDTH, RIGHT[1] * 5 / HEIGHT)  # over the whole clip of six frames
    scale = 256 / HEIGHT
    for spec in (FlowError(motion=clip), FlowError(camera=told)):
        found = {step: measured(spec, moving(step))["dis"] for step in (RIGHT, (-3, -1), (0, 0))}
        assert found[RIGHT] < 0.1
        assert found[(0, 0)] == pytest.approx(10**0.5 * scale, abs=0.1)
        assert found[(-3, -1)] == pytest.approx(2 * 10**0.5 * scale, rel=0.02)
    slower = measured(FlowError(motion=clip), moving((1.5, 0.5), frames=11))
    assert slower["dis"] < 0.1  # as far over the clip
    assert measured(FlowError(camera=told), moving(RIGHT, frames=1)) == {}


def test_flow_error_is_its_formula_of_stored_flows():
    flows = torch.stack(list(DIS()(moving(RIGHT, frames=3)))).double().numpy()
    cells = flows.reshape(2, 2, 32, HEIGHT // 32, 32, WIDTH // 32).mean((3, 5))
    apart = cells - np.array([0.25 * WIDTH / 2, -0.5 * HEIGHT / 2]).reshape(1, 2, 1, 1)
    expected = np.hypot(apart[:, 0], apart[:, 1]).mean() * 256 / HEIGHT
    found = measured(FlowError(camera=(0.25, -0.5)), moving(RIGHT, frames=3))
    assert found["dis"] == pytest.approx(expected, abs=1e-5)


def test_the_flow_and_the_tracker_are_in_names_and_identities(clip, tmp_path):
    build_raft(tmp_path)
    raft = DynamicDegree(flow="raft", model=str(tmp_path), batch=2)
    found = measured(raft, moving(RIGHT, frames=3)[:, :, :64, :64])
    assert list(found) == ["raft", "raft_magnitude", "raft_top"]
    dis = identify(Component("dynamic_degree", DynamicDegree()))
    other = identify(Component("dynamic_degree", raft))
    assert dis.table["itself"]["flow"]["name"] == "dis"
    assert dis.table["itself"]["flow"]["library"] == f"opencv {cv2.__version__}"
    assert other.table["itself"]["flow"]["name"] == "raft" and other.hash != dis.hash
    assert len(other.table["itself"]["flow"]["weights"]) == 64
    tracks = identify(Component("motion_fidelity", MotionFidelity(motion=clip)))
    assert tracks.table["itself"]["tracker"]["name"] == "lucas_kanade"


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (
            {"kind": "dynamic_degree", "model": "x"},
            "expected model with flow = \"raft\", got 'dis'",
        ),
        (
            {"kind": "motion_fidelity", "model": "x"},
            "expected model with tracker = \"cotracker\", got 'lucas_kanade'",
        ),
        (
            {"kind": "motion_fidelity", "compat": "jointtuner", "still": 0.5},
            "expected still or compat, got both",
        ),
    ],
)
def test_options_that_would_do_nothing_are_refused(table, told):
    with pytest.raises(JtError) as error:
        structure_component("metrics", table, load_plugins())
    assert told in str(error.value)


def test_what_a_reference_lacks_is_told(tmp_path):
    wanting = (
        "motion: is not given, and nothing fills it; name the folder of clips of the motion here,"
        " or with `jt-eval --motion`"
    )
    for spec in (MotionFidelity(), DynamicDegreeDistance(), FlowError()):
        assert spec.problems() == [wanting]
    assert FlowError(camera=(0.1, 0.0)).problems() == []
    write_video(tmp_path / "one.mp4", moving(RIGHT, frames=1), 8.0)
    with pytest.raises(JtError) as error:
        MotionFidelity(motion=str(tmp_path)).load(CPU)
    assert error.value.problems == (f"motion: {str(tmp_path)!r} has no clip of two frames or more",)


def test_pictures_beside_clips_are_passed_over(clip, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "b.mp4").write_bytes(Path(clip).read_bytes())
    both = measured(FlowError(motion=str(tmp_path)), moving(RIGHT))
    assert both == measured(FlowError(motion=clip), moving(RIGHT))
