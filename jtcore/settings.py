"""How the arithmetic of a run is done: device, precision, memory, processes."""

from typing import Literal

from attrs import field, frozen
from attrs.validators import and_, ge, le, optional

MOST_THREADS = 1024  # what torch is asked for at most; it takes no 64-bit number


@frozen
class EngineSettings:
    """How the arithmetic is done."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    gradient_checkpointing: bool = False
    threads: int | None = field(
        default=None, validator=optional(and_(ge(1), le(MOST_THREADS)))
    )  # of a CPU; they shape sums
