"""Run the benchmarks that a machine can run, in minutes: `make bench`.

    python -m benchmarks --out benchmarks/results

Three that take longer, or a GPU, are commands of their own: `benchmarks.adapter_overhead`,
`benchmarks.training_step` and `benchmarks.low_bit_error`.
"""

import argparse

from benchmarks import data, gated_lora, loading, start_up
from benchmarks.report import report

BENCHMARKS = (gated_lora, data, loading, start_up)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--out", help="a folder, in which the table is written to a file too")
    with report("benchmarks", parser.parse_args().out) as say:
        say("| what | ours | reference | ratio, ours / reference |")
        say("| --- | --- | --- | --- |")
        for benchmark in BENCHMARKS:
            for row in benchmark.measure():
                say(str(row))


if __name__ == "__main__":
    main()
