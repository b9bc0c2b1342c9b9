"""TensorBoard's HParams finds a session for every run of a grid that has ended, each once."""

from pathlib import Path

import pytest
from grid_folders import draw_grid, fail, finish, write_json
from tensorboard import context
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import (
    api_pb2,
    backend_context,
    get_experiment,
    list_session_groups,
)

from jtcore.grids.results import write_results
from jtcore.pages.curves import read_curves

AXES = {"variant": ["full", "no_ait"], "stage.joint.lr": [1, 0.5], "flip": [True, False]}
STATUSES = [api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_UNKNOWN]


@pytest.fixture
def folder(tmp_path) -> Path:
    def numbers(point):
        if point["variant"] == "no_ait" and point["flip"]:
            return None
        lr = point["stage.joint.lr"]
        return {"k.a": 1.0, "m.a": lr / 2, "m.b": lr, "n.a": float("nan")}

    folder = draw_grid(tmp_path / "grid", AXES, numbers)
    fail(folder / "no_ait-1-True", "out of disk")
    started = {"started": "2026-11-22T04:00:00+00:00"}
    for run in folder.glob("*-*"):
        write_json(run / "run.json", started)
    write_results(folder)
    return folder


class Shown:
    """What TensorBoard itself reads in a folder."""

    def __init__(self, folder: Path):
        self.events = plugin_event_multiplexer.EventMultiplexer()
        self.events.AddRunsFromDirectory(str(folder))
        self.events.Reload()
        provider = data_provider.MultiplexerDataProvider(self.events, str(folder))
        told = base_plugin.TBContext(data_provider=provider, multiplexer=self.events)
        self._context = backend_context.Context(told)

    @property
    def experiment(self):
        request = api_pb2.GetExperimentRequest()
        return self._handled(get_experiment, request)

    @property
    def sessions(self) -> dict[str, api_pb2.SessionGroup]:
        request = api_pb2.ListSessionGroupsRequest(slice_size=100, allowed_statuses=STATUSES)
        found = self._handled(list_session_groups, request).session_groups
        return {group.name: group for group in found}

    def _handled(self, module, request):
        return module.Handler(context.RequestContext(), self._context, "", request).run()


def test_every_run_that_has_ended_is_a_session_with_its_levels_and_numbers(folder):
    sessions = Shown(folder).sessions

    assert sorted(sessions) == [  # but no_ait-0.5-True, which has not begun
        "full-0.5-False",
        "full-0.5-True",
        "full-1-False",
        "full-1-True",
        "no_ait-0.5-False",
        "no_ait-1-False",
        "no_ait-1-True",
    ]
    one = sessions["full-0.5-True"]
    assert one.hparams["variant"].string_value == "full"
    assert one.hparams["stage.joint.lr"].number_value == 0.5
    assert one.hparams["flip"].bool_value is True
    values = {each.name.tag: each.value for each in one.metric_values}
    assert values == {"grid/k.a": 1, "grid/m.a": 0.25, "grid/m.b": 0.5, "grid/seconds": 2.5}
    assert [session.name for session in one.sessions] == ["full-0.5-True/tensorboard"]


def test_a_session_says_when_it_was_and_whether_it_failed(folder):
    sessions = Shown(folder).sessions
    (good,), (bad,) = sessions["full-1-True"].sessions, sessions["no_ait-1-True"].sessions

    assert (good.status, bad.status) == (api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE)
    assert good.start_time_secs == bad.start_time_secs == 1795320000
    assert bad.end_time_secs == 1795320000  # as failure.json has it
    assert good.end_time_secs == (folder / "full-1-True/result.json").stat().st_mtime


def test_the_experiment_has_every_axis_and_first_what_differs_of_each_metric_its_first_value(
    folder,
):
    found = Shown(folder).experiment

    assert {info.name: list(info.domain_discrete) for info in found.hparam_infos} == {
        "variant": ["full", "no_ait"],
        "stage.joint.lr": [0.5, 1],
        "flip": [False, True],
    }
    names = [info.display_name for info in found.metric_infos]
    assert names == ["m.a", "m.b", "k.a", "n.a", "seconds"]


def events(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*tfevents*")}


def test_what_has_not_changed_is_not_written_again(folder):
    before = events(folder)
    write_results(folder)

    assert events(folder) == before
    assert len(before) == 1 + 7


def test_a_run_that_succeeds_after_all_is_one_session_after_what_training_wrote(folder):
    from torch.utils.tensorboard import SummaryWriter

    run = folder / "no_ait-1-True"
    (run / "failure.json").unlink()
    with SummaryWriter(run / "tensorboard", purge_step=0) as writer:
        writer.add_scalar("stage.joint/loss", 1.5, 0)
    finish(run, {"m.a": 0.5})
    write_results(folder)

    shown = Shown(folder)
    group = shown.sessions["no_ait-1-True"]
    assert [session.status for session in group.sessions] == [api_pb2.STATUS_SUCCESS]
    assert {v.name.tag: v.value for v in group.metric_values} == {
        "grid/m.a": 0.5,
        "grid/seconds": 2.5,
    }
    names = sorted(path.name for path in (run / "tensorboard").iterdir())
    assert [name.endswith(".grid") for name in names] == [False, True]
    assert len(shown.sessions) == 7


def test_the_grids_words_are_text_in_its_own_folder(folder):
    text = Shown(folder).events.Tensors(".", "grid/results")[-1]

    (said,) = text.tensor_proto.string_val
    assert said.decode() == (folder / "grid.md").read_text()


def test_numbers_for_tensorboard_are_no_curves_of_a_run(folder):
    assert read_curves(folder / "full-1-True") == {}


def test_levels_of_several_types_are_words(tmp_path):
    folder = draw_grid(tmp_path / "grid", {"mask": [True, 1, "all"]}, lambda point: {"m": 1.0})
    write_results(folder)

    shown = Shown(folder)
    (info,) = shown.experiment.hparam_infos
    assert list(info.domain_discrete) == ["1", "all", "true"]
    assert {g.hparams["mask"].string_value for g in shown.sessions.values()} == {"1", "all", "true"}
