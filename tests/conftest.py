"""What all tests share."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny tensors on a busy machine are ten times faster so."""
    torch.set_num_threads(1)
