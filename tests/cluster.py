"""A real SLURM cluster on this machine alone: two nodes with four A40s each, and one without.

The daemons are Debian's (slurmctld, three slurmd, munged); the hardware is declared, device files
standing for the GPUs. Everything lies in one folder and listens on free ports, so nothing meets a
SLURM that is installed here for real. By hand: `python tests/cluster.py` starts one, says how to
use it, and stops it at the end of its input.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Self

HOME = Path("/tmp/prudent-clusters")
"""A folder per cluster, named after the process that started it. Sockets need a short path."""
MARK = "PRUDENT_CLUSTER"
"""A variable in the environment of all of a cluster's processes, its jobs included."""
NODES = ("gpu1", "gpu2", "cpu1")
HANG = 1800
"""Seconds that only a hang takes. No wait of the tests is a limit on a machine's speed."""

CONFIGURATION = """
ClusterName=prudent
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# The credentials' life is also how long SLURM holds a requeued job back, by default two minutes.
AuthInfo=socket={folder}/munge/socket,cred_expire=5
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
SlurmdSpoolDir={folder}/spool/%n
StateSaveLocation={folder}/state
ReturnToService=2
DebugFlags=NO_CONF_HASH
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
MinJobAge=3600
SlurmctldTimeout=10
SlurmdTimeout=10
KillWait=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,sched_min_interval=0
NodeName=DEFAULT CPUs=64 CoresPerSocket=64 RealMemory=1000000 State=UNKNOWN
NodeName=gpu1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} Gres=gpu:a40:4
NodeName=gpu2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} Gres=gpu:a40:4
NodeName=cpu1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[3]}
PartitionName=DEFAULT State=UP MaxTime=7-0 DefaultTime=10
PartitionName=cpu Nodes=cpu1 Default=YES
PartitionName=gpu Nodes=gpu1,gpu2
PartitionName=urgent Nodes=gpu1,gpu2 PriorityTier=10 PreemptMode=OFF
"""


def why_not() -> str | None:
    """Why no cluster can be started here; None where one can."""
    missing = [name for name in ("munged", "slurmctld", "slurmd", "srun") if not _which(name)]
    if missing:
        return f"SLURM is not installed ({', '.join(missing)}): on Debian as root, `make slurm`"
    return None if os.geteuid() == 0 else "a SLURM cluster is started by root alone"


class Cluster:
    """A cluster that runs while entered."""

    def __init__(self) -> None:
        self.folder = HOME / str(os.getpid())
        self.variables = {
            MARK: str(self.folder),
            "SLURM_CONF": f"{self.folder}/slurm.conf",
            "PATH": f"{self.folder}/bin",
        }

    def __enter__(self) -> Self:
        for old in HOME.glob("*"):
            if not Path("/proc", old.name).exists():
                _remove(old)  # of tests that were killed
        _remove(self.folder)
        self._write()
        try:
            self.start_munged()
            self.start_slurmctld()
            for node in NODES:
                self.start_slurmd(node)
            wait_for(lambda: self.idle_nodes() == set(NODES), "the cluster's nodes")
        except BaseException as error:
            for log in self.folder.glob("log/*"):
                error.add_note(f"{log}:\n" + "".join(log.open().readlines()[-10:]))
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        _remove(self.folder)

    def run(self, *command: str) -> str:
        """What one of SLURM's commands prints."""
        output = subprocess.run(
            command, env=os.environ | self.variables, capture_output=True, text=True
        )
        if output.returncode:
            raise RuntimeError(f"{' '.join(command)}: {output.stderr}")
        return output.stdout

    def start_munged(self) -> None:
        self.run(
            *("munged", "--force", "--num-threads=2", f"--socket={self.folder}/munge/socket"),
            *(f"--key-file={self.folder}/munge/key", f"--pid-file={self.folder}/munge/pid"),
            *(f"--log-file={self.folder}/munge/log", f"--seed-file={self.folder}/munge/seed"),
        )

    def start_slurmctld(self) -> None:
        self.run("slurmctld")

    def start_slurmd(self, node: str) -> None:
        # Its jobs' processes have the variable from SLURM, the daemons have it for `crash`.
        self.run("env", f"SLURMD_NODENAME={node}", "slurmd", "-N", node)

    def crash(self, node: str) -> None:
        """What a node's loss is for the others: its daemons and its jobs are gone at once."""
        lost = [p for p in self.processes() if _node(p) == node]
        order = ("slurmd", "slurmstepd")  # first, so that they cannot tell of the jobs' end
        for process in sorted(lost, key=lambda p: [_name(p) != name for name in order]):
            _kill(process)

    def crash_slurmctld(self) -> None:
        for process in self.processes():
            if _name(process) in ("slurmctld", "slurmscriptd"):
                _kill(process)

    def processes(self) -> list[int]:
        """The cluster's daemons and its jobs' processes, and what was started to use it."""
        return list(_processes(str(self.folder)))

    def idle_nodes(self) -> set[str]:
        """The nodes that wait for jobs; none where the controller does not answer (yet)."""
        with contextlib.suppress(RuntimeError):
            return set(
                self.run("sinfo", "--noheader", "--Node", "--states=idle", "--format=%N").split()
            )
        return set()

    def jobs(self, folder: Path) -> list[dict[str, str]]:
        """A folder's jobs, also those that have ended, as scontrol shows them; the oldest first."""
        shown = self.run("scontrol", "show", "job", "--oneliner", "--details")
        jobs = [
            dict(re.findall(r"(\S+?)=(.*?) *(?= \S+?=|$)", line))
            for line in shown.splitlines()
            if f" WorkDir={folder} " in line
        ]
        return sorted(jobs, key=lambda job: int(job["JobId"]))

    def _write(self) -> None:
        for name in ("munge", "log", "state", "dev", "bin", *(f"spool/{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "munge/key").write_bytes(secrets.token_bytes(1024))
        (self.folder / "munge/key").chmod(0o400)
        for number in range(4):  # as /dev/null; SLURM refuses regular files
            device = os.makedev(1, 3)
            os.mknod(self.folder / f"dev/nvidia{number}", stat.S_IFCHR | 0o666, device)
        (self.folder / "slurm.conf").write_text(
            CONFIGURATION.format(
                host=socket.gethostname().split(".")[0], folder=self.folder, ports=_free_ports(4)
            )
        )
        (self.folder / "gres.conf").write_text(
            "AutoDetect=off\n"
            f"NodeName=gpu[1-2] Name=gpu Type=a40 File={self.folder}/dev/nvidia[0-3]\n"
        )
        for place in ("/usr/sbin", *os.environ["PATH"].split(":")):
            for command in Path(place).glob("*"):
                link = self.folder / "bin" / command.name
                if command.name != "srun" and not link.is_symlink():
                    link.symlink_to(command)
        # The executor's job step drops SLURM_CONF, which a cluster in /etc/slurm does not need.
        srun = self.folder / "bin/srun"
        configuration = self.variables["SLURM_CONF"]
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={configuration} exec {_which("srun")} "$@"\n')
        srun.chmod(0o755)


def wait_for(
    condition: Callable[[], object], what: str, process: subprocess.Popen[str] | None = None
) -> None:
    """Returns once the condition holds.

    Raises:
        RuntimeError: the process that should bring it about has ended.
        TimeoutError: the condition does not hold after HANG seconds.
    """
    end = time.monotonic() + HANG
    while True:
        asked = time.monotonic()
        if condition():
            return
        if process is not None and process.poll() is not None and not condition():
            raise RuntimeError(f"{what}: the process ended with {process.returncode} before")
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {HANG} s")
        # What asks SLURM takes time of the cores that it waits for.
        time.sleep(min(max(0.2, 20 * (time.monotonic() - asked)), 1))


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"/usr/sbin:{os.environ['PATH']}")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for number in sockets:
            number.bind(("127.0.0.1", 0))
        return [number.getsockname()[1] for number in sockets]


def _remove(folder: Path) -> None:
    """Ends every process of a cluster and deletes its folder."""
    for _ in range(50):
        processes = list(_processes(str(folder)))
        for process in processes:
            _kill(process)
        if not processes:
            break
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


def _processes(folder: str) -> Iterator[int]:
    """The processes of the cluster in that folder."""
    for entry in Path("/proc").glob("[0-9]*"):
        process = int(entry.name)
        if _variable(process, MARK) == folder or (_log(process) or "").startswith(f"{folder}/"):
            yield process


def _node(process: int) -> str | None:
    """The node whose daemon a process is, or whose job."""
    log = _log(process)
    return Path(log).stem if log else _variable(process, "SLURMD_NODENAME")


def _log(process: int) -> str | None:
    """The node's log that a job's daemon writes to; its title took its environment's place."""
    if _name(process) == "slurmstepd":
        with contextlib.suppress(OSError):
            opened = map(os.readlink, Path(f"/proc/{process}/fd").iterdir())
            return next((path for path in opened if fnmatch(path, f"{HOME}/*/log/*.log")), None)
    return None


def _name(process: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/comm").read_text().strip()
    return ""


def _variable(process: int, name: str) -> str | None:
    """A variable of a process's environment at its start."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/environ").read_bytes().split(b"\0"):
            key, _, value = line.partition(b"=")
            if key == name.encode():
                return value.decode()
    return None


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    reason = why_not()
    if reason:
        sys.exit(reason)
    with Cluster() as cluster:
        print(f"export SLURM_CONF={cluster.folder}/slurm.conf PATH={cluster.folder}/bin:$PATH")
        sys.stdin.read()
