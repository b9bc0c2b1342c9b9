"""What the text encoder reads of prompts in which adapters replace words."""

import pytest
from attrs import frozen

from jtcore.errors import JtError
from jtcore.reading import Place, Reading, read, replaced_words
from jtcore.structure import Component


def test_a_prompt_without_replaced_words_is_read_as_it_stands():
    assert read("a  sks dog", {}) == Reading("a  sks dog")
    assert read("a  sks dog", {"<new1>": "dog"}) == Reading("a  sks dog")


def test_each_occurrence_is_replaced_and_found_again():
    reading = read("<new1> and a <new1>, red", {"<new1>": "toy dog"})
    assert reading.text == "toy dog and a toy dog, red"
    assert [reading.text[place.start : place.end] for place in reading.places] == ["toy dog"] * 2
    assert reading.places[0] == Place("<new1>", 0, 7)


@pytest.mark.parametrize("prompt", ["a sksy dog", "asks", "a sks2", "_sks"])
def test_a_part_of_a_word_is_none(prompt):
    assert read(prompt, {"sks": "dog"}) == Reading(prompt)


def test_the_longer_of_two_words_is_taken():
    assert read("<a> <a>b <a> b", {"<a>": "x", "<a> b": "y"}).text == "x <a>b y"


def test_what_is_read_for_a_word_is_not_searched_for_words():
    reading = read("one two", {"one": "two", "two": "three"})
    assert (reading.text, [place.word for place in reading.places]) == ("two three", ["one", "two"])


def test_a_word_of_two_adapters_is_told_with_both():
    @frozen
    class Spec:
        replaces: dict[str, str]

    adapters = {
        name: Component("token", Spec({word: "dog"}))
        for name, word in (("one", "sks"), ("two", "<new1>"), ("three", "sks"))
    }
    with pytest.raises(JtError, match=r"^adapter\.three: 'sks' is a word of adapter\.one too$"):
        replaced_words(adapters)
    del adapters["three"]
    assert replaced_words(adapters) == {"sks": "dog", "<new1>": "dog"}
