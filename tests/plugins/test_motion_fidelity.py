"""What motion fidelity says of tracks and of videos whose motion is known."""

import numpy as np
import pytest
from torch import Tensor
from waves import CPU, RIGHT, measured, moving

from jtcore.media import write_video
from jtcore.types import Sample
from jtplugins.metrics._fidelity import fidelity, released
from jtplugins.metrics._tracks import Tracks
from jtplugins.metrics.motion_fidelity import MotionFidelity


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    """A file in which all moves by RIGHT."""
    path = tmp_path_factory.mktemp("motion") / "right.mp4"
    write_video(path, moving(RIGHT), 8.0)
    return str(path)


def test_motion_fidelity_is_1_to_itself_and_minus_1_to_the_opposite(clip):
    spec = MotionFidelity(motion=clip, grid=12)
    metric = spec.load(CPU)

    def says(video: Tensor) -> float:
        values = metric(Sample(video, "", 0, 8.0))
        assert list(values) == [
            "lucas_kanade",
            "lucas_kanade_of_video",
            "lucas_kanade_of_reference",
        ]
        return values["lucas_kanade"]

    assert says(moving(RIGHT)) == pytest.approx(1, abs=1e-3)
    assert says(moving(RIGHT, texture=7)) == pytest.approx(1, abs=1e-3)  # whatever moves
    assert says(moving((-3.0, -1.0))) < -0.95
    assert abs(says(moving((1.0, -3.0)))) < 0.1
    assert says(moving((0.0, 0.0))) == 0
    assert says(moving((1.5, 0.5), frames=11)) == pytest.approx(1, abs=1e-2)  # half as fast
    shuffled = moving(RIGHT)[:, [3, 0, 4, 1, 5, 2]]
    assert says(shuffled) < 0.9
    assert metric(Sample(moving(RIGHT)[:, :1], "", 0, 8.0)) == {}


def test_a_reference_in_which_nothing_moves_has_no_value(tmp_path):
    write_video(tmp_path / "still.mp4", moving((0, 0)), 8.0)
    assert measured(MotionFidelity(motion=str(tmp_path), grid=5), moving(RIGHT)) == {}


def walks(frames: int, points: int, seed: int) -> Tracks:
    """Independent ones that stand still now and then and are out of sight now and then."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 3, (frames - 1, points, 2)) * (rng.random((frames - 1, points, 1)) > 0.2)
    places = np.concatenate([rng.uniform(0, 200, (1, points, 2)), steps]).cumsum(0)
    return Tracks(
        places, np.concatenate([[[True] * points], rng.random((frames - 1, points)) > 0.2])
    )


def by_hand(ours: Tracks, theirs: Tracks, still: float) -> tuple[float, float]:
    """The two means, track by track and step by step, of equally many frames."""

    def counts(tracks: Tracks, n: int) -> bool:
        seen = tracks.visible[1:, n] & tracks.visible[:-1, n]
        away = np.linalg.norm(tracks.places[:, n] - tracks.places[0, n], axis=-1)
        return seen.mean() >= 0.5 and away[tracks.visible[:, n]].max() > 2

    def agree(n: int, m: int) -> float:
        found = []
        for t in range(len(ours.places) - 1):
            both = ((ours, n), (theirs, m))
            if not all(tracks.visible[t : t + 2, k].all() for tracks, k in both):
                continue
            a, b = (tracks.places[t + 1, k] - tracks.places[t, k] for tracks, k in both)
            lengths = np.hypot(*a), np.hypot(*b)
            standing = [length <= still for length in lengths]
            cosine = a @ b / (lengths[0] * lengths[1]) if not any(standing) else 0.0
            found.append(1.0 if all(standing) else cosine)
        return np.mean(found) if found else -np.inf

    us = [n for n in range(ours.places.shape[1]) if counts(ours, n)]
    them = [m for m in range(theirs.places.shape[1]) if counts(theirs, m)]
    table = np.array([[agree(n, m) for m in them] for n in us])
    return table.max(1).mean(), table.max(0).mean()


def test_motion_fidelity_is_the_formula_of_its_tracks():
    ours, theirs = walks(9, 14, seed=1), walks(9, 11, seed=2)
    found = fidelity(ours, theirs, still=0.2)
    expected = by_hand(ours, theirs, still=0.2)
    assert (found.of_video, found.of_reference) == pytest.approx(expected, abs=1e-9)
    assert found.both == pytest.approx(sum(expected) / 2)
    swapped = fidelity(theirs, ours, still=0.2)
    assert (swapped.of_reference, swapped.of_video) == pytest.approx(expected, abs=1e-9)
    assert fidelity(ours, ours, still=0.2).both == pytest.approx(1)


def test_tracks_of_another_length_are_read_at_as_many_times():
    ours, theirs = walks(5, 6, seed=1), walks(9, 6, seed=2)
    ours.visible[:], theirs.visible[:] = True, True
    every_other = Tracks(theirs.places[::2], theirs.visible[::2])
    assert fidelity(ours, theirs, 0.2) == fidelity(ours, every_other, 0.2)
    assert fidelity(theirs, ours, 0.2) == fidelity(every_other, ours, 0.2)


def test_the_released_form_never_gives_100_to_a_video_and_itself():
    """0.44 of independent tracks, as for those of another video: the identity matrix takes away
    the true match of each."""
    ours, others = (np.random.default_rng(seed).normal(0, 3, (17, 300, 2)) for seed in (1, 2))
    ours, others = (Tracks(each.cumsum(0), np.ones((17, 300), bool)) for each in (ours, others))
    itself = released(ours, ours)
    assert 35 < itself < 60
    assert itself == pytest.approx(released(ours, others), abs=3)
    assert fidelity(ours, ours, 0.0).both == pytest.approx(1)
    assert fidelity(ours, others, 0.0).both < 0.6


def test_the_released_form_is_its_formula_in_one_direction():
    rng = np.random.default_rng(0)
    ours, theirs = (Tracks(rng.normal(0, 5, (t, 4, 2)), np.zeros((t, 4), bool)) for t in (4, 6))
    best = []
    for n in range(4):
        agreements = []
        for m in range(4):
            total = 0.0
            for t in range(3):  # what the video lacks agrees with nothing, and counts
                a = ours.places[t + 1, n] - ours.places[t, n]
                b = theirs.places[t + 1, m] - theirs.places[t, m]
                total += a @ b / (np.hypot(*a) * np.hypot(*b))
            agreements.append(total / 5 - (n == m))
        best.append(max(agreements))
    assert released(ours, theirs) == pytest.approx(100 * np.mean(best), abs=1e-9)
    assert released(theirs, ours) is None  # where the released code stops


def test_one_step_without_length_in_the_reference_makes_the_released_form_0():
    ours, theirs = walks(9, 5, seed=1), walks(9, 5, seed=2)
    for tracks in (ours, theirs):
        tracks.places[:] = np.random.default_rng(3).normal(0, 5, tracks.places.shape)
    assert released(ours, theirs) != 0
    theirs.places[4, 2] = theirs.places[3, 2]
    assert released(ours, theirs) == 0


def test_the_released_form_has_a_name_of_its_own(clip):
    spec = MotionFidelity(motion=clip, grid=5, compat="jointtuner")
    assert list(measured(spec, moving(RIGHT))) == ["lucas_kanade_jointtuner"]
