"""Where the words of a phrase are among the tokens of a prompt."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from jtcore import JtError

from ._checkpoint import Checkpoint

if TYPE_CHECKING:  # importing transformers costs seconds
    from transformers import PreTrainedTokenizerFast

BLANK = "▁"  # with which sentence pieces begin a word; alone where no piece has it at its head


def positions(tokenizer: PreTrainedTokenizerFast, prompt: str, phrase: str) -> tuple[int, ...]:
    """The tokens, counted from 0 with those that mark the beginning, that spell `phrase` wherever
    the prompt has it: as whole words, whatever their case. Raises JtError where it has not."""
    words = phrase.split()
    if not words:
        raise JtError("expected a phrase, got one without words")
    spelt = r"\s+".join(map(re.escape, words))
    spans = [match.span() for match in re.finditer(rf"(?<!\w){spelt}(?!\w)", prompt, re.IGNORECASE)]
    if not spans:
        raise JtError(f"the prompt {prompt!r} does not have the phrase {phrase!r}")
    return covering(tokenizer, prompt, spans)


def covering(
    tokenizer: PreTrainedTokenizerFast, prompt: str, spans: Sequence[tuple[int, int]]
) -> tuple[int, ...]:
    """The tokens that stand for characters of a prompt in some of the spans [start, end)."""
    told = tokenizer(prompt, return_offsets_mapping=True, verbose=False)
    pieces = tokenizer.convert_ids_to_tokens(told.input_ids)
    within = [
        any(max(begin, first) < min(end, last) for first, last in spans)
        for begin, end in told.offset_mapping
    ]
    for index, piece in enumerate(pieces[:-1]):
        within[index] |= piece == BLANK and within[index + 1]
    return tuple(index for index, inside in enumerate(within) if inside)


@lru_cache(maxsize=4)
def kept(
    load: Callable[[Checkpoint], PreTrainedTokenizerFast], checkpoint: Checkpoint
) -> PreTrainedTokenizerFast:
    """A tokenizer that is loaded once: it is asked of caption after caption, and costs a second."""
    return load(checkpoint)


def no_tokens(phrase: str) -> JtError:
    """What random weights, which have no tokenizer, answer."""
    return JtError(
        f"random weights have no tokenizer, so the phrase {phrase!r} is nowhere in a prompt"
    )
