"""Textual inversion: a word whose vectors are trained."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from attrs import field, frozen
from attrs.validators import ge, in_, min_len
from torch import Tensor, nn

from jtcore import JtError, hookimpl
from jtcore.adapter import Adapter
from jtcore.reading import Reading, read
from jtcore.types import Backbone, RowEncoder, Vocabulary

InsertAt = Literal["token_embedding", "encoder_output"]


@frozen
class Token:
    """A word whose vectors are trained, as in textual inversion

    (https://arxiv.org/abs/2208.01618). Wherever a caption or prompt has `word`, the text encoder
    reads `initial` instead, `vectors` times over, and each token of that gets a trained vector. Off
    or at scale 0, prompts mean what they do with `initial`.

    `insert_at = "token_embedding"`: the vectors stand in place of the vocabulary's, which they are
    at first. Captions with the word are encoded anew in each pass, with the text encoder on the
    device beside the denoiser; in training the gradient goes through it, to these vectors alone.
    Scale s makes them initial + s (trained - initial).
    "encoder_output": the vectors, at first 0, times the scale are added to what the encoder
    answers there. It is not loaded for that, and nothing else of the prompt hears of the word.
    """

    word: str = field(validator=min_len(1))
    initial: str = field(validator=min_len(1))
    vectors: int = field(default=1, validator=ge(1))
    insert_at: InsertAt = field(default="token_embedding", validator=in_(get_args(InsertAt)))

    def __attrs_post_init__(self) -> None:
        for name in ("word", "initial"):
            if (said := getattr(self, name)) != " ".join(said.split()):
                raise ValueError(f"{name}: expected words with single spaces, got {said!r}")

    @property
    def reading(self) -> str:
        return " ".join([self.initial] * self.vectors)

    @property
    def replaces(self) -> Mapping[str, str]:
        return {self.word: self.reading}

    def attach(self, backbone: Backbone, others: Mapping[str, Adapter]) -> "TokenAdapter":
        vocabulary = getattr(backbone, "vocabulary", None)
        if vocabulary is None:
            raise JtError(
                "a token is read by the text encoder: random weights have none, and a pipeline asks"
                " its own before the denoiser; sample with jt-sample"
            )
        earlier = [adapter for adapter in others.values() if isinstance(adapter, TokenAdapter)]
        device = next(backbone.denoiser.parameters()).device
        return TokenAdapter(self, vocabulary, earlier[0].fellows if earlier else [], device)


class TokenAdapter(Adapter):
    """The vectors (tokens, E) of one word.

    Words of one prompt must be encoded together: the first `TokenAdapter` that is on in a pass does
    so for all `fellows` on the same backbone.
    """

    varies = True  # no prompt of a batch may have the word

    def __init__(
        self,
        options: Token,
        vocabulary: Vocabulary,
        fellows: list["TokenAdapter"],
        device: torch.device,
    ) -> None:
        super().__init__()
        self.options, self.vocabulary, self.fellows = options, vocabulary, fellows
        self._places: dict[Reading, list[list[int]]] = {}
        shape = vocabulary.pieces(options.reading), vocabulary.width()
        if self.embeds:
            self.encoder = self._load_encoder(device)
            self.register_buffer("initial", self._of_vocabulary(shape, device))
            self.vectors = nn.Parameter(self.initial.clone())
        else:
            self.vectors = nn.Parameter(torch.zeros(shape, device=device))
        fellows.append(self)  # the list is one for all of them

    def told(self, text: Tensor, prompts: Sequence[str]) -> Tensor:  # (B, L, D) -> (B, L, D)
        on = [a for a in self.fellows if a.current is not None and not _is_zero(a.current.scale)]
        if not on or self is not on[0]:
            return text
        readings = [read(prompt, self._replaced) for prompt in prompts]
        text = _encoded(text, readings, [adapter for adapter in on if adapter.embeds])
        text = _added(text, readings, [adapter for adapter in on if not adapter.embeds])
        return _connected(text, on)

    def scalars(self) -> Mapping[str, Tensor]:
        """How far the vectors have come: their mean length, or that of the way from the initial
        ones, in lengths of these."""
        vectors = self.vectors.detach()
        if not self.embeds:
            return {"length": vectors.norm(dim=1).mean()}
        return {"moved": ((vectors - self.initial).norm(dim=1) / self.initial.norm(dim=1)).mean()}

    def text_problems(self, learned: Sequence[str], asked: Sequence[str]) -> list[str]:
        """Captions without the word, or in which it is spelt together with what it touches."""
        word, found = self.options.word, []
        if not any(read(prompt, {word: word}).places for prompt in learned):
            found.append(f"no caption that it is trained on has the word {word!r}")
        for prompt in asked:
            try:
                self.places(read(prompt, self._replaced))
            except JtError as error:
                found += error.problems
        return found

    def checkpoint_gradients(self) -> None:
        if self.embeds and self.encoder is not None:
            self.encoder.checkpoint_gradients()

    @property
    def embeds(self) -> bool:
        return self.options.insert_at == "token_embedding"

    @property
    def reads_text(self) -> bool:
        return self.embeds

    def places(self, reading: Reading) -> list[list[int]]:
        """The tokens of each occurrence of the word, one for each vector. Raises JtError."""
        if reading not in self._places:
            own = [place for place in reading.places if place.word == self.options.word]
            found = [self.vocabulary.places(reading.text, each.start, each.end) for each in own]
            self._places[reading] = [list(tokens) for tokens in found]
        return self._places[reading]

    def scale_of(self, sample: int) -> float | Tensor:
        """Of one sample of the pass; a tensor is ()."""
        scale = self.current.scale
        return scale.reshape(-1)[sample] if isinstance(scale, Tensor) else scale

    @property
    def _replaced(self) -> dict[str, str]:
        return {adapter.options.word: adapter.options.reading for adapter in self.fellows}

    def _load_encoder(self, device: torch.device) -> RowEncoder | None:
        """One for all fellows; none where there are no weights."""
        if device.type == "meta":
            return None
        there = [adapter.encoder for adapter in self.fellows if adapter.embeds]
        return there[0] if there else self.vocabulary.load(device)

    def _of_vocabulary(self, shape: tuple[int, int], device: torch.device) -> Tensor:
        """What is read in the word's place: `shape` (tokens, E), float32."""
        if self.encoder is None:
            return torch.empty(shape, device=device)
        text = self.options.reading
        vectors = self.encoder.vectors([text])[0].float()
        return vectors[list(self.vocabulary.places(text, 0, len(text)))].clone()


def _encoded(
    text: Tensor, readings: Sequence[Reading], adapters: Sequence[TokenAdapter]
) -> Tensor:  # (B, L, D) -> (B, L, D)
    """With what the encoder answers to the adapters' vectors, where a prompt has their words;
    prompts that are told alike are encoded once."""
    places = {
        i: [(a, a.places(r)) for a in adapters if a.places(r)] for i, r in enumerate(readings)
    }
    touched = [sample for sample, found in places.items() if found]
    if not touched:
        return text
    scaled_alike = not any(isinstance(adapter.current.scale, Tensor) for adapter in adapters)
    keys = [readings[sample] if scaled_alike else sample for sample in touched]
    firsts = dict(zip(reversed(keys), reversed(touched), strict=True))
    texts = [readings[sample].text for sample in firsts.values()]
    encoder = adapters[0].encoder
    vectors = encoder.vectors(texts).float()
    for row, sample in enumerate(firsts.values()):
        for adapter, found in places[sample]:
            scale = torch.as_tensor(adapter.scale_of(sample)).to(vectors)
            for tokens in found:
                vectors[row, tokens] = torch.lerp(adapter.initial, adapter.vectors, scale)
    answers = encoder.encode(vectors, texts).to(text.dtype)
    rows = list(firsts)
    text = text.clone()
    text[touched] = answers[[rows.index(key) for key in keys]].to(text.device)
    return text


def _added(
    text: Tensor, readings: Sequence[Reading], adapters: Sequence[TokenAdapter]
) -> Tensor:  # (B, L, D) -> (B, L, D)
    """With the adapters' vectors added where a prompt has their words, in float32."""
    if not any(adapter.places(reading) for adapter in adapters for reading in readings):
        return text
    text = text.float().clone()
    for adapter in adapters:
        for sample, reading in enumerate(readings):
            for tokens in adapter.places(reading):
                text[sample, tokens] += adapter.scale_of(sample) * adapter.vectors
    return text


def _connected(text: Tensor, adapters: Sequence[TokenAdapter]) -> Tensor:
    """Where all vectors are trained in vain, for no prompt of the batch has their words, there is a
    gradient still, of zeros."""
    trained = [adapter.vectors for adapter in adapters if adapter.vectors.requires_grad]
    if not trained or text.requires_grad or not torch.is_grad_enabled():
        return text
    return text + sum(0 * vectors.sum() for vectors in trained)


def _is_zero(scale: float | Tensor) -> bool:
    return not isinstance(scale, Tensor) and scale == 0


@hookimpl
def jt_adapters() -> dict[str, type]:
    return {"token": Token}
