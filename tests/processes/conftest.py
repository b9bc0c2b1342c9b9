"""Runs of two processes, forked where torch is imported already."""

import runpy
import socket
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from processes.recipes import LONG

SCRIPT = Path(__file__).parent / "jt_run.py"


@pytest.fixture(scope="module")
def processes():
    """Where processes are forked from."""
    context = get_context("forkserver")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DS_ACCELERATOR", "cpu")
        context.set_forkserver_preload(["jtcore.launch", "torch.utils.tensorboard", "deepspeed"])
        yield context


@pytest.fixture
def begin(processes, tmp_path) -> Iterator[Callable[..., list[BaseProcess]]]:
    """Begin a `jt-run` of two processes, as torchrun does; each has a log of its own."""
    begun: list[BaseProcess] = []

    def start(*arguments: str | Path, size: int = 2) -> list[BaseProcess]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        started = []
        for rank in range(size):
            told = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank}
            told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            given = {
                "arguments": [str(argument) for argument in arguments],
                "directory": str(tmp_path),
                "log": str(tmp_path / f"log{rank}"),
                "environment": {name: str(value) for name, value in told.items()},
            }
            started.append(processes.Process(target=runpy.run_path, args=(str(SCRIPT), given)))
            started[-1].start()
        begun.extend(started)
        return started

    yield start
    for each in begun:
        each.kill()
        each.join()


@pytest.fixture
def finish(begin, tmp_path) -> Callable[..., None]:
    """Run to the end."""

    def run(*arguments: str | Path, size: int = 2) -> None:
        started = begin(*arguments, size=size)
        for each in started:
            each.join(LONG)
        logs = "\n".join((tmp_path / f"log{rank}").read_text() for rank in range(size))
        assert [each.exitcode for each in started] == [0] * size, logs

    return run


@pytest.fixture
def stages(table) -> dict:
    """Two adapters of two stages: branches that take turns and train one of those that are on,
    with an average; and branches that come by chance, on two batches a step."""
    del table["sample"], table["metric"]

    def branch(on: list[str], **options) -> dict:
        losses = {"image": {"kind": "diffusion", "on": "image"}}
        losses["video"] = {"kind": "ait", "on": "video"}
        return {"data": ["subject", "motion"], "adapters": on, "losses": losses, **options}

    lora = {"kind": "lora", "targets": "visual", "rank": 2}
    table["adapter"] = {"one": table["adapter"]["joint"], "two": lora}
    first = {"one": branch(["one"]), "two": branch(["one", "two"], trains=["two"])}
    second = {"one": branch(["one", "two"], trains=["one"]), "two": branch(["two"], chance=0.5)}
    common = {"lr": 0.01, "weight_decay": 0.1, "schedule": "cosine"}
    table["stage"] = {
        "first": {"steps": 5, "select": "one", "ema": 0.5, "branch": first, **common},
        "second": {"steps": 3, "branch": second, **common},
    }
    table["checkpoint"] = {"every": 2, "keep": 9}
    table["validation"] = {"data": ["held_out"], "draws": 2}
    table["engine"] = {"device": "cpu"}
    return table
