"""What a command sets before it imports anything: of the environment, and of libraries' logs."""

import logging
import os

ALLOCATORS = tuple(f"PYTORCH{kind}_ALLOC_CONF" for kind in ("", "_CUDA", "_HIP"))  # torch's own
# they tell of kernels that they cannot load whenever diffusers is imported, also where no recipe
# asks for any
CHATTY = ("torchao", "bitsandbytes", "diffusers.quantizers", "torch.utils._pytree")


def arrange() -> None:
    """Memory that grows, tokenizers that do not fork, and silence of kernels that nobody wants."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not any(name in os.environ for name in ALLOCATORS):
        os.environ[ALLOCATORS[0]] = "expandable_segments:True"  # images and videos take turns
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
