"""Launchers: who starts processes, and how they find each other."""

import subprocess
import sys

import pytest
from processes.recipes import DDP, shared

from jtcore.errors import JtError
from jtcore.processes import Place, first_node, meeting_point, place_of


def test_launchers_tell_places():
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
    srun = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}
    assert place_of(torchrun) == place_of(srun) == Place(5, 8, 1)
    batch = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}  # without srun
    assert place_of(batch) == place_of({}) == Place(0, 1, 0)
    with pytest.raises(JtError, match="WORLD_SIZE is set, but not RANK and LOCAL_RANK"):
        place_of({"WORLD_SIZE": "2"})


def test_processes_find_each_other():
    said = {"MASTER_ADDR": "here", "MASTER_PORT": "7"}
    slurm = {"SLURM_STEP_NODELIST": "gpu[07-09,12],big1", "SLURM_JOB_ID": "40001"}
    assert meeting_point(said) == ("here", "7")
    assert meeting_point(slurm) == ("gpu07", "20001")
    assert meeting_point(slurm | said) == ("here", "7")
    assert [first_node(n) for n in ("a1", "a1,b2", "a-b-[1-3]", "n[03]-ib")] == [
        *("a1", "a1", "a-b-1", "n03-ib")
    ]
    with pytest.raises(JtError, match="several processes need MASTER_ADDR and MASTER_PORT"):
        meeting_point({"MASTER_ADDR": "here"})


@pytest.mark.slow
def test_torchrun_starts_the_module(stages, write_recipe, tmp_path):
    recipe = write_recipe(shared(stages, DDP))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, "-m", "jtcore.cli", "run", recipe, "--out", tmp_path / "run"]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert ended.returncode == 0, ended.stdout
    assert (tmp_path / "run/result.json").exists()


@pytest.mark.slow
def test_plain_runs_never_import_deepspeed(stages, write_recipe, tmp_path):
    script = f"""
import sys
from jtcore import cli
status = cli.run([{str(write_recipe(stages))!r}, "--out", {str(tmp_path / "run")!r}, "--quiet"])
sys.exit(status or "deepspeed" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
