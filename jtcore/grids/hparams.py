"""A grid as TensorBoard's HParams shows it: what varies, and what each run has come to.

Every run that has ended is a session: one event file beside those of its training, with its levels,
its numbers, and whether it failed. What the grid varies, and what it says in words, is in an event
file of the grid's folder. A file is written anew only where it would say something else.
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator, Sequence
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jtcore.errors import JtError
from jtcore.grids.axes import Label
from jtcore.grids.contrasts import told
from jtcore.grids.grid import INDEX, Grid
from jtcore.grids.readings import Reading, brief_name
from jtcore.run import read_json

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.api_pb2 import Experiment
    from tensorboard.plugins.hparams.plugin_data_pb2 import SessionEndInfo

SUFFIX = ".grid"  # of event files that are written here
GROUP = "grid"  # of scalars
ENDED = ("finished", "failed")


def write_hparams(folder: Path, grid: Grid, readings: Sequence[Reading], text: str) -> None:
    """Bring TensorBoard's files of a grid up to date; `text` is Markdown, which it shows too."""
    for reading in readings:
        if reading.state in ENDED and reading.folder.is_dir():
            began, ended = _times(reading)
            summaries = list(_session(grid, reading, began, ended))
            _write(reading.folder / "tensorboard", summaries, ended)
    created = (folder / INDEX).stat().st_mtime
    _write(folder, [_experiment(grid, readings, created), _text(text)], created)


def _experiment(grid: Grid, readings: Sequence[Reading], created: float) -> Summary:
    """What varies, between which levels, and what is measured."""
    from tensorboard.plugins.hparams import api_pb2, metadata, summary_v2

    axes = []
    for axis, levels in grid.axes.items():
        axes.append(api_pb2.HParamInfo(name=axis, differs=len(levels) > 1))
        domain = summary_v2.Discrete([_typed(level, levels) for level in levels])
        domain.update_hparam_info(axes[-1])
    names = _ordered(readings)
    metrics = [
        summary_v2.Metric(f"{GROUP}/{name}", display_name=brief_name(name)) for name in names
    ]
    experiment = api_pb2.Experiment(
        hparam_infos=axes,
        metric_infos=[metric.as_proto() for metric in metrics],
        time_created_secs=created,
    )
    return _summary(metadata.EXPERIMENT_TAG, experiment=experiment)


def _session(grid: Grid, reading: Reading, began: float, ended: float) -> Iterator[Summary]:
    """A run: its levels, its numbers, and how it ended."""
    from tensorboard.plugins.hparams import summary_v2 as hparams
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb

    point = reading.trial.point
    levels = {axis: _typed(point[axis], of_axis) for axis, of_axis in grid.axes.items()}
    yield hparams.hparams_pb(levels, trial_id=reading.trial.folder, start_time_secs=began)
    yield _session_end(reading.state == "finished", ended)
    for name, value in _numbers(reading).items():
        if isfinite(value):
            yield scalar_pb(f"{GROUP}/{name}", value)


def _session_end(succeeded: bool, at: float) -> Summary:
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    status = api_pb2.STATUS_SUCCESS if succeeded else api_pb2.STATUS_FAILURE
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=at)
    return _summary(metadata.SESSION_END_INFO_TAG, session_end_info=end)


def _summary(tag: str, **data: Experiment | SessionEndInfo) -> Summary:
    """TensorBoard's own functions for these want TensorFlow, or say less."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    told = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**data))
    return Summary(value=[Summary.Value(tag=tag, metadata=told, tensor=metadata.NULL_TENSOR)])


def _text(text: str) -> Summary:
    from tensorboard.plugins.text.summary_v2 import text_pb

    return text_pb(f"{GROUP}/results", text)


def _numbers(reading: Reading) -> dict[str, float]:
    """What is worth a column: not what adapters say of themselves."""
    return {**reading.measures, **reading.costs}


def _ordered(readings: Sequence[Reading]) -> list[str]:
    """The names of all numbers. TensorBoard shows the first five: what differs between runs, and of
    each metric the value that it is for, `success.success` before `success.motion`."""
    found: dict[str, set[float]] = {}
    for reading in readings:
        for name, value in _numbers(reading).items():
            found.setdefault(name, set()).update({value} if isfinite(value) else ())
    first: dict[str, str] = {}
    for name in found:
        metric, dot, _ = name.partition(".")
        first.setdefault(metric if dot else "", name)
    leading = {name for metric, name in first.items() if metric}
    return sorted(found, key=lambda name: (len(found[name]) < 2, name not in leading))


def _typed(level: Label, levels: Sequence[Label]) -> Label:
    """In a type that all levels of an axis have: TensorBoard has no other."""
    if all(isinstance(each, bool) for each in levels):
        return level
    if all(isinstance(each, int | float) and not isinstance(each, bool) for each in levels):
        return float(level)
    return told(level)


def _times(reading: Reading) -> tuple[float, float]:
    """When a run began and ended, in seconds since 1970."""
    try:
        circumstances: dict[str, Any] = read_json(reading.folder / "run.json") or {}
    except JtError:
        circumstances = {}
    result = reading.folder / "result.json"
    if reading.state == "finished":
        ended = result.stat().st_mtime
    else:
        ended = _seconds(reading.at) if reading.at else reading.folder.stat().st_mtime
    return _seconds(circumstances["started"]) if "started" in circumstances else ended, ended


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def _write(folder: Path, summaries: Sequence[Summary], at: float) -> None:
    """One event file in place of that which was written here before, where that says otherwise."""
    content = _events(summaries, at)
    before = sorted(folder.glob(f"events.out.tfevents.*{SUFFIX}"))
    if [path.read_bytes() for path in before] == [content]:
        return
    folder.mkdir(exist_ok=True)
    # an aside that were named after the file would be read by a TensorBoard that looks on
    aside = folder / f".{secrets.token_hex(4)}.partial"
    aside.write_bytes(content)
    for path in before:
        path.unlink(missing_ok=True)
    aside.replace(folder / f"events.out.tfevents.{_after(folder):010d}{SUFFIX}")


def _after(folder: Path) -> int:
    """A time for a file's name: TensorBoard reads in the order of names, and never goes back."""
    names = (path.name.split(".")[3] for path in folder.glob("events.out.tfevents.*"))
    return max((int(each) for each in names if each.isdigit()), default=0) + 1


def _events(summaries: Sequence[Summary], at: float) -> bytes:
    """The bytes of an event file."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = io.BytesIO()
    writer = RecordWriter(file)
    writer.write(Event(wall_time=at, file_version="brain.Event:2").SerializeToString())
    for summary in summaries:
        writer.write(Event(wall_time=at, step=0, summary=summary).SerializeToString())
    return file.getvalue()
