"""The package DeepSpeed: how it is imported, asked and kept quiet."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from logging import ERROR, getLogger
from typing import Any
from warnings import catch_warnings, filterwarnings, simplefilter

import torch
from torch import distributed

from jtcore.processes import Processes
from jtcore.settings import DeepSpeed
from jtcore.tables import overlay


@contextmanager
def quiet() -> Iterator[None]:
    """What DeepSpeed prints and warns of is for its authors; its errors are raised."""
    getLogger("DeepSpeed").setLevel(ERROR)
    with catch_warnings(), redirect_stdout(StringIO()):
        simplefilter("ignore")
        yield


def import_deepspeed(device: torch.device, processes: Processes) -> Any:
    """The package, which meets the others by torch's process group and builds nothing."""
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    os.environ.setdefault("LOCAL_RANK", str(processes.local_rank))  # which it reads at stage 3
    with quiet():
        import deepspeed

        if not distributed.is_initialized():
            distributed.init_process_group(store=distributed.HashStore(), rank=0, world_size=1)
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # gloo will do
        deepspeed.init_distributed()
    filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    return deepspeed


def generated(options: DeepSpeed, clip: float) -> dict[str, Any]:
    """DeepSpeed's JSON of a stage, with the raw table laid over it."""
    host = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    zero: dict[str, Any] = {"stage": options.stage, "reduce_bucket_size": options.bucket}
    if options.stage == 3:  # a linear of its own rounds 16 bits otherwise, and outlives the stage
        zero["memory_efficient_linear"] = False
    if options.offload_optimizer:
        zero["offload_optimizer"] = host
    if options.offload_parameters:
        zero["offload_param"] = host
    made = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": clip,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": zero,
    }
    return overlay(made, options.raw)
