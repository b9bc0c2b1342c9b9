"""What is measured of a video is what its scene truly is, for any scene of the world."""

from itertools import pairwise

import numpy as np
import pytest
from attrs import evolve
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jtplugins.pocket.held_out import SUBJECTS
from jtplugins.pocket.measure.films import (
    Case,
    exchanged,
    film,
    frozen_object,
    jittering,
    look_alike,
    opposite,
    through_codec,
    two_objects,
    with_sprite,
)
from jtplugins.pocket.measure.films import true as true_film
from jtplugins.pocket.measure.grounds import adherence, find_background, ground_map, leak
from jtplugins.pocket.measure.identity import distractors, identify, telling
from jtplugins.pocket.measure.likeness import draw, likeness
from jtplugins.pocket.measure.paths import (
    APART,
    MOTIONS,
    is_on_path,
    motion_score,
    path_error,
    seen,
    separation,
    steadiness,
)
from jtplugins.pocket.measure.performers import appearance_leak
from jtplugins.pocket.measure.success import Success, has_sprite, judge
from jtplugins.pocket.measure.tracking import colours_of, count_objects, track
from jtplugins.pocket.motions import ANCHORS, path
from jtplugins.pocket.sprites import SHAPES, Background, Shape
from jtplugins.pocket.tones import COLOURS
from jtplugins.pocket.world import FRAMES, SIZE, Scene, draw_scene, render

GRAY, NAVY = Background("gray"), Background("navy", "checkered")
RIVAL = Shape("square", "orange")
SEEDS = st.integers(0, 2**32 - 1)


def scene_of(seed: int) -> Scene:
    """Any scene on an anchor, of a held-out or a known sprite."""
    rng = np.random.default_rng(seed)
    scene = draw_scene(rng)
    sprites = [scene.sprite, *SUBJECTS.values()]
    motion = MOTIONS[rng.integers(len(MOTIONS))]
    return evolve(scene, sprite=sprites[rng.integers(len(sprites))], motion=motion)


def case_of(name: str, motion: str = "eightwise", background: Background = GRAY) -> Case:
    return Case(Scene(SUBJECTS[name], motion, "mid", background), RIVAL, (NAVY,), seed=0)


def pixels(scene: Scene) -> np.ndarray:  # (3, F, H, W) in [0, 1]
    return render([scene])[0] / 2 + 0.5


def nearest_motion(track: np.ndarray) -> tuple[str | None, float]:
    """The motion whose path is nearest, and its error in px; None and nan without an object."""
    if not seen(track):
        return None, np.nan
    errors = {motion: path_error(track, motion) for motion in MOTIONS}
    nearest = min(errors, key=errors.get)
    return nearest, errors[nearest]


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_an_exact_scene_is_found_without_error(seed):
    scene = scene_of(seed)
    video, background = pixels(scene), scene.background
    assert find_background(video) == background
    assert nearest_motion(track(video, background)) == (scene.motion, pytest.approx(0, abs=0.1))
    assert (count_objects(video, background) == 1).all()
    assert set(colours_of(video, background)) >= set(scene.sprite.look.split()[:1])
    found = likeness(video, scene.sprite, background)
    np.testing.assert_allclose(found.correlation, 1, atol=1e-4)
    np.testing.assert_array_equal(found.places, scene.centres())
    np.testing.assert_array_equal(found.scales, 1)
    assert has_sprite(video, scene.sprite)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_what_the_codec_leaves_of_a_scene_is_that_scene(seed):
    scene = scene_of(seed)
    video, background = through_codec(pixels(scene)), scene.background
    assert find_background(video) == background
    assert adherence(video, background) > 0.9
    assert nearest_motion(track(video, background)) == (scene.motion, pytest.approx(0, abs=0.3))
    assert steadiness(track(video, background)) > 0.7
    assert (count_objects(video, background) == 1).all()
    found = likeness(video, scene.sprite, background)
    assert np.linalg.norm(found.places - scene.centres(), axis=1).mean() < 0.1


@settings(max_examples=30, deadline=None)
@given(SEEDS, SEEDS)
def test_another_scene_is_not_taken_for_this_one(seed, other):
    scene, shown = scene_of(seed), scene_of(other)
    video = through_codec(pixels(shown))
    own = motion_score(track(video, shown.background), scene.motion) > 0.5
    assert own == (shown.motion == scene.motion)
    assert (adherence(video, scene.background) > 0.5) == (shown.background == scene.background)
    if has_sprite(video, scene.sprite):
        assert shown.sprite.kind == scene.sprite.kind


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(-3, 3), st.integers(-3, 3))
@example(5850895, 2, 0)  # off by 0.2 px: a pattern's tones stand out from a cell by more or less
def test_a_track_follows_whole_pixels(seed, y, x):
    assert moved(seed, (y, x)) == pytest.approx((y, x), abs=0.3)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.floats(-3, 3), st.floats(-3, 3))
def test_a_track_follows_parts_of_pixels_by_less_than_motions_differ(seed, y, x):
    assert np.linalg.norm(moved(seed, (y, x)) - (y, x)) < APART


def moved(seed: int, by: tuple[float, float]) -> np.ndarray:  # (2,) px
    """How far a sprite was seen to move that was moved `by` so many px."""
    scene = evolve(scene_of(seed), anchor="mid", motion="stays")
    one, other = (pixels(evolve(scene, offset=offset)) for offset in ((0.0, 0.0), by))
    return (track(other, scene.background) - track(one, scene.background))[0]


def test_drawing_agrees_with_the_world():
    scene = Scene(SUBJECTS["wug"], "left", "top", NAVY, (0.2, -0.4))
    video = film([(scene.sprite, scene.centres())], scene.background)
    np.testing.assert_allclose(video, pixels(scene), atol=1e-5)


@pytest.mark.parametrize("scale", [0.8, 1.0, 1.25])
def test_a_sprite_is_found_at_its_scale_and_place(scale):
    place = np.array([11.5, 13.0])
    drawn = draw(SUBJECTS["wug"], place, scale, SIZE)
    video = (drawn[:3] + GRAY.pixels(SIZE) * (1 - drawn[3:]))[:, None]
    found = likeness(video, SUBJECTS["wug"], GRAY)
    assert found.scales == [scale]
    assert found.places[0] == pytest.approx(place)
    assert found.correlation[0] == pytest.approx(1, abs=1e-4)


def test_where_nothing_is_there_is_no_track_no_motion_and_no_likeness():
    video = film([], NAVY)
    assert np.isnan(track(video, NAVY)).all()
    assert nearest_motion(track(video, NAVY))[0] is None
    assert motion_score(track(video, NAVY), "stays") == steadiness(track(video, NAVY)) == 0
    assert identify(video, SUBJECTS["wug"], NAVY).score == 0
    assert appearance_leak(video, SUBJECTS["wug"], [RIVAL], NAVY) == 0
    assert colours_of(video, NAVY) == {}
    assert (count_objects(video, NAVY) == 0).all()


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_path_is_nearest_to_itself_wherever_it_is(motion):
    moved = path(motion, FRAMES) + np.array([9.25, 13.5])
    assert nearest_motion(moved) == (motion, pytest.approx(0, abs=1e-5))
    assert motion_score(moved, motion) == pytest.approx(1, abs=1e-5)
    others = [motion_score(moved, other) for other in MOTIONS if other != motion]
    assert max(others) == pytest.approx(0, abs=1e-5)


@given(st.sampled_from(MOTIONS), SEEDS, st.floats(0, 2))
def test_above_one_half_no_other_motion_is_nearer(motion, seed, size):
    noise = np.random.default_rng(seed).standard_normal((FRAMES, 2))
    track = path(motion, FRAMES) + size * noise
    for other in MOTIONS:
        if motion_score(track, other) > 0.5:
            assert nearest_motion(track)[0] == other


@pytest.mark.parametrize("motion", [motion for motion in MOTIONS if motion != "stays"])
def test_an_object_that_stands_does_not_move(motion):
    assert motion_score(np.full((FRAMES, 2), 12.0), motion) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("frames", range(2, FRAMES))
@pytest.mark.parametrize("motion", MOTIONS)
def test_a_shorter_clip_is_compared_to_the_beginning(motion, frames):
    assert motion_score(path(motion, frames) + 12, motion) == 1
    assert separation(motion, frames) >= APART


def test_half_of_the_frames_without_an_object_cost_half():
    half = path("left", FRAMES) + 12
    half[::2] = np.nan
    assert motion_score(half, "left") == pytest.approx(0.5)
    assert steadiness(half) == pytest.approx(0.5)


@pytest.mark.parametrize("missing", [[0], [3], [0, 2, 4, 6], [1, 2, 3, 4, 5, 6, 7]])
def test_an_object_that_is_not_in_every_frame_is_on_no_path(missing):
    for motion in ("left", "stays"):
        found = path(motion, FRAMES) + 12
        assert is_on_path(found, motion)
        found[missing] = np.nan
        assert not is_on_path(found, motion)


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_subject_is_itself_and_none_of_its_distractors(name):
    case = case_of(name)
    assert identify(true_film(case), SUBJECTS[name], GRAY).score == 1
    assert identify(through_codec(true_film(case)), SUBJECTS[name], GRAY).score > 0.8
    for other in distractors(SUBJECTS[name]):
        shown = through_codec(with_sprite(case, other))
        assert identify(shown, SUBJECTS[name], GRAY).score < 0.1


def test_correlation_of_colours_alone_would_pass_what_identity_refuses():
    black = Background("black")
    case = case_of("zot", background=black)  # white and pink
    found = identify(through_codec(exchanged(case)), SUBJECTS["zot"], black)
    assert found.correlation > 0.9
    assert found.score == 0


@pytest.mark.parametrize("background", [GRAY, NAVY, Background("black")], ids=str)
def test_white_and_pink_are_told_apart(background):
    tones = np.array([COLOURS["white"], COLOURS["pink"]]) / 255
    added = tones - background.pixels(SIZE).mean((1, 2))
    assert cosine(*added) > 0.9
    assert cosine(*(added @ telling(SUBJECTS["zot"], background))) < 0.75


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_itself_and_no_other_in_its_colour(shape):
    case = case_of("wug")
    for shown in SHAPES:
        video = through_codec(with_sprite(case, Shape(shown, "red")))
        score = identify(video, Shape(shape, "red"), GRAY).score
        assert score > 0.9 if shown == shape else score < 0.1


@pytest.mark.parametrize("colour", COLOURS)
def test_the_colour_of_a_shape_is_found(colour):
    video = through_codec(with_sprite(case_of("wug"), Shape("moon", colour)))
    assert next(iter(colours_of(video, GRAY))) == colour


def growing(corrupt, steps=6) -> list[np.ndarray]:
    return [corrupt(amount) for amount in np.linspace(0, 1, steps)]


def assert_falls(values: list[float], tolerance: float = 0.02) -> None:
    """From near 1 to near 0, never rising by more than `tolerance`."""
    assert all(b <= a + tolerance for a, b in pairwise(values)), values
    assert values[0] > 0.9 and values[-1] < 0.1, values


@pytest.mark.parametrize("name", ["wug", "zot", "fep"])
def test_identity_falls_with_the_share_of_a_look_alike(name):
    case = case_of(name)
    own, other = true_film(case), look_alike(case)
    blends = growing(lambda share: (1 - share) * own + share * other)
    assert_falls([identify(video, SUBJECTS[name], GRAY).score for video in blends])


@pytest.mark.parametrize("name", ["wug", "zot", "fep"])
def test_appearance_leak_is_the_share_of_the_performer(name):
    case = case_of(name)
    own, other = true_film(case), with_sprite(case, RIVAL)
    leaks = [
        appearance_leak((1 - share) * own + share * other, SUBJECTS[name], [RIVAL], GRAY)
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    np.testing.assert_allclose(leaks, [0, 0.25, 0.5, 0.75, 1], atol=0.1)


def test_identity_falls_with_the_part_of_the_subject_that_is_gone():
    case = case_of("wug")
    own, empty = true_film(case), film([], GRAY)

    def cut(share: float) -> np.ndarray:
        rows = np.arange(SIZE)[:, None] < case.centres[:, 0].min() - 5 + 18 * share
        return np.where(rows, empty, own)

    assert_falls([identify(video, SUBJECTS["wug"], GRAY).score for video in growing(cut)])


@pytest.mark.parametrize("motion", ["left", "eightwise", "squares"])
def test_motion_and_steadiness_fall_as_jitter_grows(motion):
    case = case_of("wug", motion)
    tracks = growing(lambda share: track(jittering(case, 3 * share), GRAY))
    assert_falls([motion_score(each, motion) for each in tracks], tolerance=0.1)
    assert_falls([steadiness(each) for each in tracks], tolerance=0.1)


def test_adherence_falls_and_leak_grows_by_the_area_that_leaks():
    case = case_of("wug", motion="stays")
    own, other = true_film(case), true_film(evolve(case, scene=evolve(case.scene, background=NAVY)))

    def leaked(share: float) -> np.ndarray:
        return np.where(np.arange(SIZE) < SIZE * share, other, own)

    videos = growing(leaked, 7)
    assert_falls([adherence(video, GRAY) for video in videos])
    assert_falls([1 - leak(video, GRAY, [NAVY]) for video in videos])


def test_everything_falls_under_growing_noise():
    case = case_of("wug")
    noise = np.random.default_rng(0).standard_normal(true_film(case).shape)
    videos = growing(lambda share: (true_film(case) + 0.6 * share * noise).clip(0, 1))
    assert_falls(
        [identify(video, SUBJECTS["wug"], find_background(video)).score for video in videos]
    )
    assert_falls([adherence(video, GRAY) for video in videos])
    assert_falls([motion_score(track(v, find_background(v)), "eightwise") for v in videos])


def test_two_objects_are_counted():
    case = case_of("wug")
    assert (count_objects(true_film(case), GRAY) == 1).all()
    assert (count_objects(through_codec(two_objects(case)), GRAY) == 2).all()


TWO_PLACES = [
    ((12, 5), (12, 19)),
    ((5, 5), (19, 19)),
    ((5, 19), (19, 5)),
    ((12, 6), (12, 18)),
    ((5, 12), (19, 12)),
]


@pytest.mark.parametrize("places", TWO_PLACES, ids=str)
@pytest.mark.parametrize("sprite", [Shape("square", "red"), SUBJECTS["wug"]], ids=["square", "wug"])
def test_two_that_are_alike_are_two_and_the_first_is_followed(sprite, places):
    one, two = (np.full((FRAMES, 2), place, float) for place in places)
    both = film([(sprite, one), (sprite, two)], GRAY)
    assert (count_objects(both, GRAY) == 2).all()
    assert (count_objects(through_codec(both), GRAY) == 2).all()
    alone = track(film([(sprite, one)], GRAY), GRAY)
    np.testing.assert_allclose(track(both, GRAY), alone, atol=0.01)
    around = ~ground_map(both, GRAY)[0]
    assert around[places[0]] and not around[places[1]]


def test_two_that_touch_are_two():
    parts = [(Shape("square", "red"), np.full((FRAMES, 2), place)) for place in (8.0, 16.0)]
    assert (count_objects(film(parts, GRAY), GRAY) == 2).all()


def test_a_second_object_does_not_change_the_colours_of_the_first():
    ball, square = Shape("ball", "blue"), Shape("square", "red")
    alone = film([(square, np.full((FRAMES, 2), 6.0))], GRAY)
    both = film([(square, np.full((FRAMES, 2), 6.0)), (ball, np.full((FRAMES, 2), 18.0))], GRAY)
    first, second = (colours_of(video, GRAY) for video in (alone, both))
    largest = {"red", "blue"} & {colour for colour, share in second.items() if share > 0.01}
    assert len(largest) == 1 and len([share for share in first.values() if share]) == 1
    kept = next(sprite for sprite in (ball, square) if {sprite.colour} == largest)
    assert identify(both, kept, GRAY).colours > 0.95


def test_the_opposite_is_steady_and_another_motion():
    case = case_of("wug")
    found = track(through_codec(opposite(case)), GRAY)
    assert motion_score(found, "eightwise") == 0
    assert steadiness(found) > 0.8


def test_a_frozen_object_is_steady_and_stays():
    found = track(through_codec(frozen_object(case_of("wug"))), GRAY)
    assert nearest_motion(found)[0] == "stays"
    assert steadiness(found) == pytest.approx(1)


def test_error_is_mean_distance_at_the_best_place():
    off = path("left", FRAMES) + 7
    off[:, 0] += np.tile([1, -1], FRAMES // 2)
    assert path_error(off, "left") == pytest.approx(1)


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("name", SUBJECTS)
def test_a_subject_through_the_codec_succeeds_at_every_place(name, anchor):
    scene = Scene(SUBJECTS[name], "spirals", anchor, NAVY)
    found = judge(through_codec(pixels(scene)), scene.sprite, "spirals", NAVY)
    assert found == Success(identity=True, motion=True, background=True, single=True)
    assert found.all
