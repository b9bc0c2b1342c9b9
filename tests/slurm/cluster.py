"""A Slurm cluster of one machine in a folder: munged, slurmctld and slurmd, without systemd.

    python tests/slurm/cluster.py FOLDER            # until Ctrl-C
    python tests/slurm/cluster.py FOLDER COMMAND    # while the command runs
    export SLURM_CONF=FOLDER/slurm.conf             # what sbatch and others need to find it

Needs root and Debian's packages slurmctld, slurmd, slurm-client and munge. Nothing outside the
folder is written.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
CORES = 2
PATIENCE = 30  # s, for a daemon to answer
SLURM_CONF = """
ClusterName=jtcore
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1
GresTypes=gpu
JobRequeue=1
KillWait=15
OverTimeLimit=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=4000 Gres=gpu:2 State=UNKNOWN
PartitionName=patient Nodes={host} Default=YES MaxTime=60 State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes={host} MaxTime=60 State=UP PriorityTier=2 PreemptMode=off
"""
GRES_CONF = "Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n"  # GPUs in name only


def missing() -> str | None:
    """Why no cluster can be started here, or None."""
    lacking = [name for name in PROGRAMS if _where(name) is None]
    if lacking:
        return f"Slurm is not installed: no {', '.join(lacking)}"
    return None if os.geteuid() == 0 else "slurmd runs other users' jobs, and so needs root"


@contextmanager
def cluster(folder: Path) -> Iterator[Mapping[str, str]]:
    """The environment variables with which commands find a cluster that runs until the block is
    left. Raises RuntimeError with the logs where it does not come up."""
    folder = folder.absolute()
    told = {"SLURM_CONF": str(folder / "slurm.conf")}
    _configure(folder)
    with ExitStack() as running:
        for name, arguments in _daemons(folder).items():
            log = running.enter_context((folder / f"{name}.out").open("ab"))
            running.enter_context(_daemon([_where(name), *arguments], log, os.environ | told))
            if name == "munged":
                _wait(folder, lambda: (folder / "munge.socket").exists())
        _wait(folder, lambda: _answer(["sinfo", "--noheader", "--format=%T"], told) == "idle")
        try:
            yield told
        finally:
            _answer(["scancel", "--full", "--signal=KILL", "--user=root"], told)
            _answer(["scancel", "--user=root"], told)
            with suppress(RuntimeError):
                _wait(folder, lambda: not _answer(["squeue", "--noheader"], told))


def _configure(folder: Path) -> None:
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # munged wants its socket where everyone gets to it
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(128))
    controller_port, node_port = _free_ports(2)
    told = {"host": socket.gethostname().partition(".")[0], "cores": CORES, "folder": folder}
    ports = {"controller_port": controller_port, "node_port": node_port}
    (folder / "slurm.conf").write_text(SLURM_CONF.format(**told, **ports).lstrip())
    (folder / "gres.conf").write_text(GRES_CONF)
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")


def _daemons(folder: Path) -> dict[str, list[str]]:
    files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "seed", "log")]
    munge = ["--foreground", "--force", f"--socket={folder}/munge.socket", *files]
    return {"munged": munge, "slurmctld": ["-D"], "slurmd": ["-D"]}


@contextmanager
def _daemon(command: Sequence[str], log, environment: Mapping[str, str]) -> Iterator[None]:
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(folder: Path, ready) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > deadline:
            logs = sorted([*folder.glob("*.log"), *folder.glob("*.out")])
            told = "\n".join(f"{log.name}:\n{log.read_text(errors='replace')}" for log in logs)
            raise RuntimeError(f"no answer in {PATIENCE} s\n{told}")
        time.sleep(0.2)


def _answer(command: Sequence[str], told: Mapping[str, str]) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | told)
    return ended.stdout.strip()


def _where(program: str) -> str | None:
    """Daemons are in folders that not every PATH has."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        found = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in found]


def main(arguments: Sequence[str]) -> int:
    if not arguments or (why := missing()):
        sys.exit(why if arguments else __doc__)
    folder, *command = arguments
    with cluster(Path(folder)) as told:
        if command:
            return subprocess.run(command, env=os.environ | told).returncode
        print(f"export SLURM_CONF={told['SLURM_CONF']}\nCtrl-C ends it", flush=True)
        with suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
