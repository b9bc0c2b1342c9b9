"""The tokenizer knows every word of the grammar and fits every caption."""

import numpy as np
import pytest

from jtcore.errors import JtError
from jtplugins.pocket.captions import RARE, CaptionNoise, caption, noisy_caption, sentence
from jtplugins.pocket.held_out import SUBJECTS
from jtplugins.pocket.motions import HELD_OUT
from jtplugins.pocket.sprites import Background
from jtplugins.pocket.text import LENGTH, WIDTH, build_text_encoder, build_tokenizer, embed
from jtplugins.pocket.world import Scene, draw_scene


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def is_covered(tokenizer, text):
    tokens = tokenizer(text).input_ids
    return tokenizer.unk_token_id not in tokens and len(tokens) <= LENGTH


def test_it_covers_captions_of_pretraining(tokenizer):
    rng = np.random.default_rng(0)
    for _ in range(2000):
        text = noisy_caption(draw_scene(rng, 0.0), CaptionNoise(rare=0.2, place=0.2), rng)
        assert is_covered(tokenizer, text), text


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("motion", HELD_OUT)
def test_it_covers_captions_of_what_is_held_out(tokenizer, subject, motion):
    ground = Background("gray", "checkered")
    text = caption(Scene(SUBJECTS[subject], motion, "bottom-right", ground))
    assert is_covered(tokenizer, text), text
    assert all(
        is_covered(tokenizer, sentence(word, "creature", motion, "mid", "teal")) for word in RARE
    )


def test_case_and_full_stop_do_not_matter(tokenizer):
    plain = tokenizer("a red ball stays at mid on gray").input_ids
    assert tokenizer("A red ball stays at mid on gray.").input_ids == plain


def test_a_word_outside_the_grammar_is_unknown(tokenizer):
    assert tokenizer("zebra").input_ids == [tokenizer.unk_token_id, tokenizer.eos_token_id]


def test_words_have_one_meaning_each(tokenizer):
    words = [tokenizer.convert_ids_to_tokens(index) for index in range(len(tokenizer))]
    assert len(set(words)) == len(words)


def test_a_prompt_that_is_too_long_is_refused_and_not_cut(tokenizer):
    encoder = build_text_encoder(len(tokenizer))
    long = " ".join(["red"] * 20)
    with pytest.raises(JtError) as error:
        embed(tokenizer, encoder, ["a red ball", long])
    assert error.value.problems == (f"{long!r} has 20 words; pocket reads 19",)
    assert embed(tokenizer, encoder, ["a red ball", long[4:]]).shape == (2, LENGTH, WIDTH)
