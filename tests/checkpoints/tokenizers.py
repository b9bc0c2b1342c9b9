"""Real tokenizers, trained on a few words: as the hub's, but for their size."""

import json
from collections.abc import Iterable

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer, T5Tokenizer

WORDS = (
    "a the one two of in on and with is are not very man woman wug dog cat ball ring bear toy green"
    " red blue white dark light small large grass sand beach water sky city street night day sun"
    " plays guitar rides bicycle jumps runs turns moves spins left right up down slowly fast"
    " along around over video picture scene style camera blurry bad quality low worst"
)
LETTERS = "a b c d e f g h i j k l m n o p q r s t u v w x y z 0 1 2 3 4 5 6 7 8 9 . , ! ? ' - :"
CORPUS = (
    WORDS,
    LETTERS,
    LETTERS.upper(),
)  # every letter ends a word: elsewhere BPE would not know it as an ending

ENCODER = {  # the T5 that reads them
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 37,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "feed_forward_proj": "gated-gelu",
}


def build_t5_tokenizer(corpus: Iterable[str] = CORPUS, length: int = 226) -> T5Tokenizer:
    """Unigrams, as T5's; <pad> is 0, </s> is 1, <unk> is 2."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True),
        ]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=256,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    vocabulary = json.loads(tokenizer.to_str())["model"]["vocab"]
    pieces = [(piece, score) for piece, score in vocabulary]
    return T5Tokenizer(vocab=pieces, extra_ids=4, model_max_length=length)


def build_clip_tokenizer(corpus: Iterable[str] = CORPUS, length: int = 77) -> CLIPTokenizer:
    """Pairs of bytes, as CLIP's; <|startoftext|> is 0, <|endoftext|> is 1 and pads."""
    own = CLIPTokenizer().backend_tokenizer
    tokenizer = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = own.normalizer, own.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in trained["merges"]]
    return CLIPTokenizer(vocab=trained["vocab"], merges=merges, model_max_length=length)
