"""Where the words of a phrase are among the tokens of a prompt, on real tokenizers."""

import re

import pytest
import torch
from checkpoints import cogvideox
from checkpoints.unet import build_zeroscope
from checkpoints.wan import build_wan
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from jtcore import JtError
from jtplugins.backbones._words import positions
from jtplugins.backbones.cogvideox import CogVideoX
from jtplugins.backbones.pocket import Pocket
from jtplugins.backbones.wan import Wan
from jtplugins.backbones.zeroscope import ZeroScope

BUILDERS = {
    "pocket": lambda folder: Pocket(),
    "cogvideox": lambda folder: CogVideoX(str(cogvideox.build(folder, "5b"))),
    "zeroscope": lambda folder: ZeroScope(str(build_zeroscope(folder, bins=True))),
    "wan": lambda folder: Wan(str(build_wan(folder))),
}


@pytest.fixture(scope="module", params=BUILDERS)
def spec(request, tmp_path_factory):
    return BUILDERS[request.param](tmp_path_factory.mktemp("weights"))


def spelt(spec, prompt: str, phrase: str) -> str:
    """What a fresh reading of the tokens at a phrase's places spells."""
    encoder = spec.load_text_encoder(torch.device("cpu"))
    ids = encoder.tokenizer(prompt).input_ids
    found = encoder.tokenizer.convert_ids_to_tokens([ids[i] for i in places(spec, prompt, phrase)])
    return "".join(found).replace("</w>", " ").replace("▁", " ").strip().lower()


def places(spec, prompt: str, phrase: str) -> tuple[int, ...]:
    return spec.word_positions(prompt, phrase)


@pytest.mark.parametrize("phrase", ["wug", "a wug", "left"])
def test_the_tokens_of_a_phrase_spell_it(spec, phrase):
    prompt = "a wug moves left."
    separator = "" if isinstance(spec, Pocket) else " "  # whose words have no mark of their end
    assert spelt(spec, prompt, phrase) == separator.join(phrase.split())


def test_a_change_of_the_word_changes_what_is_embedded_there_and_before_it_only_if_seen(spec):
    encoder = spec.load_text_encoder(torch.device("cpu"))
    ids = [encoder.tokenizer(f"a {word} moves").input_ids for word in ("wug", "ball")]
    at = places(spec, "a wug moves", "wug")
    assert ids[0][: at[0]] == ids[1][: at[0]]
    assert ids[0][at[-1] + 1 :] == ids[1][places(spec, "a ball moves", "ball")[-1] + 1 :]
    assert ids[0][at[0]] != ids[1][at[0]] or ids[0][at[-1]] != ids[1][at[-1]]


def test_each_occurrence_counts_in_any_case_and_spacing(spec):
    once = places(spec, "a wug moves", "wug")
    twice = places(spec, "a  Wug  moves left wug", "wug")
    assert len(twice) >= 2 * len(once) and twice == tuple(sorted(twice))
    assert spelt(spec, "a  Wug  moves left wug", "wug").replace(" ", "") == "wugwug"
    assert places(spec, "A WUG moves", "a   wug") == places(spec, "A WUG moves", "A WUG")


def test_a_part_of_a_word_is_not_the_word(spec):
    message = "the prompt 'a wug moves' does not have the phrase 'move'"
    with pytest.raises(JtError, match=f"^{re.escape(message)}$"):
        places(spec, "a wug moves", "move")


def test_a_phrase_without_words_is_refused(spec):
    with pytest.raises(JtError, match=r"^expected a phrase, got one without words$"):
        places(spec, "a wug moves", " ")


def test_clip_counts_the_token_that_begins_and_the_others_have_none(spec):
    assert places(spec, "wug moves", "wug")[0] == isinstance(spec, ZeroScope)


def test_a_piece_that_only_begins_a_word_belongs_to_it(tmp_path):
    spec = Wan(str(build_wan(tmp_path)))
    encoder = spec.load_text_encoder(torch.device("cpu"))
    tokens = encoder.tokenizer.tokenize("a moves left")
    found = [tokens[place] for place in places(spec, "a moves left", "left")]
    assert found[0] == "▁" and "".join(found) == "▁left"


@pytest.mark.parametrize("kind", [CogVideoX, Wan, ZeroScope])
def test_random_weights_have_no_words(kind):
    with pytest.raises(JtError, match=r"^random weights have no tokenizer, so the phrase 'wug' is"):
        kind("random").word_positions("a wug", "wug")


def test_a_piece_that_stands_on_the_space_before_a_word_belongs_to_it():
    """So it is where pieces are cut without white space being split off before."""
    pieces = [("<unk>", 0.0), ("▁", -1.0), *((letter, -2.0) for letter in "abcdefgh")]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    assert fast.tokenize("a bad cage") == [*"▁a▁bad▁cage"]
    assert positions(fast, "a bad cage", "bad") == (2, 3, 4, 5)
