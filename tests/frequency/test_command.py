"""`jt-freq` on the model that is shipped: its figures, their numbers, and what it refuses."""

import csv
import shutil
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jtcore import cli
from jtcore.frequency import figures, inversion, shift
from jtcore.frequency.cli import main, make
from jtcore.frequency.command import shift_subject
from jtcore.frequency.subject import Subject
from jtcore.grids.grid import Grid, Trial, write_grid

MASKED = '{kind = "diffusion", masked = "mean"}'


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def check_figures(folder: Path, *names: str) -> None:
    """Each is there as a picture, as a drawing and as numbers."""
    for name in names:
        with Image.open(folder / f"{name}.png") as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 10, f"{name} is empty"
        assert (folder / f"{name}.svg").read_text().startswith("<?xml")
        assert (folder / f"{name}.csv").is_file()
    assert not list(folder.rglob("*.partial"))


def test_shifts_are_told_at_each_time_in_space_and_in_time(pocket, write_recipe, jt_freq):
    out = jt_freq("shift", write_recipe(pocket), "--times", "200", "800", "--draws", "1")
    check_figures(out, "shift", "shift_joint")
    found = read(out / "shift.csv")
    panels = {f"t = {time}, in {domain}" for time in (200, 800) for domain in ("space", "time")}
    assert {row["panel"] for row in found} == panels
    lines = {row["line"] for row in found}
    assert lines == {"clean", "channel", "spatial", "temporal", "channel-temporal"}
    # a shift that all frames share is still: at t = 800 nearly all energy is at frequency 0 in time
    place = ("t = 800, in time", "channel-temporal", "0")
    (still,) = [float(r["y"]) for r in found if (r["panel"], r["line"], r["x"]) == place]
    assert still > 0.99


def numbers(*arguments: str) -> list[dict]:
    """What would be drawn, without drawing it."""
    subject, settings = shift_subject(make().parse_args([*arguments]))
    clips = subject.latents("motion")
    found = [*shift.figures(clips, subject.schedule, settings, "").values()]
    found.append(inversion.one_step_figure(clips, subject.schedule, settings, ""))
    return [list(figures.rows(each)) for each in found]


def test_options_and_local_plugins_change_what_is_told(table, write_recipe):
    from conftest import TINY

    recipe = write_recipe({key: value for key, value in table.items() if key != "plugins"})
    plain = ("shift", str(recipe), "--plugin-folder", str(TINY), "--times", "0.5")
    plain = (*plain, "--shifts", "channel", "--draws", "1")
    before = numbers(*plain)
    for more in (
        ("--of", "prediction"),
        ("--window", "hann"),
        ("--std", "3"),
        ("--bands", "3"),
        ("--seed", "1"),
        ("--set", "data.motion.frames=2"),
    ):
        for told, plainly in zip(numbers(*plain, *more), before, strict=True):
            assert told != plainly, more


def test_figures_are_the_same_bytes_each_time(pocket, write_recipe, jt_freq, tmp_path):
    recipe = write_recipe(pocket)
    first = jt_freq("shift", recipe, "--times", "200", "--draws", "1")
    names = ("shift.png", "shift.svg", "shift.csv")
    before = {name: (first / name).read_bytes() for name in names}
    again = jt_freq("shift", recipe, "--times", "200", "--draws", "1")
    assert before == {name: (again / name).read_bytes() for name in names}


def test_a_figures_numbers_are_in_tensorboard_too(pocket, write_recipe, jt_freq):
    out = jt_freq("shift", write_recipe(pocket), "--times", "200", "--shifts", "all")
    events = EventAccumulator(str(out / "tensorboard" / "shift"))
    events.Reload()
    assert events.Tags()["images"] == ["shift"]
    rows = [row for row in read(out / "shift.csv") if row["line"] == "all"]
    for panel in ("t = 200, in space", "t = 200, in time"):
        told = [float(row["y"]) for row in rows if row["panel"] == panel]
        plotted = events.Scalars(f"shift/{panel.replace(' ', '_')}/all")
        assert [each.value for each in plotted] == pytest.approx(told)


def test_what_a_shifted_answer_stands_for_is_told_without_a_denoiser(
    pocket, write_recipe, jt_freq, monkeypatch
):
    def refuse(*_: object) -> None:
        raise AssertionError("the denoiser is not asked")

    monkeypatch.setattr(Subject, "model", property(refuse))
    options = ("--one-step", "--times", "400", "--shifts", "temporal", "--draws", "1")
    out = jt_freq("inversion", write_recipe(pocket), *options)
    check_figures(out, "one_step")
    assert not (out / "inversion.png").exists()
    energy = {
        domain: [
            float(row["y"])
            for row in read(out / "one_step.csv")
            if row["panel"] == f"t = 400, in {domain}" and row["line"] == "error: temporal"
        ]
        for domain in ("space", "time")
    }
    assert sum(energy["space"]) == pytest.approx(sum(energy["time"]), rel=1e-6)
    assert energy["time"][0] == pytest.approx(sum(energy["time"]))  # it stands still


def test_clips_are_inverted_and_reconstructed(pocket, write_recipe, jt_freq):
    options = ("--steps", "20", "--shifts", "channel-temporal", "--times", "400")
    out = jt_freq("inversion", write_recipe(pocket), *options)
    check_figures(out, "inversion")
    energy: dict[str, float] = {}
    for row in read(out / "inversion.csv"):
        if row["panel"].endswith("space"):
            energy[row["line"]] = energy.get(row["line"], 0) + float(row["y"])
    assert energy["error: reconstructed"] < 0.2 * energy["the clips"]
    assert energy["error: reconstructed"] < 0.5 * energy["error: channel-temporal"]
    check_figures(out, "one_step")
    for name in ("inversion_frames", "one_step_frames"):
        with Image.open(out / f"{name}.png") as picture:
            assert picture.width > 300


def test_losses_are_compared_for_all_weights_and_by_role(pocket, write_recipe, jt_freq, capsys):
    options = ("--losses", "ait", "ait_project", "--draws", "3", "--own", "2")
    out = jt_freq("loss", write_recipe(pocket), *options)
    check_figures(out, "loss")
    rows = {(row["loss"], row["role"]): row for row in read(out / "loss_weights.csv")}
    assert {role for _, role in rows} >= {"all", "attention", "feed_forward"}
    names = {"diffusion", "ait", "ait_project", "diffusion, noise shifted"}
    assert {loss for loss, _ in rows} == names
    assert float(rows["diffusion", "all"]["bias"]) == 0
    assert float(rows["diffusion", "all"]["own_variance"]) == 0
    assert float(rows["ait", "all"]["own_variance"]) > 0
    assert "| ait | all |" in capsys.readouterr().out


def test_a_run_tells_when_motion_and_appearance_form(trained, jt_freq):
    out = jt_freq("run", trained, "--prompts", "1", "--seeds", "0", "1")
    check_figures(out, "denoising", "training")
    rows = read(out / "denoising.csv")
    last = max(float(row["x"]) for row in rows)
    assert {row["panel"] for row in rows} == {"adapters off", "adapters on"}
    assert [float(row["y"]) for row in rows if float(row["x"]) == last] == pytest.approx(
        [1.0] * sum(float(row["x"]) == last for row in rows), abs=1e-3
    )
    assert {row["line"] for row in read(out / "training.csv")} == {"step 2"}
    # of three frames, 8 a second, the fastest that is told moves 8 / 3 times in one
    assert max(float(row["x"]) for row in read(out / "training.csv")) == pytest.approx(8 / 3)


def test_a_run_is_looked_into_from_anywhere(
    pocket, data, write_recipe, tmp_path, monkeypatch, capsys
):
    for name in ("subject", "motion"):
        pocket["data"][name]["source"] = f"../{data.name}/{name}"  # as seen from where it is run
    home, elsewhere = data.parent / "home", tmp_path / "elsewhere"
    home.mkdir(exist_ok=True), elsewhere.mkdir()
    recipe, run = write_recipe(pocket), tmp_path / "run"
    monkeypatch.chdir(home)
    assert cli.run([str(recipe), "--out", str(run)]) == 0
    monkeypatch.chdir(elsewhere)
    for analysis in (("shift", "--times", "400", "--draws", "1"), ("adapter", "--times", "500")):
        kind, *options = analysis
        assert main([kind, "../run", *options, "--out", "told"]) == 0, capsys.readouterr().err
    assert (elsewhere / "told" / "shift.png").is_file()
    assert (elsewhere / "told" / "adapter_ranks.png").is_file()


def test_a_run_that_has_not_ended_is_told_of_as_far_as_it_went(trained, jt_freq, capsys):
    shutil.rmtree(trained / "adapters")
    jt_freq("shift", trained, "--times", "400", "--draws", "1")  # asks for no adapter
    capsys.readouterr()
    for kind in ("run", "adapter", "loss"):
        assert main([kind, str(trained)]) == 2
        assert capsys.readouterr().err == (
            f"{trained}: it has no adapters/joint.safetensors; has it been trained to its end?"
            " jt-run --resume goes on with it\n"
        )


def test_a_folder_that_is_no_run_is_told_what_it_is(tmp_path, capsys):
    trials = tuple(Trial(name, {"variant": name}) for name in ("one", "two"))
    write_grid(tmp_path, Grid("both", "both.toml", {"variant": ("one", "two")}, {}, (), {}, trials))
    assert main(["shift", str(tmp_path)]) == 2
    told = f"{tmp_path}: is the folder of a grid; name one of its runs: {tmp_path / 'one'}\n"
    assert capsys.readouterr().err == told
    (tmp_path / "grid.json").unlink()
    assert main(["shift", str(tmp_path)]) == 2
    told = f"{tmp_path}: is no folder of a run: it has no recipe.resolved.toml\n"
    assert capsys.readouterr().err == told


def test_a_recipe_without_adapters_teaches_nothing(pocket, write_recipe, capsys):
    del pocket["adapter"], pocket["stage"]
    assert main(["loss", str(write_recipe(pocket)), "--data", "motion"]) == 2
    told = "adapter: this recipe has none with weights, of which gradients are told\n"
    assert capsys.readouterr().err == told


def test_a_runs_adapters_are_looked_into_and_compared(trained, jt_freq):
    out = jt_freq("adapter", trained, "--beside", str(trained), "--times", "100", "900")
    check_figures(out, "adapter_ranks", "adapter_overlaps", "adapter_strengths")
    overlap = read(out / "adapter_overlaps.csv")
    # a figure is shown to others, whom the folders of this machine tell nothing
    assert {row["panel"] for row in overlap} == {f"joint, joint of {trained.name}"}
    ranks = read(out / "adapter_ranks.csv")
    spectra = [float(row["y"]) for row in ranks if row["panel"] == "spectra of updates"]
    assert sum(spectra) == pytest.approx(2)  # 1 of each adapter
    own = [float(row["y"]) for row in overlap if row["line"] in ("read", "write")]
    assert own == pytest.approx([1.0] * len(own))
    each = read(out / "adapter_strengths_each.csv")
    names = {row["name"] for row in ranks if row["panel"] == "effective rank"}
    assert {row["layer"] for row in each} == names
    assert {(row["data"], row["time"]) for row in each} == {
        (data, time) for data in ("subject", "motion") for time in ("100", "900")
    }
    gates = [float(row["y"]) for row in read(out / "adapter_strengths.csv")]
    assert all(0 < gate < 1 for gate in gates)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("shift", "SOURCE", "--shifts", "diagonal"), "--shifts diagonal: no shift"),
        (("shift", "SOURCE", "--data", "nobody"), "data.nobody: there is no such table"),
        (("loss", "SOURCE", "--losses", "attention"), "--losses attention: losses.phrase: missing"),
        (("loss", "SOURCE", "--losses", MASKED), f"--losses {MASKED}: it needs more than"),
        (("loss", "SOURCE", "--losses", "difusion"), "unknown loss 'difusion'"),
        (("loss", "SOURCE", "--against", "nobody"), "--against nobody"),
        (("loss", "SOURCE", "--offset", "depth"), "--offset depth: no axis"),
        (("shift", "SOURCE", "--times", "5000"), "--times 5000: the schedule has no such time"),
        (("run", "SOURCE"), "is no folder of a run"),
        (("adapter", "SOURCE"), "is no folder of a run"),
        (("shift", "ablations/shifts_pocket"), "is a grid"),
    ],
)
def test_mistakes_are_told_in_one_line(options, told, pocket, write_recipe, capsys):
    source = str(write_recipe(pocket))
    assert main([source if each == "SOURCE" else each for each in options]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "options",
    [
        ("shift", "--draws", "0"),
        ("shift", "--bands", "0"),
        ("shift", "--std", "-1"),
        ("inversion", "--steps", "0"),
        ("loss", "--draws", "2"),
        ("loss", "--own", "one"),
        ("run", "--prompts", "0"),
    ],
)
def test_numbers_that_nothing_can_be_made_of_are_told_by_their_option(options, capsys):
    kind, option, value = options
    with pytest.raises(SystemExit) as left:
        main([kind, "anything", option, value])
    assert left.value.code == 2
    assert f"argument {option}: expected a number of at least" in capsys.readouterr().err
