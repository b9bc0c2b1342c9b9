"""Which general metric can be trusted for what: rank correlations with the truth, on pocket.

Of pocket's videos the truth is known: whether sprite, motion and background are those that were
asked for. So what metrics say that need no such truth can be held against it.

    jt-pocket draw data/pocket
    jt-run ablations/methods_pocket --out runs/methods
    python -m benchmarks.metric_agreement runs/methods --out benchmarks/results

A correlation answers one of three questions: which *videos* are better, whatever they show; which
is better of those of *one prompt* and seed, from different runs; and which *variant* of a grid is
better on the average. Intervals are of a bootstrap that draws whole variants, for videos of one
are alike.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray

from benchmarks.report import report
from jtcore.errors import JtError
from jtcore.evaluation.measuring import Video, measure_all
from jtcore.evaluation.progress import watching
from jtcore.evaluation.references import References, filled
from jtcore.evaluation.suites import build_suite, read_suite
from jtcore.grids.axes import SEED as TRAINING_SEED
from jtcore.grids.grid import read_grid, run_folders
from jtcore.plugins import load_plugins
from jtcore.run import read_json

MORE = {"colour_similarity": {"kind": "colour_similarity"}}  # besides the suite `offline`
TRUTHS = {  # by NAME.VALUE of the runs' own metrics, and what they are called here
    "success.success": "success",
    "sprite_identity.sprite_identity": "identity",
    "sprite_identity.correlation": "look",
    "sprite_motion.sprite_motion": "motion",
    "background_adherence.background_adherence": "background",
    "background_leak.background_leak": "no background leak",
    "appearance_leak.appearance_leak": "no look leak",
    "single_object.single_object": "one object",
    "steadiness.steadiness": "steadiness",
}
LOWER = ("background_leak.background_leak", "appearance_leak.appearance_leak")  # is better
LEVELS = ("videos", "one prompt", "variants")
CONFIDENCE = 0.95
SEED = 0


@frozen(eq=False)
class Column:
    """One number of every video, nan where it has none"""

    name: str
    values: NDArray  # (N,)
    sign: int = 1  # -1 where lower is better


@frozen(eq=False)
class Videos:
    """Where each of N videos is from"""

    files: Sequence[Video]
    variants: Sequence[str]
    truths: Sequence[Mapping[str, float]]


@frozen
class Agreement:
    """A rank correlation, above 0 where both say "better" of the same; None where one of the two
    never differs"""

    estimate: float | None
    low: float | None
    high: float | None
    count: int  # of videos, or of variants


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parse(arguments)
    videos = read_videos(given.runs)
    references = References(given.subject, given.motion)
    columns = measured(videos, references, given.only, given.quiet)
    truths = _truths(videos)
    runs = len({video.file.parents[2] for video in videos.files})
    about = (
        f"{len(videos.files)} videos of customised models from {runs} runs of"
        f" {len(set(videos.variants))} variants; {given.resamples} resamples of variants,"
        f" {CONFIDENCE:.0%} intervals. Above 0: better by the one is better by the other"
    )
    found = {}
    with report("metric_agreement", given.out, about) as say:
        for level in LEVELS:
            for kind in ("Spearman", "Kendall"):
                say(f"\n## {kind}: {level}\n")
                table = agreements(videos, columns, truths, level, kind, given.resamples)
                found[f"{level}, {kind}"] = table
                for line in _lines(table, truths):
                    say(line)
    if given.out:
        plain = {
            where: {"/".join(pair): attrs.asdict(each) for pair, each in table.items()}
            for where, table in found.items()
        }
        (Path(given.out) / "metric_agreement.json").write_text(json.dumps(plain, indent=1) + "\n")


def read_videos(folders: Sequence[Path]) -> Videos:
    """What the customised models of finished runs made, of runs or grids. Raises JtError."""
    files, variants, truths = [], [], []
    for run in (run for named in folders for run in run_folders(named) or [named]):
        results, variant = read_json(run / "metrics.json"), _variant(run)
        if results is None:
            raise JtError(f"{run}: is no finished run")
        for entry in results.get("samples", []):
            if entry["model"] == "adapted":
                file = run / "samples" / entry["file"]
                files.append(Video(file, variant, entry["prompt"], entry["seed"]))
                variants.append(variant)
                truths.append(entry["metrics"])
    if not files:
        raise JtError("the runs have no samples")
    return Videos(files, variants, truths)


def _variant(run: Path) -> str:
    """What a run is of the grid that it lies in, whatever its seed; of none, one of its own."""
    above = run.absolute().parent
    grid = read_grid(above)
    for trial in grid.trials if grid else ():
        if trial.folder == run.name:
            levels = (str(v) for axis, v in trial.point.items() if axis != TRAINING_SEED)
            return "/".join([above.name, *levels])
    return str(run)


def measured(
    videos: Videos, references: References, only: Sequence[str], quiet: bool
) -> list[Column]:
    """What general metrics that need no weights say."""
    suite = {"metric": read_suite("offline")["metric"] | MORE}
    metrics = filled(build_suite(suite, [], only, load_plugins()).metric, references)
    with watching(quiet, print) as watch:
        found = measure_all(videos.files, metrics, torch.device("cpu"), watch)
    if missing := [f"{name}: {each.missing}" for name, each in found.items() if each.missing]:
        raise JtError(missing)
    columns = []
    for name, each in found.items():
        for value in dict.fromkeys(value for row in each.values for value in row):
            told = name if value == name else f"{name}.{value}"
            numbers = np.array([row.get(value, np.nan) for row in each.values])
            columns.append(Column(told, numbers, -1 if each.better == "lower" else 1))
    return columns


def _truths(videos: Videos) -> list[Column]:
    return [
        Column(
            told,
            np.array([row.get(name, np.nan) for row in videos.truths]),
            -1 if name in LOWER else 1,
        )
        for name, told in TRUTHS.items()
    ]


def agreements(
    videos: Videos,
    columns: Sequence[Column],
    truths: Sequence[Column],
    level: str,
    kind: str,
    resamples: int,
) -> dict[tuple[str, str], Agreement]:
    """By general metric and truth."""
    variants = list(dict.fromkeys(videos.variants))
    of_video = np.array([variants.index(variant) for variant in videos.variants])
    times = drawn(len(variants), resamples)  # (1 + resamples, variants)
    correlation = spearman if kind == "Spearman" else kendall
    found = {}
    for column in columns:
        for truth in truths:
            pairs = _groups(videos, column, truth, level, of_video, len(variants))
            found[column.name, truth.name] = _agreement(pairs, times, correlation)
    return found


Pairs = tuple[NDArray, NDArray, NDArray]  # each (n,): the one, the other, and indices of variants


def _groups(
    videos: Videos, column: Column, truth: Column, level: str, of_video: NDArray, variants: int
) -> list[Pairs]:
    """What is ranked together: all, those of one prompt and seed, or means of variants."""
    x, y = column.sign * column.values, truth.sign * truth.values
    there = np.isfinite(x) & np.isfinite(y)
    if level == "videos":
        return [(x[there], y[there], of_video[there])]
    if level == "variants":
        which = np.array([v for v in range(variants) if (there & (of_video == v)).any()], int)
        means = [[each[there & (of_video == v)].mean() for v in which] for each in (x, y)]
        return [(*map(np.array, means), which)]
    asked = [(video.prompt, video.seed) for video in videos.files]
    own = [there & np.array([each == key for each in asked]) for key in dict.fromkeys(asked)]
    return [(x[each], y[each], of_video[each]) for each in own]


def _agreement(groups: Sequence[Pairs], times: NDArray, correlation) -> Agreement:
    """The mean over groups; in each resample, over those that have a correlation there."""
    found = np.array([correlation(x, y, times[:, which]) for x, y, which in groups if len(x) > 2])
    count = sum(len(x) for x, _, _ in groups)
    if not found.size or not np.isfinite(found[:, 0]).any():
        return Agreement(None, None, None, count)
    of_all = np.isfinite(found).sum(0)
    means = np.where(of_all > 0, np.nansum(found, 0) / np.maximum(of_all, 1), np.nan)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(means[1:], [tail, 1 - tail])
    return Agreement(float(means[0]), float(low), float(high), count)


def drawn(clusters: int, resamples: int) -> NDArray:  # (1 + resamples, clusters)
    """How often each cluster is in a sample: once in the first, and then as it was drawn."""
    rng = np.random.default_rng(SEED)
    chosen = rng.integers(clusters, size=(resamples, clusters))
    counts = np.stack([np.bincount(row, minlength=clusters) for row in chosen])
    return np.concatenate([np.ones((1, clusters)), counts])


def spearman(x: NDArray, y: NDArray, times: NDArray) -> NDArray:  # (n,), (n,), (B, n) -> (B,)
    """Of samples in which each pair stands so many times; nan where one of them never differs."""
    ranks = [times @ _below(values).T for values in (x, y)]  # (B, n)
    total = times.sum(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        one, other = (each - (times * each).sum(1, keepdims=True) / total for each in ranks)
        variances = [(times * each**2).sum(1) for each in (one, other)]
        return _defined((times * one * other).sum(1), variances)


def kendall(x: NDArray, y: NDArray, times: NDArray) -> NDArray:  # (n,), (n,), (B, n) -> (B,)
    """Tau-b, of the same."""
    one, other = (np.sign(values[:, None] - values[None]) for values in (x, y))  # (n, n)

    def pairs(products: NDArray) -> NDArray:  # (n, n) -> (B,)
        return ((times @ products) * times).sum(1)

    return _defined(pairs(one * other), [pairs(one**2), pairs(other**2)])


def _below(values: NDArray) -> NDArray:  # (n,) -> (n, n)
    """Row i: 1 where another is below, half where it is the same: sums are mid-ranks."""
    return (values[None] < values[:, None]) + 0.5 * (values[None] == values[:, None])


def _defined(products: NDArray, variances: Sequence[NDArray]) -> NDArray:
    size = np.sqrt(variances[0] * variances[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(size > 1e-9, products / size, np.nan)


def _lines(table: Mapping[tuple[str, str], Agreement], truths: Sequence[Column]) -> Iterator[str]:
    names = [truth.name for truth in truths]
    yield f"| metric | {' | '.join(names)} | n |"
    yield f"|{' --- |' * (len(names) + 2)}"
    for metric in dict.fromkeys(metric for metric, _ in table):
        cells = [table[metric, name] for name in names]
        shown = " | ".join(_shown(cell) for cell in cells)
        yield f"| {metric} | {shown} | {max(cell.count for cell in cells)} |"


def _shown(found: Agreement) -> str:
    if found.estimate is None:
        return "none"
    return f"{found.estimate:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metric_agreement")
    parser.add_argument("runs", nargs="+", type=Path, help="finished runs on pocket, or grids")
    parser.add_argument("--subject", default="data/pocket/subject", help="default: %(default)s")
    parser.add_argument("--motion", default="data/pocket/motion", help="default: %(default)s")
    parser.add_argument("--resamples", type=int, default=1000, help="default: %(default)s")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="of the metrics"
    )
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--out", help="a folder, in which the tables are written to files too")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
