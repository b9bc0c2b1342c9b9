"""How the arithmetic of a run is done: device, precision, memory, processes."""

from collections.abc import Mapping
from typing import Any, Literal

from attrs import Attribute, field, frozen
from attrs.validators import and_, ge, le, optional

MOST_THREADS = 1024  # what torch is asked for at most; it takes no 64-bit number


@frozen
class Memory:
    """What is done to need less of the device's memory; each is exact, or says how far it is not

    checkpoints: where the inputs wait that gradient checkpointing keeps (exact)
    keep_blocks: so many of the last blocks keep all that they compute, for speed (exact)
    stream_blocks: so many frozen blocks are in host memory but for when they run (exact)
    stream_share: the same of that share of all blocks, whatever their number
    text_encoder: where captions are embedded (approximate: a CPU rounds otherwise than a GPU)
    base: the linear weights of the frozen blocks in 8 or 4 bits (approximate: pocket's answers are
        off by 0.7 % with "int8", 2.4 % with "fp8" and 9 % with "nf4"; see docs/memory.md)
    optimizer: Adam's two moments in 8 bits (approximate: weights of a recipe of pocket end 6 % off,
        and its held-out loss by 0.02 % ± 0.10 %), or both and their step on the host (exact)
    """

    checkpoints: Literal["device", "host"] = "device"
    keep_blocks: int = field(default=0, validator=ge(0))
    stream_blocks: int = field(default=0, validator=ge(0))
    base: Literal["int8", "fp8", "nf4"] | None = None
    optimizer: Literal["8bit", "host"] | None = None
    stream_share: float = field(default=0.0, validator=[ge(0), le(1)])
    text_encoder: Literal["device", "host"] = "device"

    def __attrs_post_init__(self) -> None:
        if self.stream_blocks and self.stream_share:
            raise ValueError("expected stream_blocks or stream_share, got both")

    @property
    def streams(self) -> bool:
        """Whether any blocks are streamed."""
        return bool(self.stream_blocks or self.stream_share)

    def streamed(self, blocks: int) -> int:
        """How many of so many `blocks`, of which those that are kept are not streamed."""
        share = min(round(self.stream_share * blocks), blocks - self.keep_blocks)
        return self.stream_blocks or share


OWNED = {  # keys of DeepSpeed's JSON that a recipe says elsewhere, and where
    "train_batch_size": "data.NAME.batch",
    "train_micro_batch_size_per_gpu": "data.NAME.batch",
    "gradient_accumulation_steps": "stage.NAME.accumulate",
    "managed_gradient_accumulation": "stage.NAME.accumulate",
    "gradient_clipping": "stage.NAME.clip",
    "optimizer": "stage.NAME",
    "scheduler": "stage.NAME.schedule",
    "fp16": "engine.precision",
    "bf16": "engine.precision",
    "amp": "engine.precision",
    "torch_autocast": "engine.precision",
    "zero_optimization.stage": "engine.deepspeed.stage",
    "zero_optimization.offload_optimizer": "engine.deepspeed.offload_optimizer",
    "zero_optimization.offload_param": "engine.deepspeed.offload_parameters",
    "zero_optimization.reduce_bucket_size": "engine.deepspeed.bucket",
}


def _not_owned(instance: object, attribute: Attribute, raw: Mapping[str, Any]) -> None:
    within = raw.get("zero_optimization", {})
    if not isinstance(within, Mapping):
        raise ValueError("zero_optimization: expected a table")
    found = [*raw, *(f"zero_optimization.{key}" for key in within)]
    if told := [f"{key} ({OWNED[key]})" for key in found if key in OWNED]:
        raise ValueError(f"leave out what the recipe says elsewhere: {', '.join(told)}")


@frozen
class DeepSpeed:
    """What is divided among processes, by DeepSpeed's ZeRO: exact up to the order of sums

    stage: 1 divides the optimizer's state, 2 the reduced gradients as well, 3 also the weights of
        the denoiser and those trained in their place, which are gathered module by module
    offload_optimizer: the optimizer's state is in host memory, and its step computed there
    offload_parameters: the divided weights of stage 3 are in host memory
    bucket: so many numbers are reduced at once. Where more are trained, gradients are reduced while
        backward runs, and stages 2 and 3 then keep no more than their share; every process has to
        train the same parameters in each pass then
    raw: keys of DeepSpeed's own JSON, laid over what these options generate
    """

    stage: Literal[1, 2, 3] = 2
    offload_optimizer: bool = False
    offload_parameters: bool = False
    bucket: int = field(default=500_000_000, validator=ge(1))
    raw: Mapping[str, Any] = field(factory=dict, validator=_not_owned)

    def __attrs_post_init__(self) -> None:
        if self.offload_parameters and self.stage < 3:
            raise ValueError("offload_parameters needs stage = 3: the others divide no weights")


@frozen
class EngineSettings:
    """How the arithmetic is done

    kind: one process; or several, each with batches of its own, whose gradients are averaged: by
        all-reduce, or by DeepSpeed, which also divides what each holds
    compile: torch compiles the block that the denoiser repeats, once for all of them, for training
        (exact up to the order of sums)
    attention: which of torch's kernels the denoiser's attention runs on (exact up to the order of
        sums)
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    gradient_checkpointing: bool = False
    threads: int | None = field(
        default=None, validator=optional(and_(ge(1), le(MOST_THREADS)))
    )  # of a CPU; they shape sums
    memory: Memory = Memory()
    kind: Literal["plain", "ddp", "deepspeed"] = "plain"
    deepspeed: DeepSpeed | None = None  # its defaults, unless said
    compile: bool = False
    attention: Literal["auto", "flash", "cudnn", "efficient", "math"] = "auto"

    def __attrs_post_init__(self) -> None:
        if self.deepspeed is not None and self.kind != "deepspeed":
            raise ValueError(f'the table deepspeed needs kind = "deepspeed", found {self.kind!r}')
