"""Spectra of a run's previews in TensorBoard."""

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jtcore.media import write_video
from jtplugins.observers.spectra import measure


def test_each_preview_of_a_run_is_told_of(trained):
    events = EventAccumulator(str(trained / "tensorboard" / "spectra"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {tag.split("/")[1] for tag in tags} == {"moving", "fine"}
    for tag in tags:
        (told,) = events.Scalars(tag)
        assert told.step == 2
        (video,) = (trained / "previews").rglob("*.mp4")
        assert told.value == pytest.approx(measure(video)[tag.split("/")[1]], rel=1e-5)


def test_a_still_video_does_not_move_and_a_flicker_is_nothing_else(tmp_path):
    still = torch.rand(3, 1, 32, 32).expand(3, 4, 32, 32)
    write_video(tmp_path / "still.mp4", still, 8)
    assert measure(tmp_path / "still.mp4")["moving"] < 0.02  # what the codec makes of it
    flicker = torch.tensor([0.2, 0.8, 0.2, 0.8]).view(1, 4, 1, 1).expand(3, 4, 32, 32)
    write_video(tmp_path / "flicker.mp4", flicker, 8)
    found = measure(tmp_path / "flicker.mp4")
    assert found["moving"] > 0.98
    assert found["fine"] < 0.02


def test_of_a_video_that_is_the_same_all_over_there_is_nothing_to_tell(tmp_path):
    write_video(tmp_path / "black.mp4", torch.zeros(3, 4, 32, 32), 8)
    assert measure(tmp_path / "black.mp4") == {}
