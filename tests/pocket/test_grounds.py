"""Backgrounds are found, and a leak is the share that has leaked."""

import numpy as np
import pytest
from attrs import evolve

from jtplugins.pocket.held_out import SUBJECTS
from jtplugins.pocket.measure.films import Case, film, through_codec
from jtplugins.pocket.measure.films import true as true_film
from jtplugins.pocket.measure.grounds import (
    BACKGROUNDS,
    adherence,
    find_background,
    ground_map,
    leak,
)
from jtplugins.pocket.sprites import Background, Shape
from jtplugins.pocket.world import Scene

GRAY, NAVY = Background("gray"), Background("navy", "checkered")


def case_of(background: Background, motion: str = "eightwise") -> Case:
    scene = Scene(SUBJECTS["wug"], motion, "mid", background)
    return Case(scene, Shape("square", "orange"), (NAVY,), seed=0)


@pytest.mark.parametrize("background", BACKGROUNDS, ids=lambda background: background.words)
def test_a_background_adheres_to_itself_and_to_no_other(background):
    video = through_codec(true_film(case_of(background)))
    assert find_background(video) == background
    assert adherence(video, background) > 0.9
    for other in BACKGROUNDS:
        if other != background:
            assert adherence(video, other) < 0.1
            assert leak(video, other, [background]) > 0.9
            assert leak(video, background, [other]) < 0.05


BLENDS = [  # what is asked, what a clip has
    (Background("teal"), Background("brown", "checkered")),
    (Background("teal"), Background("navy")),
    (GRAY, NAVY),
    (Background("olive", "dotted"), Background("plum", "dotted")),
    (Background("black", "striped"), Background("gray")),
]
SHARES = np.linspace(0, 1, 6)


@pytest.mark.parametrize(("asked", "clip"), BLENDS, ids=lambda background: background.words)
def test_background_leak_is_the_share_of_the_clips_in_a_blend(asked, clip):
    own, other = (true_film(case_of(ground)) for ground in (asked, clip))
    blends = [through_codec((1 - share) * own + share * other) for share in SHARES]
    np.testing.assert_allclose([leak(video, asked, [clip]) for video in blends], SHARES, atol=0.1)


@pytest.mark.parametrize("share", [0.5, 1])
@pytest.mark.parametrize("shown", [Background("teal", "checkered"), Background("navy")], ids=str)
def test_a_pattern_or_a_colour_leaks_alone(shown, share):
    asked = Background("teal")
    own, other = (true_film(case_of(ground)) for ground in (asked, shown))
    video = through_codec((1 - share) * own + share * other)
    assert leak(video, asked, [NAVY]) == pytest.approx(share, abs=0.1)
    assert leak(video, asked, [Background("brown", "striped")]) < 0.1


def test_what_lies_in_the_direction_of_a_clip_is_no_leak():
    asked, clip = Background("teal"), Background("navy")
    video = true_film(case_of(Background("black")))
    assert leak(video, asked, [clip]) < 0.1


@pytest.mark.parametrize("shift", [-0.1, 0.1])
def test_another_brightness_is_no_pattern(shift):
    video = true_film(case_of(Background("teal"))) + shift
    assert leak(video.clip(0, 1), Background("teal"), [Background("teal", "checkered")]) < 0.05


def test_a_blended_ground_is_ground_and_the_object_is_not():
    for one in BACKGROUNDS:
        for other in BACKGROUNDS:
            empty = (film([], one) + film([], other))[:, :1] / 2
            assert ground_map(empty, one).all()
    case = case_of(Background("teal"), motion="stays")
    blend = (
        true_film(case) + true_film(evolve(case, scene=evolve(case.scene, background=NAVY)))
    ) / 2
    inside = ~ground_map(blend, Background("teal"))[0]
    assert inside.sum() == 12 * 12
    assert inside[8:16, 8:16].all()
