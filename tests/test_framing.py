from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jtcore.decode import Timeline
from jtcore.errors import JtError
from jtcore.framing import choose_clips, fit, flip, share_cropped

FILE = Path("clip.mp4")


def steady(count, fps=10.0):
    return Timeline(FILE, tuple(index / fps for index in range(count)), count / fps)


def test_without_fps_or_stride_a_clip_is_spread_over_the_file():
    assert choose_clips(steady(8), 4) == [(1, 3, 5, 7)]


def test_as_many_frames_as_there_are_are_all_taken():
    assert choose_clips(steady(250, 25), 250) == [tuple(range(250))]


def test_one_frame_is_the_middle_one():
    assert choose_clips(steady(9), 1) == [(4,)]


def test_clips_of_one_frame_are_spread_over_the_file():
    assert choose_clips(steady(10), 1, clips=5) == [(1,), (3,), (5,), (7,), (9,)]


def test_stride_takes_every_nth_frame():
    assert choose_clips(steady(10), 4, stride=3) == [(0, 3, 6, 9)]


def test_clips_start_evenly_from_the_first_to_the_last_that_fits():
    assert choose_clips(steady(10), 4, stride=2, clips=3) == [
        (0, 2, 4, 6),
        (1, 3, 5, 7),
        (3, 5, 7, 9),
    ]


def test_equal_clips_are_given_once():
    assert choose_clips(steady(4), 4, stride=1, clips=5) == [(0, 1, 2, 3)]


def test_fps_takes_frames_by_time():
    assert choose_clips(steady(10), 5, fps=5) == [(0, 2, 4, 6, 8)]


def test_the_files_own_fps_takes_every_frame():
    assert choose_clips(steady(250, 25), 250, fps=25) == [tuple(range(250))]


def test_the_files_own_fps_takes_every_frame_though_times_are_whole_milliseconds():
    rounded = Timeline(FILE, tuple(round(k / 24, 3) for k in range(48)), 2.0)
    assert choose_clips(rounded, 48, fps=24) == [tuple(range(48))]


def test_with_a_variable_rate_a_frame_is_held_until_the_next_begins():
    held = Timeline(FILE, (0.0, 0.1, 0.5, 0.6), 0.7)
    assert choose_clips(held, 7, fps=10) == [(0, 1, 1, 1, 1, 2, 3)]


def test_clips_by_time_reach_the_end():
    assert choose_clips(steady(20), 3, fps=10, clips=2) == [(0, 1, 2), (17, 18, 19)]


TOO_SHORT = [
    (
        steady(32, 20),
        {"frames": 49},
        "holds 32 frames (1.6 s), expected at least 49; ask for fewer frames",
    ),
    (
        steady(32, 20),
        {"frames": 49, "stride": 2},
        "holds 32 frames (1.6 s), expected at least 97 (49 frames, stride 2); "
        "ask for fewer frames or a smaller stride",
    ),
    (
        steady(32, 20),
        {"frames": 49, "fps": 8.0},
        "holds 32 frames (1.6 s), expected more than 6.0 s (49 frames at 8 fps); "
        "ask for fewer frames or a higher fps",
    ),
    (
        steady(4),
        {"frames": 5},
        "holds 4 frames (0.4 s), expected at least 5; ask for fewer frames",
    ),
    (
        steady(10),
        {"frames": 11, "fps": 10.0},
        "holds 10 frames (1.0 s), expected more than 1.0 s (11 frames at 10 fps); "
        "ask for fewer frames or a higher fps",
    ),
    (
        Timeline(FILE, (0.0,), 0.0),
        {"frames": 5},
        "holds 1 frame, expected at least 5; ask for fewer frames",
    ),
]


@pytest.mark.parametrize(("timeline", "wanted", "message"), TOO_SHORT)
def test_a_short_file_is_told_with_its_length_and_the_cure(timeline, wanted, message):
    with pytest.raises(JtError) as caught:
        choose_clips(timeline, **wanted)
    assert str(caught.value) == (
        f'clip.mp4: {message}, or hold its last frame with short = "repeat"'
    )


@pytest.mark.parametrize(
    ("wanted", "clip"),
    [
        ({}, (0, 1, 2, 2, 2)),
        ({"stride": 2}, (0, 2, 2, 2, 2)),
        ({"fps": 5.0}, (0, 2, 2, 2, 2)),
    ],
)
def test_a_short_file_may_hold_its_last_frame(wanted, clip):
    assert choose_clips(steady(3), 5, short="repeat", **wanted) == [clip]


@given(
    gaps=st.lists(st.floats(0, 2), min_size=1, max_size=30),
    frames=st.integers(1, 40),
    rate=st.one_of(
        st.just({}),
        st.builds(lambda fps: {"fps": fps}, st.floats(0.1, 60)),
        st.builds(lambda stride: {"stride": stride}, st.integers(1, 9)),
    ),
    clips=st.integers(1, 5),
)
@settings(max_examples=200, deadline=None)
def test_clips_of_any_file_have_the_wanted_frames_in_order(gaps, frames, rate, clips):
    starts = [sum(gaps[:index]) for index in range(len(gaps))]
    timeline = Timeline(FILE, tuple(starts), starts[-1] + gaps[-1])
    chosen = choose_clips(timeline, frames, clips=clips, short="repeat", **rate)
    assert 1 <= len(chosen) <= clips
    for clip in chosen:
        assert len(clip) == frames
        assert list(clip) == sorted(clip)
        assert set(clip) <= set(range(len(starts)))


def noise(*shape):
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)


@pytest.mark.parametrize("factor", [1, 2, 3, 7, 8])
def test_what_was_enlarged_by_a_whole_number_comes_back_exactly(factor):
    art = noise(3, 2, 24, 24)
    enlarged = art.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    assert torch.equal(fit(enlarged, (24, 24)), art)


@pytest.mark.parametrize(("height", "width"), [(24, 25), (24, 29), (31, 24)])
def test_cropping_does_not_shift_enlarged_pixels(height, width):
    art = noise(3, 1, height, width)
    enlarged = art.repeat_interleave(6, 2).repeat_interleave(6, 3)
    top, left = (height - 24) // 2, (width - 24) // 2
    assert torch.equal(fit(enlarged, (24, 24)), art[:, :, top : top + 24, left : left + 24])


@pytest.mark.parametrize("size", [(7, 9), (48, 64), (100, 10), (1, 1)])
@pytest.mark.parametrize("shape", [(48, 64), (37, 91), (5, 3)])
def test_any_picture_fits_any_size(shape, size):
    assert fit(noise(1, 2, *shape), size).shape == (1, 2, *size)


def test_the_aspect_ratio_is_kept():
    picture = torch.zeros(1, 1, 100, 200, dtype=torch.uint8)
    picture[:, :, 30:70, 80:120] = 255  # a square in the middle
    shown = fit(picture, (30, 30))[0, 0] > 127
    assert (shown.any(1).sum(), shown.any(0).sum()) == (12, 12)


def test_shrinking_averages_away_what_is_too_fine():
    lines = torch.zeros(1, 1, 90, 90, dtype=torch.uint8)
    lines[:, :, ::2] = 255
    assert (fit(lines, (20, 20))[:, :, 2:-2].float() - 127.5).abs().max() < 16


@pytest.mark.parametrize(("shape", "share"), [((24, 24), 0), ((240, 320), 0.25), ((480, 240), 0.5)])
def test_the_share_that_is_cropped_is_known(shape, share):
    assert share_cropped(*shape, (24, 24)) == pytest.approx(share)


def test_flip_exchanges_left_and_right():
    assert flip(torch.tensor([[1, 2, 3]])).tolist() == [[3, 2, 1]]
