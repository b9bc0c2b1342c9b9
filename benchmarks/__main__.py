"""Run every benchmark and print one table: `make bench`."""

import platform
from datetime import UTC, datetime

import torch

from benchmarks import gated_lora, loading, start_up

BENCHMARKS = (gated_lora, loading, start_up)


def main() -> None:
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {torch.get_num_threads()} threads, {versions}\n")
    print("| what | ours | reference | ratio, ours / reference |")
    print("| --- | --- | --- | --- |")
    for benchmark in BENCHMARKS:
        for row in benchmark.measure():
            print(row, flush=True)


main()
