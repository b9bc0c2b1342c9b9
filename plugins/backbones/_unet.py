"""ZeroScope's and ModelScope's UNet (https://arxiv.org/abs/2308.06571), over diffusers' class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import frozen
from torch import Generator, Tensor, nn

from jtcore import JtError
from jtcore.attention import TextAttention
from jtcore.diffusion import Levels, Prediction
from jtcore.noise import PLAIN, Draws
from jtcore.targets import Targets, match_targets
from jtcore.types import Entrance, Noised, Site, Vocabulary

from . import _roles
from ._discrete import add_noise, levels
from ._samplers import Kind, StockSampler, sampler, understood
from ._sites import match_sites

if TYPE_CHECKING:  # importing diffusers costs seconds
    from diffusers import DDIMScheduler, UNet3DConditionModel

PAIRS = (("norm1", "attn1"), ("norm2", "attn2"), ("norm3", "ff"))  # in each block
SCHEDULERS = {"ddim": Kind("DDIMScheduler"), "dpm": Kind("DPMSolverMultistepScheduler")}
PREDICTIONS: dict[str, Prediction] = {"epsilon": "epsilon", "v_prediction": "v"}  # by diffusers'


@frozen(eq=False)
class UNetBackbone:
    """A UNet that sees each frame, then each place over all frames, at every depth

    Noise and schedule are float32, whatever the latents are and the denoiser computes in.
    """

    denoiser: UNet3DConditionModel
    scheduler: DDIMScheduler
    vocabulary: Vocabulary | None = None

    @property
    def prediction(self) -> Prediction:
        return PREDICTIONS[self.scheduler.config.prediction_type]

    def targets(self, query: Targets) -> dict[str, nn.Module]:
        return match_targets(self.denoiser, _roles.UNET, query)

    def blocks(self) -> dict[str, nn.Module]:
        """Spatial and temporal transformer blocks in turn."""
        return dict(_blocks(self.denoiser))

    def sites(self, query: Targets) -> dict[str, Site]:
        return match_sites(self.blocks(), PAIRS, self.targets(query), query)

    def text_attentions(self) -> dict[str, TextAttention]:
        """The spatial attentions to the text; each level has half of the rows and columns."""
        return {
            f"{name}.attn2": TextAttention(block.attn2, joint=False, patch=(1, side, side))
            for name, block in self.blocks().items()
            if ".attentions." in name
            for side in [2 ** _level(name, len(self.denoiser.up_blocks))]
        }

    def entrance(self) -> Entrance:
        """The first convolution makes of each place what tokens are elsewhere."""
        network = self.denoiser
        width = network.config.block_out_channels[0]
        return Entrance((network.conv_in,), network.time_embedding, width, 4 * width)

    def noise(
        self, latents: Tensor, rng: Generator, draws: Draws = PLAIN
    ) -> Noised:  # latents (B, C, F, H, W)
        return add_noise(self.scheduler.alphas_cumprod, self.prediction, latents, rng, draws)

    def levels(self, times: Tensor) -> Levels:  # (B,)
        return levels(self.scheduler.alphas_cumprod, times)

    def predict(
        self, latents: Tensor, times: Tensor, text: Tensor
    ) -> Tensor:  # (B, C, F, H, W), (B,), (B, L, D) -> (B, C, F, H, W)
        dtype = self.denoiser.dtype
        answer = self.denoiser(
            latents.to(dtype), times.to(latents.device), text.to(dtype), return_dict=False
        )[0]
        return answer.to(latents.dtype)

    def sampler(self, steps: int, scheduler: str | None = None) -> StockSampler:
        found = sampler(self.scheduler, SCHEDULERS, scheduler, steps, frames_first=False)
        most = self.scheduler.config.num_train_timesteps
        if max(found.times) >= most:  # a published schedule of DDIM leaves its first level out
            raise JtError(
                f"{steps} steps of denoising; the schedule has {most - 1} for this scheduler"
            )
        return found

    def checkpointed(self) -> dict[str, nn.Module]:
        """Every residual module, for convolutions compute as much as blocks do."""
        return residual_modules(self.denoiser)


def noise_schedule(config: Mapping[str, Any]) -> DDIMScheduler:
    """DDIM's, of the `config` of any of diffusers' schedulers of noise. Raises JtError."""
    from diffusers import DDIMScheduler

    kind = config.get("prediction_type", "epsilon")
    if kind not in PREDICTIONS:
        known = " or ".join(map(repr, PREDICTIONS))
        raise JtError(f"its scheduler's prediction_type: expected {known}, found {kind!r}")
    return DDIMScheduler.from_config(understood(config, DDIMScheduler))


def _blocks(network: UNet3DConditionModel) -> Iterator[tuple[str, nn.Module]]:
    """In order of depth, which is not the order of their names."""
    yield "transformer_in.transformer_blocks.0", network.transformer_in.transformer_blocks[0]
    stages = {f"down_blocks.{index}": stage for index, stage in enumerate(network.down_blocks)}
    stages["mid_block"] = network.mid_block
    stages |= {f"up_blocks.{index}": stage for index, stage in enumerate(network.up_blocks)}
    for stage, modules in stages.items():
        for index in range(len(getattr(modules, "attentions", ()))):
            for kind in ("attentions", "temp_attentions"):
                name = f"{stage}.{kind}.{index}.transformer_blocks.0"
                yield name, network.get_submodule(name)


def residual_modules(network: UNet3DConditionModel) -> dict[str, nn.Module]:
    """By name. None of them is inside another, and between them little is computed."""
    from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer
    from diffusers.models.transformers.transformer_2d import Transformer2DModel
    from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel

    kinds = ResnetBlock2D, TemporalConvLayer, Transformer2DModel, TransformerTemporalModel
    modules = network.named_modules()
    return {name: module for name, module in modules if isinstance(module, kinds)}


def _level(name: str, levels: int) -> int:
    """How often a block's frames are halved, by its name."""
    stage, _, rest = name.partition(".")
    if stage == "mid_block":
        return levels - 1
    index = int(rest.partition(".")[0])
    return index if stage == "down_blocks" else levels - 1 - index


def bypass_temporal(network: UNet3DConditionModel) -> None:
    """Let the modules that work over frames hand a single frame on as it is.

    So do the UNets that MotionDirector ships; the stock one has it attend to itself.
    """
    from diffusers.models.resnet import TemporalConvLayer
    from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel

    for module in network.modules():
        if isinstance(module, TemporalConvLayer):
            module.forward = partial(_unless_single, module.forward, lambda frame: frame)
        elif isinstance(module, TransformerTemporalModel):
            module.forward = partial(_unless_single, module.forward, lambda frame: (frame,))


def _unless_single(
    forward: Callable[..., Any],
    hand_on: Callable[[Tensor], Any],
    frames: Tensor,
    num_frames: int,
    **options: Any,
) -> Any:  # of frames (B * num_frames, C, H, W)
    """What `forward` answers, or what is handed on where there is a single frame."""
    return hand_on(frames) if num_frames == 1 else forward(frames, num_frames=num_frames, **options)
