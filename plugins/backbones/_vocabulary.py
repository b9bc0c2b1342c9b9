"""How tokenizers and text encoders of checkpoints take single words."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from attrs import frozen

from jtcore import JtError

from ._words import covering

if TYPE_CHECKING:  # importing transformers costs seconds
    import torch
    from torch import nn
    from transformers import PreTrainedTokenizerFast

    from jtcore.types import RowEncoder

    from ._pretrained import Parts


@frozen(eq=False)
class Words:
    """A vocabulary: a tokenizer, the width of its vectors, and the encoder that reads them"""

    tokenizer: Callable[[], PreTrainedTokenizerFast]
    width: Callable[[], int]
    load: Callable[[torch.device], RowEncoder]
    clean: Callable[[str], str] = str  # what is made of a prompt before it is split

    def pieces(self, text: str) -> int:
        """How many tokens spell `text`. Raises JtError where some of it has none."""
        tokenizer, found = self.tokenizer(), self._spelt(self.clean(text))
        if not found or (tokenizer.unk_token_id in found and not _ends_texts(tokenizer)):
            raise JtError(f"the text encoder has no tokens for {text!r}")
        return len(found)

    def places(self, prompt: str, start: int, end: int) -> tuple[int, ...]:
        """The tokens of the characters [start, end), counted with those that mark the beginning.
        Raises JtError where they are spelt otherwise than alone."""
        tokenizer, whole, text = self.tokenizer(), self.clean(prompt), self.clean(prompt[start:end])
        begin = len(self.clean(f"{prompt[:start]}|")) - 1  # with the space before them
        found = covering(tokenizer, whole, [(begin, begin + len(text))])
        ids = tokenizer(whole, verbose=False).input_ids
        if [ids[token] for token in found] != self._spelt(text):
            raise JtError(
                f"in {prompt!r}, {text!r} is not spelt as alone; set it apart by spaces from what"
                " it touches"
            )
        return found

    def _spelt(self, text: str) -> list[int]:
        return self.tokenizer()(text, add_special_tokens=False).input_ids


def words_of(
    parts: Parts,
    tokenizer: Callable[[], PreTrainedTokenizerFast],
    width: str,
    load: Callable[[torch.device], RowEncoder],
    clean: Callable[[str], str] = str,
) -> Words | None:
    """Those of a checkpoint, whose text encoder calls the width of its vectors `width`; random
    weights have none."""
    if parts.random:
        return None
    return Words(tokenizer, lambda: parts.config("text_encoder")[width], load, clean)


def checkpoint_layers(layers: Iterable[nn.Module]) -> None:
    """Keep of each layer its inputs alone, and run it again for backward."""
    from torch.utils.checkpoint import checkpoint

    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def _ends_texts(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether what stands for the unknown is what ends a text, as in CLIP, which spells all."""
    return tokenizer.unk_token_id == tokenizer.eos_token_id
