"""Where words are in prompts, and how the video attends to them while losses are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import torch
from attrs import frozen

from jtcore.attention import AttentionTo, Capture
from jtcore.data import known_captions
from jtcore.errors import JtError
from jtcore.reading import read, replaced_words

if TYPE_CHECKING:
    from torch import Tensor

    from jtcore.recipe import Recipe
    from jtcore.types import Backbone, BackboneSpec, Part

Words = Callable[[str, str], tuple[int, ...]]  # tokens of a prompt that spell a phrase
Maps = Mapping[str, "Tensor"]  # by site; each (B, F, H, W) of video tokens


def finder(spec: BackboneSpec, replaced: Mapping[str, str]) -> Words:
    """What `word_positions` of a backbone says of prompts whose `replaced` words are read as what
    they map to. It raises JtError where a prompt has not the phrase."""

    @cache
    def words(prompt: str, phrase: str) -> tuple[int, ...]:
        find = getattr(spec, "word_positions", None)
        if find is None:
            raise JtError("this backbone does not say which tokens of a prompt spell a phrase")
        return find(read(prompt, replaced).text, read(phrase, replaced).text)

    return words


def unknown(prompt: str, phrase: str) -> tuple[int, ...]:
    """Stands for `Words` where nobody asks."""
    raise AssertionError(f"asked for {phrase!r} of {prompt!r}")


@frozen(eq=False)
class Watch:
    """What losses are shown of a part's forwards"""

    capture: Capture
    asked: Mapping[str, AttentionTo]  # by loss
    sites: Mapping[str, Sequence[str]]  # by loss

    def of(self, maps: Mapping[str, Tensor]) -> dict[str, Maps]:
        """By loss, of what a capture recorded."""
        return {
            loss: {site: maps[site][number] for site in self.sites[loss]}
            for number, loss in enumerate(self.asked)
        }

    @contextmanager
    def recording(self) -> Iterator[dict[str, Maps]]:
        """Of one forward; filled when the context has ended."""
        shown: dict[str, Maps] = {}
        with self.capture.recording() as maps:
            yield shown
        shown |= self.of(maps)


@contextmanager
def watching(
    backbone: Backbone, words: Words, asked: Mapping[str, AttentionTo], part: Part
) -> Iterator[Watch | None]:
    """Through the forwards of a part and their backward, see what losses asked for. A caption that
    has lost its phrase, as text dropout makes it lose it, is attended to nowhere: its maps are
    zeros."""
    if not asked:
        yield None
        return
    sites = backbone.text_attentions()
    chosen = {loss: one.choose(sites) for loss, one in asked.items()}
    every = {name: site for each in chosen.values() for name, site in each.items()}
    capture = Capture(every, columns(words, list(asked.values()), part), part.latents.shape[-2:])
    with capture.watching():
        yield Watch(capture, asked, {loss: list(each) for loss, each in chosen.items()})


def columns(words: Words, asked: Sequence[AttentionTo], part: Part) -> Tensor:  # (B, L, P)
    """Even weights of the tokens that spell each phrase."""
    weights = part.text.new_zeros(*part.text.shape[:2], len(asked), dtype=torch.float32)
    for sample, prompt in enumerate(part.prompts):
        for number, one in enumerate(asked):
            try:
                places = words(prompt, one.phrase)
            except JtError:
                continue
            weights[sample, list(places), number] = 1 / len(places)
    return weights


def attention_problems(recipe: Recipe, backbone: Backbone) -> Iterator[str]:
    """Of losses that ask to see attention: sites that are not there, captions without the phrase.
    `backbone` may be without weights."""
    words = finder(recipe.backbone.spec, replaced_words(recipe.adapter))
    for place, branch in recipe.branches.items():
        tables = [recipe.data[name] for name in branch.data]
        for name, term in branch.losses.items():
            asked = getattr(term.loss.spec, "attention", None)
            if asked is None:
                continue
            prompts = known_captions(t for t in tables if term.on in ("all", branch.medium(t)))
            for problem in _problems(asked, backbone, words, prompts):
                yield f"{place}.losses.{name}: {problem}"


def _problems(
    asked: AttentionTo, backbone: Backbone, words: Words, prompts: Iterable[str]
) -> Iterator[str]:
    if not hasattr(backbone, "text_attentions"):
        yield "this backbone does not say where the video attends to the text"
        return
    try:
        asked.choose(backbone.text_attentions())
    except JtError as error:
        yield from error.problems
    for prompt in dict.fromkeys(prompts):
        try:
            words(prompt, asked.phrase)
        except JtError as error:
            yield from error.problems
