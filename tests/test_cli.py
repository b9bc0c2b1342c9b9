"""The three commands, as a person meets them."""

import json
import os
import subprocess
import sys

import pytest
import torch

from jtcore import __version__, cli
from jtplugins.pocket import cli as pocket

COMMANDS = {"jt-run": cli.run, "jt-plugins": cli.plugins, "jt-sample": cli.sample}


def entry(command: str) -> str:
    return {"jt-run": "run", "jt-plugins": "plugins", "jt-sample": "sample"}[command]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command):
    script = f"""
import sys
from jtcore import cli
try:
    cli.{entry(command)}(["--help"])
except SystemExit as end:
    assert end.code == 0
heavy = {{"torch", "numpy", "diffusers", "transformers", "rich", "attrs"}}
print(sorted(heavy & sys.modules.keys()))
"""
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout

    assert told.startswith(f"usage: {command} ")
    assert told.endswith("\n[]\n")
    assert "exit status: 0 done, 2 your mistake" in told


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_knows_its_version(command, capsys):
    with pytest.raises(SystemExit) as end:
        COMMANDS[command](["--version"])

    assert (end.value.code, capsys.readouterr().out) == (0, f"jtcore {__version__}\n")


# jt-run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name either a recipe or --resume RUN_DIR"),
        (["recipe", "--resume", "run"], "name either a recipe or --resume RUN_DIR"),
        (
            ["--resume", "run", "--set", "seed=1"],
            "--resume continues what is there as it is, and takes --quiet and --follow alone",
        ),
        (
            ["--resume", "run", "--out", "there"],
            "--resume continues what is there as it is, and takes --quiet and --follow alone",
        ),
    ],
)
def test_options_that_exclude_each_other_are_told(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        cli.run(arguments)

    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"jt-run: error: {message}"


def test_a_recipe_that_is_nowhere_is_told_with_the_nearest_or_what_is_shipped(capsys):
    assert cli.run(["jointuner_pocket"]) == 2
    assert capsys.readouterr().err == (
        "no such file, nor a shipped recipe: 'jointuner_pocket';"
        " did you mean 'jointtuner_pocket'?\n"
    )

    assert cli.run(["xyz"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("no such file, nor a shipped recipe: 'xyz'; shipped are ")
    assert "ablations/jointtuner_pocket" in said


def test_a_shipped_recipe_is_found_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert pocket.main(["draw", "data/pocket"]) == 0
    capsys.readouterr()

    status = cli.run(["jointtuner_pocket", "--check", "--set", "backbone.weights=random"])

    assert (status, capsys.readouterr()) == (
        0,
        (
            "adapter.joint: 30 modules, 190,080 parameters\n"
            "jointtuner_pocket: recipe checked, no problem found\n",
            "",
        ),
    )
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_check_names_missing_files_and_targets_that_match_nothing_at_once(
    table, write_recipe, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    table["data"]["subject"]["source"] = "nowhere"
    table["data"]["motion"]["size"] = [24, 25]
    table["adapter"]["joint"]["targets"] = "blocks.*.attention"
    table["sample"]["size"] = [23, 24]

    assert cli.run([str(write_recipe(table)), "--check"]) == 2

    assert capsys.readouterr().err.splitlines() == [
        "data.subject.source: 'nowhere' matches no picture or video",
        "data.motion.size: tiny needs multiples of 4 px, found 24x25",
        "sample: tiny needs multiples of 4 px, found 23x24",
        "adapter.joint: 'blocks.*.attention' matched no module of Denoiser",
    ]


def test_a_run_checks_before_it_makes_a_folder(table, write_recipe, tmp_path, capsys):
    table["adapter"]["joint"]["targets"] = "visula"

    assert cli.run([str(write_recipe(table)), "--out", str(tmp_path / "run")]) == 2

    assert capsys.readouterr().err == (
        "adapter.joint: unknown target role 'visula'; did you mean 'visual'?\n"
    )
    assert not (tmp_path / "run").exists()


def test_a_setting_is_checked_like_the_recipe(table, write_recipe, capsys):
    assert cli.run([str(write_recipe(table)), "--check", "--set", "stage.joint.stepz=4"]) == 2

    said = "stage.joint.stepz: unknown key; did you mean 'steps'?\n"
    assert capsys.readouterr().err == said


def test_a_run_without_out_is_numbered(table, write_recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = write_recipe(table, "mine")

    assert [cli.run([str(recipe), "--quiet"]) for _ in range(2)] == [0, 0]

    runs = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert runs == ["mine-001", "mine-002"]


def test_quiet_prints_nothing(table, jt_run, capsys):
    jt_run(table, "--quiet")

    assert capsys.readouterr() == ("", "")


def test_a_run_ends_by_saying_where_to_look(table, jt_run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jt_run(table)

    assert capsys.readouterr().out.splitlines()[-4:] == [
        "",
        "run is complete. To look at it:",
        "  run/report.html",
        "  tensorboard --logdir run",
    ]


def test_a_run_records_what_it_was_asked_and_what_it_ran_on(table, jt_run, plugin_folder):
    folder = plugin_folder(broken="import nothing_like_it")
    run = jt_run(table, "--set", "stage.joint.steps=1", "--plugin-folder", str(folder))

    recorded = json.loads((run / "run.json").read_text())
    assert recorded["settings"] == ["stage.joint.steps=1"]
    assert recorded["seed"] == 3
    assert recorded["versions"]["torch"] == torch.__version__
    assert "steps = 3" in (run / "recipe.toml").read_text()
    assert "steps = 1" in (run / "recipe.resolved.toml").read_text()
    tiny = next(p for p in recorded["plugins"] if p["name"].endswith("tiny.py"))
    assert len(tiny["sha256"]) == 64
    assert recorded["broken_plugins"] == [
        {
            "name": str(folder / "broken.py"),
            "error": "ModuleNotFoundError: No module named 'nothing_like_it'",
        }
    ]


def test_a_model_that_has_left_the_finite_numbers_is_told(table, write_recipe, tmp_path, capsys):
    table["stage"]["joint"] |= {"steps": 1, "lr": 1e30}
    recipe = write_recipe(table)

    assert cli.run([str(recipe), "--out", str(tmp_path / "run"), "--quiet"]) == 2

    assert capsys.readouterr().err == (
        "adapted/00-seed0.mp4: the adapted model generates numbers that are not finite;"
        " lower its learning rate or scale\n"
    )


def test_a_folder_that_cannot_be_written_is_told(table, write_recipe, capsys):
    assert cli.run([str(write_recipe(table)), "--out", "/dev/null/run"]) == 2

    assert capsys.readouterr().err == "[Errno 17] File exists: '/dev/null'\n"


def test_a_signal_while_a_recipe_is_read_ends_without_a_traceback(
    table, write_recipe, plugin_folder
):
    folder = plugin_folder(slow="import signal; signal.raise_signal(signal.SIGINT)")
    arguments = [str(write_recipe(table)), "--check", "--plugin-folder", str(folder)]
    script = f"""
import signal
from jtcore import cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
raise SystemExit(cli.run({arguments}))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "", "stopped\n")


# jt-plugins


def test_the_list_has_every_kind_with_its_first_line(capsys):
    assert cli.plugins([]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "backbones:"
    families = [line for line in lines if not line.startswith(" ")]
    assert families == [
        "backbones:",
        "adapters:",
        "losses:",
        "metrics:",
        "formats:",
        "image_encoders:",
        "controls:",
        "launchers:",
        "presets:",
        "suites of metrics:",
        "observers and others:",
    ]
    assert (
        "  lora                   LoRA: a trained low-rank update beside each linear layer" in lines
    )
    assert "  observers.tensorboard" in lines


def test_the_list_names_broken_plugins(plugin_folder, capsys):
    folder = plugin_folder(wrong="raise SystemExit(3)")
    assert cli.plugins(["--plugin-folder", str(folder)]) == 0

    said = capsys.readouterr().out
    assert said.endswith(f"broken:\n  {folder / 'wrong.py'}: SystemExit: 3\n")


def test_one_kind_is_shown_with_its_options(plugin_folder, capsys):
    folder = plugin_folder(
        still='''
        from attrs import field, frozen
        from attrs.validators import gt
        from jtcore import hookimpl

        @frozen
        class Still:
            """Nothing moves

            Nor should it.
            """

            name: str
            much: float = field(default=0.5, validator=gt(0))

            def load(self, device):
                return lambda sample: {}

        @hookimpl
        def jt_metrics():
            return {"still": Still}
        '''
    )
    assert cli.plugins(["still", "--plugin-folder", str(folder)]) == 0

    assert capsys.readouterr().out == (
        f"metrics.still ({folder / 'still.py'})\n\nNothing moves\n\nNor should it.\n\noptions:\n"
        "  name: str, required\n  much: float, default 0.5, > 0\n"
    )


def test_a_kind_can_be_named_with_its_family(capsys):
    assert cli.plugins(["adapters.lora"]) == 0
    assert capsys.readouterr().out.startswith("adapters.lora (")


def test_an_unknown_kind_is_told(capsys):
    assert cli.plugins(["losses.lora"]) == 2
    assert capsys.readouterr().err.startswith(
        "unknown kind 'losses.lora'; there are aesthetic_quality, ait, "
    )


def test_a_kind_that_is_near_is_offered(capsys):
    assert cli.plugins(["gloar"]) == 2
    assert capsys.readouterr().err == "unknown kind 'gloar'; did you mean 'glora'?\n"


ALLOCATOR = """
    import torch

    print("allocator:", torch._C._accelerator_getAllocatorSettings())
"""


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({}, "expandable_segments:True"),
        ({"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}, "max_split_size_mb:64"),
        ({"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:32"}, "max_split_size_mb:32"),
    ],
)
def test_a_command_asks_for_growing_segments_unless_the_user_says_otherwise(
    plugin_folder, own, told
):
    clean = {key: value for key, value in os.environ.items() if "ALLOC_CONF" not in key}
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    code = "import sys; from jtcore.cli import plugins; sys.exit(plugins(sys.argv[1:]))"
    folder = str(plugin_folder(allocator=ALLOCATOR))
    ended = subprocess.run(
        [sys.executable, "-c", code, "glora", "--plugin-folder", folder],
        env=clean | path | own,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert f"allocator: {told}" in [line.strip() for line in ended.stdout.splitlines()]


def test_commands_are_silent_of_kernels_that_no_recipe_asks_for(tmp_path):
    """torchao and bitsandbytes, where they are installed, tell of those whenever diffusers is
    imported."""
    work = "from jtcore.cli import guarded\ndef work():\n    import diffusers.quantizers.torchao\n"
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", work + "guarded(work)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stderr == ""
