"""The types that cross the seam between core and plugins.

Axes: B batch, C channel, F latent frame, H latent row, W latent column, L text token, D text width.
Pixels are (B, 3, frames, height, width) in [-1, 1] towards a codec, in [0, 1] towards a metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from attrs import Factory, frozen

if TYPE_CHECKING:  # commands answer --help before torch is imported
    from pathlib import Path

    import torch
    from torch import Generator, Tensor, nn

    from jtcore.adapter import Adapter
    from jtcore.attention import TextAttention
    from jtcore.diffusion import Levels, Prediction
    from jtcore.noise import Draws
    from jtcore.targets import Targets

Medium = Literal["image", "video"]


@frozen(eq=False)
class Part:
    """Samples of one shape out of a batch: an image latent and a video latent never stack."""

    latents: Tensor  # (B, C, F, H, W), clean
    text: Tensor  # (B, L, D)
    prompts: tuple[str, ...]  # B captions
    stream: str  # the name under [data]
    mask: Tensor | None = None  # (B, 1, F, H, W) in [0, 1]: 1 where the subject is
    files: tuple[int, ...] = ()  # B indices of the samples' files in their stream, if it has any
    reference: Tensor | None = None  # (B, E), of pictures, as the image encoder embeds them

    @property
    def medium(self) -> Medium:
        """An image is a video of one frame."""
        return "image" if self.latents.shape[2] == 1 else "video"


@frozen(eq=False)
class Reference:
    """Pictures that a pass is conditioned on, as an image encoder sees them."""

    embedding: Tensor  # (B, E)
    strength: Tensor  # (B,); at 0 nothing of the condition acts, and no bias of it either


@frozen(eq=False)
class Noised:
    """Latents at some noise level, and what the network was trained to answer there. A backbone
    may put frames before the first, where it cannot do with their number."""

    latents: Tensor  # (B, C, F, H, W), x_t
    times: Tensor  # (B,), the schedule's own unit
    target: Tensor  # (B, C, F, H, W): noise, velocity or flow, as the backbone was trained


@frozen(eq=False)
class Pass:
    """What an adapter is told of one forward pass; it holds through that pass's backward."""

    batch: int  # B, which layers that fold frames or pixels into their first axis cannot see
    scale: float | Tensor = 1.0  # of the adapter; a tensor is (B, 1, ...) and may carry gradient
    files: tuple[int, ...] | None = None  # `Part.files` in training; None elsewhere
    reference: Reference | None = None  # what adapters with an image condition read
    halves: int = 1  # 2 where guidance has two, the negative one first


@frozen(eq=False)
class Site:
    """An attention or a feed-forward on the residual stream of a block.

    `norm` is called with the stream first, and `module` with what it answers; what `module`
    answers is added to the stream, in some networks through a gate.
    """

    norm: nn.Module
    module: nn.Module
    following: tuple[nn.Module, ...]  # the norms of the block's later sites
    block: nn.Module
    depth: int  # of the block, from 0, in the order of `Backbone.blocks`
    width: int  # of the stream
    streams: int = 1  # 2 where text tokens have one of their own, which comes after the video's


@frozen(eq=False)
class Entrance:
    """What a denoiser runs once, before its first block."""

    tokens: tuple[nn.Module, ...]  # each answers (N, L, D), or (N, D, ...) of more axes than three
    time: nn.Module  # answers the embedding of times (B, time_width)
    width: int  # D
    time_width: int


@frozen
class Step:
    """Where a run stands."""

    stage: str  # the name under [stage]
    index: int  # of the step in its stage, from 0
    steps: int  # of the stage
    number: int  # of the step in the run, from 0: what TensorBoard plots against


@frozen(eq=False)
class Sample:
    """One generated video."""

    video: Tensor  # (3, F, H, W) in [0, 1]
    prompt: str
    seed: int
    fps: float  # frames per second


@frozen(eq=False)
class TextNetwork:
    """The network of a text encoder without weights, called with `input_ids` (B, L)."""

    module: nn.Module  # on the meta device
    tokens: int  # L
    width: int  # D


class TextEncoder(Protocol):
    """Turns captions into what the denoiser attends to."""

    def embed(self, prompts: Sequence[str]) -> Tensor: ...  # (B, L, D)


class RowEncoder(TextEncoder, Protocol):
    """A text encoder that can be told vectors in place of its vocabulary's."""

    def vectors(self, prompts: Sequence[str]) -> Tensor:
        """(B, L, E), of the vocabulary: what `encode` makes into what `embed` answers."""

    def encode(self, vectors: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B, L, E) -> (B, L, D), with gradient to the vectors; the prompts tell what is padding"""

    def checkpoint_gradients(self) -> None:
        """Keep less for backward and compute it again."""


class Vocabulary(Protocol):
    """How the text encoder of a backbone takes words; only `load` needs its weights."""

    def width(self) -> int:
        """E, of the vectors of tokens, which is D as well."""

    def pieces(self, text: str) -> int:
        """How many tokens spell a text of its own. Raises JtError where it is unknown."""

    def places(self, prompt: str, start: int, end: int) -> tuple[int, ...]:
        """Which of the L tokens stand for the characters from `start` to before `end`. Raises
        JtError where they are spelt otherwise than alone."""

    def load(self, device: torch.device) -> RowEncoder: ...


class Codec(Protocol):
    """Turns pixels into latents and back."""

    def encode(self, pixels: Tensor, rng: Generator) -> Tensor: ...  # (B, C, F, H, W)

    def decode(self, latents: Tensor) -> Tensor: ...  # (B, 3, frames, height, width) in [-1, 1]


class Sampler(Protocol):
    """A noise schedule walked from noise to latents."""

    times: Sequence[Tensor]  # one () per step, from noise to clean

    def start(self, shape: Sequence[int], rng: Generator) -> Tensor:
        """Latents of the first step, on the CPU: of `shape` (B, C, F, H, W), drawn as diffusers'
        own pipeline draws them, so that a seed means the same noise there. Of frames that it puts
        before the first, `decode` makes no pixels."""

    def step(self, prediction: Tensor, index: int, latents: Tensor, rng: Generator) -> Tensor: ...


class Backbone(Protocol):
    """A denoiser with its noise schedule, and names for its parts."""

    denoiser: nn.Module
    prediction: Prediction  # what it answers
    vocabulary: Vocabulary | None  # None without a tokenizer; may be left out

    def targets(self, query: Targets) -> dict[str, nn.Module]:
        """The modules of roles or patterns, by name (see jtcore.targets). Raises JtError."""

    def blocks(self) -> dict[str, nn.Module]:
        """The blocks that it repeats, by name, in order of depth."""

    def sites(self, query: Targets) -> dict[str, Site]:
        """The attentions and feed-forwards that hold targets of a query, by name. Raises JtError.
        May be left out where nobody works beside them."""

    def text_attentions(self) -> Mapping[str, TextAttention]:
        """Where the video attends to the text, by name, in order of depth. May be left out where
        nobody looks or leads."""

    def entrance(self) -> Entrance:
        """What runs before the blocks. May be left out where nobody asks."""

    def noise(self, latents: Tensor, rng: Generator, draws: Draws = ...) -> Noised:
        """A time and noise for each sample, as `draws` draws them; plain ones unless said."""

    def levels(self, times: Tensor) -> Levels:
        """How much signal and noise there is at `times` (B,), in the schedule's own unit."""

    def predict(self, latents: Tensor, times: Tensor, text: Tensor) -> Tensor:
        """What the network answers: (B, C, F, H, W), comparable to `Noised.target`."""

    def sampler(self, steps: int, scheduler: str | None = None) -> Sampler:
        """A way from noise to latents: the backbone's own, or another `scheduler` by name.

        Each video has its own sampler, which may keep a state. Raises JtError for impossible
        steps, and for a scheduler that it does not know, naming those it does.
        """

    def checkpointed(self) -> Mapping[str, nn.Module]:
        """The modules of which gradient checkpointing keeps the inputs alone; none is inside
        another. Raises JtError where that cannot be. May be left out where they are the blocks."""


class BackboneSpec(Protocol):
    """Options of a backbone. Its three components load one by one, so that none needs to wait
    in memory for another."""

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(C, F, H, W) of a clip. Raises ValueError, naming the nearest size that fits."""

    def precision_problem(self, precision: str) -> str | None:
        """Why its denoiser cannot compute in "fp32", "bf16" or "fp16", and what to use instead.
        May be left out where it can in all."""

    def weights_problems(self) -> list[str]:
        """Files of any component that are missing or not whole, as far as can be told without
        reading or fetching weights; each begins with "backbone.weights: ". May be left out where
        there are none."""

    def prompt_problems(self, prompts: Sequence[str]) -> list[str]:
        """What keeps captions from being embedded as they stand; each names its caption."""

    def word_positions(self, prompt: str, phrase: str) -> tuple[int, ...]:
        """Which of the L tokens of `embed` spell a phrase, wherever the prompt has it. Raises
        JtError where it has not, or the weights have no tokenizer. May be left out where nobody
        asks for words."""

    def denoiser_identity(self) -> str:
        """Changes whenever `predict` would answer differently: weights, options, code."""

    def text_identity(self) -> str:
        """Changes whenever `embed` would answer differently: weights, options, code."""

    def codec_identity(self) -> str:
        """Changes whenever `encode` would answer differently: weights, options, code."""

    def load_text_encoder(self, device: torch.device) -> TextEncoder: ...

    def load_codec(self, device: torch.device) -> Codec: ...

    def load(self, device: torch.device, dtype: torch.dtype) -> Backbone:
        """The denoiser, frozen. On the "meta" device it has names and shapes but no weights."""

    def offline(self) -> BackboneSpec:
        """The same with nothing to fetch, for those who need no weights: of a hub id whose sizes
        are known, with drawn weights of those sizes. May be left out where nothing is fetched."""

    def text_network(self, device_type: str) -> TextNetwork:
        """What its text encoder runs on devices of a type. May be left out where nobody reckons."""

    @classmethod
    def adopt(cls, pipeline: object) -> Backbone | None:
        """The backbone around the denoiser of a stock diffusers pipeline; None where that is of
        another kind. May be left out where there is no such pipeline."""


class ImageEncoder(Protocol):
    """Turns pictures into what adapters can be conditioned on."""

    def embed(self, pictures: Tensor) -> Tensor: ...  # (B, 3, height, width) in [0, 1] -> (B, E)


class ImageEncoderSpec(Protocol):
    """Options of an image encoder, which is loaded once, for what the cache does not have."""

    def width(self) -> int:
        """E, how many numbers it makes of a picture. Raises JtError where it is not there."""

    def identity(self) -> str:
        """Changes whenever `embed` would answer differently: weights, options, code."""

    def load(self, device: torch.device) -> ImageEncoder: ...


class AdapterSpec(Protocol):
    """Options of an adapter. `reference_width`, where it has one, is how many numbers it reads of
    an image encoder, or None; `replaces` maps words of prompts to what the text encoder reads in
    their place, on or off. Names of other adapters are fields made by `mentions.adapter_names`."""

    def attach(self, backbone: Backbone, others: Mapping[str, Adapter]) -> Adapter:
        """Build it beside the backbone, switched off. `others` were attached before it."""

    def files_problems(self, data: str, files: int) -> list[str]:
        """What keeps it from training on `data`, its place in the recipe, which has so many files;
        "option: problem" each. May be left out where it trains on any number."""


@frozen(eq=False)
class Imported:
    """An adapter out of a foreign file."""

    adapter: Mapping[str, Any]  # its table, `kind` and options, as a recipe would have it
    tensors: Mapping[str, Tensor]  # by their names in the adapter
    others: Mapping[str, Mapping[str, Any]] = Factory(dict)  # tables of those it is attached after


class Format(Protocol):
    """Options of a layout of adapter files that other tools have. It has `write` and `load`, or
    `read`, or all three. What they raise need not name the file."""

    def write(
        self, updates: Mapping[str, tuple[Tensor, Tensor]], denoiser: nn.Module, path: Path
    ) -> None:
        """Write what `Adapter.low_rank` answers. Raises JtError where the layout cannot say it."""

    def load(self, path: Path, denoiser: nn.Module) -> str:
        """Attach a written file to a stock denoiser as its readers do; only its linears have
        weights. Returns who read it. Raises JtError where a tensor of the file is not used."""

    def read(self, path: Path, backbone: Backbone) -> Imported:
        """The adapter that a file holds for a backbone, which may have no weights. Raises JtError
        where the file is another, or does not fit."""


class Loss(Protocol):
    """Options of a loss, and the loss. One that has an `attention`, an `AttentionTo`, is called
    with one argument more: by site, maps (B, F, H, W) of how much each video token attends to the
    phrase, a mean over its tokens and over heads, float32, with gradient."""

    needs_mask: bool  # whether its data must have masks; may be left out where they need none

    def __call__(
        self, prediction: Tensor, noised: Noised, part: Part, rng: Generator
    ) -> Tensor: ...  # (B,), one value a sample, never averaged over samples


class MetricSpec(Protocol):
    """Options of a metric. Options `subject` and `motion` (str | None: a folder or a file) that are
    left None are filled with the references of a run, or of `jt-eval`."""

    version: ClassVar[int]  # raised when its numbers change; 1 where it is left out
    better: ClassVar[Literal["higher", "lower"] | None]  # None, or left out: neither is

    def problems(self) -> list[str]:
        """What keeps it from being loaded, "option: problem" each, told before training starts; may
        be left out where nothing can."""

    def files(self) -> Sequence[Path]:
        """What it reads besides the samples: a resumed run refuses where they have changed; may be
        left out where there is nothing."""

    def identity(self) -> Mapping[str, Any]:
        """What its numbers depend on besides kind, version, options and `files()`, as JSON has it:
        model and hash of its weights, preprocessing, frames that are looked at. Numbers of
        different identity never share a column. May be left out where there is nothing."""

    def load(self, device: torch.device) -> Metric:
        """Load what it measures with, once for all samples."""


class Metric(Protocol):
    def __call__(self, sample: Sample) -> Mapping[str, float]:
        """Values by name; what has no value for this sample is left out, or nan."""
