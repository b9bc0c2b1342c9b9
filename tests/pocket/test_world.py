"""The world draws what its captions say, where it says, and never what is held out."""

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from jtplugins.pocket.captions import CaptionNoise, caption, noisy_caption, sentence
from jtplugins.pocket.creatures import PARTS, Creature, assemble, differing_cells
from jtplugins.pocket.held_out import (
    COMBINATIONS,
    NAMEABLE,
    NAMELESS,
    NEAR,
    PAIRS,
    SUBJECTS,
    assert_is_seen,
)
from jtplugins.pocket.motions import ANCHORS, HELD_OUT, PHRASES, path
from jtplugins.pocket.sprites import CONTRAST, GROUNDS, PATTERNS, SHAPES, Background, Shape
from jtplugins.pocket.tones import COLOURS
from jtplugins.pocket.world import FRAMES, SIZE, Scene, draw_scene, render

GRAY = Background("gray")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**63 - 1))
def test_pretraining_never_shows_what_is_held_out(seed):
    rng = np.random.default_rng(seed)
    for _ in range(50):
        scene = draw_scene(rng, offset=1)
        assert scene.motion not in HELD_OUT
        if isinstance(scene.sprite, Shape):
            assert (scene.sprite.colour, scene.sprite.name) not in COMBINATIONS
        else:
            assert frozenset(scene.sprite.colours) not in PAIRS
            near = [differing_cells(scene.sprite.rows, other.rows) for other in SUBJECTS.values()]
            assert min(near) > NEAR


@pytest.mark.parametrize("name", SUBJECTS)
def test_drawing_a_held_out_subject_in_pretraining_is_refused(name):
    with pytest.raises(AssertionError, match="held-out sprite"):
        assert_is_seen(SUBJECTS[name], "stays")
    with pytest.raises(AssertionError, match="held-out sprite"):
        assert_is_seen(Creature(SUBJECTS[name].rows, ("red", "blue")), "stays")


@pytest.mark.parametrize("motion", HELD_OUT)
def test_drawing_a_held_out_motion_in_pretraining_is_refused(motion):
    with pytest.raises(AssertionError, match="held-out motion"):
        draw_scene(np.random.default_rng(0), motion=motion)


def test_there_are_enough_held_out_subjects_and_motions_of_their_own_colours():
    assert len(SUBJECTS) >= 6
    assert len(HELD_OUT) >= 3
    assert len(PAIRS) == len(SUBJECTS)


def test_no_sprite_is_invisible_on_any_background():
    for colour in COLOURS.values():
        for ground in GROUNDS.values():
            for tone in (np.array(ground), np.array(ground) + CONTRAST):
                assert np.linalg.norm(tone - colour) > 80


@pytest.mark.parametrize("motion", [*PHRASES, *HELD_OUT])
@pytest.mark.parametrize("anchor", ["mid", "top-left", "bottom-right"])
def test_a_sprite_is_drawn_where_its_scene_says(motion, anchor):
    scene = Scene(Shape("ball", "white"), motion, anchor, Background("black"), (0.2, -0.1))
    seen = render([scene])[0].mean(0) - render([scene])[0].min()  # (F, H, W)
    places = np.arange(SIZE) + 0.5
    mass = seen.sum((1, 2))
    centres = np.stack([seen.sum(2) @ places / mass, seen.sum(1) @ places / mass], 1)
    np.testing.assert_allclose(centres, scene.centres(), atol=0.01)


@pytest.mark.parametrize("motion", [*PHRASES, *HELD_OUT])
@pytest.mark.parametrize("anchor", ANCHORS)
def test_a_sprite_never_leaves_the_frame(motion, anchor):
    centres = Scene(Shape("ball", "red"), motion, anchor, GRAY).centres()
    assert centres.min() >= 5 and centres.max() <= SIZE - 5


@pytest.mark.parametrize("motion", [*PHRASES, *HELD_OUT])
def test_an_image_is_the_first_frame_of_a_video(motion):
    scene = Scene(SUBJECTS["wug"], motion, "mid", GRAY)
    np.testing.assert_array_equal(render([scene], 1), render([scene])[:, :, :1])


def test_all_motions_differ():
    paths = [path(motion, FRAMES) for motion in (*PHRASES, *HELD_OUT)]
    for index, one in enumerate(paths):
        for other in paths[:index]:
            offset = (one - one.mean(0)) - (other - other.mean(0))
            assert np.linalg.norm(offset, axis=1).mean() >= 1


def test_a_creature_is_mirrored_and_has_eyes():
    template = SUBJECTS["wug"].template()
    np.testing.assert_array_equal(template, template[:, :, ::-1])
    eyes = (template[3] == 1) & (template[:3].max(0) < 0.1)
    assert eyes.sum() == 2 * 8 * 8


def test_scenes_are_functions_of_the_generator():
    one, two = ([draw_scene(np.random.default_rng(7), 1)] for _ in range(2))
    assert one == two
    np.testing.assert_array_equal(render(one), render(two))


def test_a_caption_says_all_of_a_scene():
    scene = Scene(Shape("moon", "orange"), "clockwise", "top-left", Background("teal", "dotted"))
    assert caption(scene) == "an orange moon circles clockwise at top-left on dotted teal"
    scene = Scene(SUBJECTS["fep"], "eightwise", "mid", GRAY)
    look = SUBJECTS["fep"].look
    assert caption(scene) == f"a {look} creature moves eightwise at mid on gray"


@pytest.mark.parametrize("name", NAMEABLE)
def test_a_caption_names_the_parts_of_a_creature(name):
    creature = SUBJECTS[name]
    assert len(creature.parts) == len(PARTS)
    parts = " ".join(creature.parts)
    assert assemble(parts, creature.colours).rows == creature.rows
    said = caption(Scene(creature, "stays", "mid", GRAY))
    assert said.endswith(f" {creature.look} {parts} creature stays at mid on gray")


@pytest.mark.parametrize("name", NAMELESS)
def test_some_held_out_layouts_have_no_words(name):
    assert SUBJECTS[name].parts == ()
    assert SUBJECTS[name].name == "creature"


def test_what_is_empty_is_left_unsaid():
    assert sentence("", "creature", "stays") == "a creature stays"
    assert sentence("", "eared creature", "stays", "top") == "an eared creature stays at top"
    assert sentence("orange", "ball", "stays", "", "teal") == "an orange ball stays on teal"


def test_noise_leaves_out_what_it_is_told_to():
    rng, scene = np.random.default_rng(0), Scene(Shape("ring", "red"), "stays", "mid", GRAY)
    assert noisy_caption(scene, CaptionNoise(empty=1), rng) == ""
    unplaced = noisy_caption(scene, CaptionNoise(empty=0, rare=0, place=1), rng)
    assert unplaced in ("a red ring stays on gray", "a red ring rests on gray")
    rare = noisy_caption(scene, CaptionNoise(empty=0, rare=1), rng)
    assert "at mid" in rare and not {"red", "ring", "stays", "gray"} & set(rare.split())


def test_noise_leaves_out_parts_of_a_creature():
    rng, scene = np.random.default_rng(0), Scene(SUBJECTS["wug"], "zigzags", "mid", GRAY)
    look, parts = scene.sprite.look, scene.sprite.parts
    none = CaptionNoise(empty=0, rare=0, part=0, layout=0, background=0)
    whole = f"a {look} {' '.join(parts)} creature zigzags at mid on gray"
    assert noisy_caption(scene, none, rng) == whole == caption(scene)
    bare = f"a {look} creature zigzags at mid on gray"
    for noise in (evolve(none, part=1.0), evolve(none, layout=1.0)):
        assert noisy_caption(scene, noise, rng) == bare
    some = {noisy_caption(scene, evolve(none, part=0.5), rng) for _ in range(200)}
    assert len(some) == 2 ** len(parts)


def test_backgrounds_differ():
    grounds = [
        Background(colour, pattern).pixels(SIZE) for colour in GROUNDS for pattern in PATTERNS
    ]
    for index, one in enumerate(grounds):
        for other in grounds[:index]:
            assert abs(one - other).max() > 0.05


def test_shapes_differ():
    masks = [Shape(name, "white").template()[3] for name in SHAPES]
    for index, one in enumerate(masks):
        for other in masks[:index]:
            assert (one * other).sum() / np.sqrt(one.sum() * other.sum()) < 0.92
