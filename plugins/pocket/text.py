"""Words to embeddings: a word-level tokenizer and a T5 encoder of 0.07 M parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jtcore.errors import JtError

from .captions import vocabulary

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast, T5EncoderModel

LENGTH = 20  # tokens of a prompt, the end of sequence included
WIDTH = 64
SPECIAL = ("<pad>", "</s>", "<unk>")


def embed(
    tokenizer: PreTrainedTokenizerFast, network: T5EncoderModel, prompts: Sequence[str]
) -> Tensor:  # (B, L, D)
    """Embeddings of prompts padded to LENGTH, unmasked, as the CogVideoX pipeline has them.

    Raises JtError where one is too long: none is cut.
    """
    import torch

    tokens = tokenizer(list(prompts), padding="max_length", max_length=LENGTH).input_ids
    problems = list(filter(None, map(length_problem, prompts, tokens)))
    if problems:
        raise JtError(problems)
    return network(torch.tensor(tokens, device=network.device))[0]


def length_problem(prompt: str, tokens: Sequence[int]) -> str | None:
    """What to tell of a prompt with more words than are read."""
    if len(tokens) <= LENGTH:
        return None
    return f"{prompt!r} has {len(tokens) - 1} words; pocket reads {LENGTH - 1}"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Split at white space, lower case, end with `</s>`; words outside the grammar are `<unk>`."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    indices = {word: index for index, word in enumerate((*SPECIAL, *vocabulary()))}
    tokenizer = Tokenizer(models.WordLevel(indices, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(".", ""), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", indices["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=LENGTH,
    )


def build_text_encoder(words: int) -> T5EncoderModel:
    """A T5 encoder without dropout for `words` words, randomly initialised, in eval mode."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=words,
        d_model=WIDTH,
        d_kv=16,
        num_heads=4,
        d_ff=2 * WIDTH,
        num_layers=2,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        relative_attention_num_buckets=LENGTH,
        relative_attention_max_distance=LENGTH,
        tie_word_embeddings=False,
        is_encoder_decoder=False,
        use_cache=False,
    )
    return T5EncoderModel(config).eval()
