"""What a prompt asks for is what its caption was made of, and nothing that it does not say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jtplugins.pocket.captions import RARE, CaptionNoise, caption, noisy_caption
from jtplugins.pocket.creatures import assemble
from jtplugins.pocket.held_out import NAMEABLE, SUBJECTS
from jtplugins.pocket.motions import HELD_OUT, PHRASES
from jtplugins.pocket.prompts import Wish, read_prompt
from jtplugins.pocket.sprites import Background, Shape
from jtplugins.pocket.world import Scene, draw_scene

SEEDS = st.integers(0, 2**32 - 1)
WUG = SUBJECTS["wug"]


@given(SEEDS)
def test_a_caption_is_read_back(seed):
    scene = draw_scene(np.random.default_rng(seed))
    sprite = scene.sprite if isinstance(scene.sprite, Shape) or scene.sprite.parts else None
    wish = Wish(sprite, scene.motion, scene.anchor, scene.background)
    assert read_prompt(caption(scene)) == wish


@given(SEEDS)
def test_what_a_noisy_caption_leaves_out_is_not_made_up(seed):
    rng = np.random.default_rng(seed)
    scene = draw_scene(rng)
    noise = CaptionNoise(empty=0.1, rare=0.3, part=0.3, layout=0.2, background=0.3, place=0.3)
    wish = read_prompt(noisy_caption(scene, noise, rng))
    assert wish.sprite in (None, scene.sprite)
    assert wish.motion in (None, scene.motion, *HELD_OUT)  # a rare word may be one's name
    assert wish.anchor in (None, scene.anchor)
    assert wish.background in (None, scene.background)


@pytest.mark.parametrize("motion", [*PHRASES, *HELD_OUT])
def test_every_phrase_of_a_motion_is_known(motion):
    for phrase in (PHRASES | HELD_OUT)[motion]:
        assert read_prompt(f"a red ball {phrase} at mid on gray").motion == motion


@pytest.mark.parametrize("name", NAMEABLE)
def test_a_creature_of_named_parts_is_determined(name):
    scene = Scene(SUBJECTS[name], "left", "mid", Background("gray"))
    assert read_prompt(caption(scene)).sprite == SUBJECTS[name]


@pytest.mark.parametrize(
    ("prompt", "wish"),
    [
        ("", Wish()),
        ("a dog plays guitar", Wish()),
        ("a red ball", Wish(Shape("ball", "red"))),
        ("A red ball, moves left.", Wish(Shape("ball", "red"), "left")),
        ("a ball on teal", Wish(background=Background("teal"))),
        ("a ball on dotted teal", Wish(background=Background("teal", "dotted"))),
        ("a ball on dotted", Wish()),
        ("a ball on dotted red", Wish()),
        ("a ball on the teal", Wish()),
        ("a ball at teal on mid", Wish()),
        ("a red blue-trimmed creature", Wish()),
        ("a red creature stays", Wish(motion="stays")),
        ("a red ball and a blue ring stays", Wish(motion="stays")),
        ("a red ball moves", Wish(Shape("ball", "red"))),
        ("a red ball moves up then moves left", Wish(Shape("ball", "red"))),
        ("a sks creature spirals at mid on plum", Wish(None, "spirals", "mid", Background("plum"))),
        ("a red sks ball", Wish()),
        ("a eared snouted belted tailed creature", Wish()),
        ("a red eared snouted belted tailed creature", Wish()),
        ("a red white-trimmed snouted belted tailed creature", Wish()),
        ("a red white-trimmed eared eared snouted belted tailed creature", Wish()),
        ("a red white-trimmed ball", Wish()),
        (
            "a red white-trimmed eared snouted belted tailed creature",
            Wish(assemble("eared snouted belted tailed", ("red", "white"))),
        ),
    ],
)
def test_only_what_is_said_is_asked_for(prompt, wish):
    assert read_prompt(prompt) == wish


def test_a_name_means_its_sprite():
    named = {"sks": WUG, "zwx": SUBJECTS["zot"]}
    assert read_prompt("a sks creature stays", named) == Wish(WUG, "stays")
    assert read_prompt("a red sks", named).sprite == WUG
    assert read_prompt("a sks and a zwx", named).sprite is None
    assert read_prompt("a wug stays", named).sprite is None
    assert "sks" in RARE
