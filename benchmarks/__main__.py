"""Run the benchmarks that a machine can run, in minutes: `make bench`.

    python -m benchmarks --out benchmarks/results

What takes longer, a GPU, or runs of one's own is a command of its own (python -m ... --help):

    benchmarks.adapter_overhead     what adapters cost a block: ours, peft's, and an unfused GLoRA
    benchmarks.training_step        a recipe's steps beside those of a reference-style loop
    benchmarks.planner_error        what `jt-plan` predicts, against what is needed
    benchmarks.low_bit_error        what a base in few bits changes
    benchmarks.optimizer_error      what Adam in 8 bits changes
    benchmarks.equal_time           steps of a grid's variants that take as long as one's
    benchmarks.grid                 27 runs as a grid, beside the same runs one after another
    benchmarks.metric_agreement     general metrics against the truth of pocket
    benchmarks.smoothness           what motion smoothness says of clips made wrong in known ways
"""

import argparse

from benchmarks import data, gated_lora, loading, start_up
from benchmarks.report import report

BENCHMARKS = (gated_lora, data, loading, start_up)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", help="a folder, in which the table is written to a file too")
    with report("benchmarks", parser.parse_args().out) as say:
        say("| what | ours | reference | ratio, ours / reference |")
        say("| --- | --- | --- | --- |")
        for benchmark in BENCHMARKS:
            for row in benchmark.measure():
                say(str(row))


if __name__ == "__main__":
    main()
