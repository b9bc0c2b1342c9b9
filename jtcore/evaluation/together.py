"""Evaluations of several runs as one, in which numbers of different identity never meet."""

from collections.abc import Mapping

from attrs import evolve

from jtcore.evaluation.identity import REFERENCES
from jtcore.evaluation.measuring import Measured, Video
from jtcore.evaluation.results import Evaluation

BASE, ADAPTED = "base", "adapted"

Places = Mapping[str, int]  # of a video among those of each run that has it


def together(evaluations: Mapping[str, Evaluation], title: str) -> Evaluation:
    """Several evaluations, by the names of their runs: `NAME` is the run's adapted model and
    `NAME base` its base model, or `base` where all have the same videos of it. A metric's name that
    stands for several identities becomes one name for each."""
    videos, places = _videos(evaluations)
    metrics = {
        told: _joined({run: evaluations[run].metrics[name] for run, name in own.items()}, places)
        for told, own in _told_apart(evaluations).items()
    }
    references = {
        kind: sorted({path for each in evaluations.values() for path in each.references[kind]})
        for kind in REFERENCES
    }
    average_of = next(iter(evaluations.values())).average_of
    return Evaluation(title, videos, metrics, references, average_of=average_of)


def _videos(evaluations: Mapping[str, Evaluation]) -> tuple[list[Video], list[Places]]:
    """All videos, under the names of their models here."""
    shared = _share_base(evaluations)
    videos: list[Video] = []
    places: list[dict[str, int]] = []
    bases: dict[tuple[str, int], dict[str, int]] = {}
    for run, evaluation in evaluations.items():
        for index, video in enumerate(evaluation.videos):
            if shared and video.model == BASE:
                place = bases.get((video.prompt, video.seed))
                if place is not None:
                    place[run] = index
                    continue
            videos.append(evolve(video, model=_model(run, video.model, shared)))
            places.append({run: index})
            if video.model == BASE:
                bases[video.prompt, video.seed] = places[-1]
    return videos, places


def _share_base(evaluations: Mapping[str, Evaluation]) -> bool:
    """Whether all have the same videos of the base model."""
    found = [
        {(v.prompt, v.seed, v.sha256) for v in each.videos if v.model == BASE}
        for each in evaluations.values()
    ]
    return bool(found[0]) and all(each == found[0] for each in found)


def _model(run: str, model: str, shared: bool) -> str:
    if model == BASE and shared:
        return BASE
    return run if model == ADAPTED else f"{run} {model}"


def _told_apart(evaluations: Mapping[str, Evaluation]) -> dict[str, dict[str, str]]:
    """New names of metrics: of each the runs that have it, and its name there. Where one name
    stands for several identities, a run in which it is missing has no part in it."""
    names: dict[str, dict[str, str]] = {}
    for name in dict.fromkeys(name for each in evaluations.values() for name in each.metrics):
        found = {
            run: each.metrics[name].identity
            for run, each in evaluations.items()
            if name in each.metrics
        }
        several = len({identity.hash for identity in found.values() if identity}) > 1
        for run, identity in found.items():
            if identity or not several:
                told = f"{name}@{identity.short}" if several else name
                names.setdefault(told, {})[run] = name
    return names


def _joined(own: Mapping[str, Measured], places: list[Places]) -> Measured:
    """One metric over the videos of all; those of runs that have not measured it have no value."""
    there = {run: metric for run, metric in own.items() if metric.missing is None}
    if not there:
        return next(iter(own.values()))
    values = [
        next((there[run].values[index] for run, index in place.items() if run in there), {})
        for place in places
    ]
    return evolve(next(iter(there.values())), values=values)
