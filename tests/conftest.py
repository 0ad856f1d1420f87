"""What several tests share: copies of the project, Snakemake in them, and one finished tiny run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import warm
from cluster import HANG, Cluster, why_not
from filelock import FileLock
from xdist.scheduler import LoadFileScheduling

from prudent.workflow.checks import effective_config
from prudent.workflow.config_docs import DEFAULTS
from prudent.workflow.configfiles import read_config
from prudent.workflow.remembered import Memory

# Tests that run at once (pytest -n) would fight for the cores. Torch reads this when imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parents[1]
TINY = "tests/config/tiny.yaml"
PARTS = ("Snakefile", "config.yaml", "rules", "scenarios", "profiles", "slurm", "envs")

Output = subprocess.CompletedProcess[str]


def copy_project(folder: Path) -> Path:
    """A copy of the workflow in ``folder``, to run in and to edit."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in (*PARTS, "workflow_scripts", "tests/config"):
        source, target = ROOT / part, folder / part
        if source.is_symlink():
            target.symlink_to(os.readlink(source))
        elif source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    return folder


def environment(folder: Path, path: Path | None = None) -> dict[str, str]:
    """Snakemake's environment: nothing of the user's settings, and nothing from the net."""
    kept = {
        name: value
        for name, value in os.environ.items()
        # The jobs of one copy share what Python has compiled of its modules.
        if not name.startswith(("SNAKEMAKE", "XDG", "PYTEST", "PYTHONDONTWRITEBYTECODE"))
    }
    kept |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg"}
    return kept | {"HOME": str(folder), "PYTHONPATH": str(path or "")}


def python() -> str:
    """A Python that has imported already, which also Snakemake's jobs then are (warm.py)."""
    return os.environ["PYTEST_WARM_PYTHON"]


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # workers share the server of who started them
        place = Path(tempfile.mkdtemp(prefix="prudent-"))
        command, server = warm.start(place)
        os.environ["PYTEST_WARM_PYTHON"] = str(command)
        config.add_cleanup(lambda: (server.kill(), server.wait(), shutil.rmtree(place)))


def snakemake(folder: Path, *arguments: str, path: Path | None = None, **variables: str) -> Output:
    """Runs Snakemake in ``folder``, with some more variables in its environment."""
    given = environment(folder, path) | variables
    # Snakemake looks for its plugins when it is imported, so a path to some needs it afresh.
    return subprocess.run(
        [python() if path is None else sys.executable, "-m", "snakemake", *arguments],
        cwd=folder,
        env=given,
        capture_output=True,
        text=True,
    )


def start(
    cluster: Cluster,
    folder: Path,
    *arguments: str,
    executable: str | None = None,
    **variables: str,
) -> subprocess.Popen[str]:
    """Starts Snakemake on the cluster; its output goes to the file snakemake.log.

    Its jobs are run by the same ``executable``, by default the Python that has imported already.
    """
    # Jobs here take seconds, so they are looked at more often than the profile says.
    options = ("--profile", "slurm", "--slurm-init-seconds-before-status-checks", "5")
    with (folder / "snakemake.log").open("a") as log:
        return subprocess.Popen(
            [executable or python(), "-m", "snakemake", *options, *arguments],
            cwd=folder,
            env=environment(folder) | cluster.variables | variables,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            # Ctrl-C reaches it, too, where the tests themselves were started in the background.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def finish(process: subprocess.Popen[str], folder: Path, status: int = 0) -> str:
    """Waits for the end of what ``start`` started, and returns its output."""
    process.wait(timeout=HANG)
    output = (folder / "snakemake.log").read_text()
    assert process.returncode == status, output
    return output


def dry_run(folder: Path, *arguments: str, path: Path | None = None) -> dict[str, int]:
    """The number of jobs per rule that a run would have, without ``all``; {} for nothing to do."""
    output = snakemake(folder, "--dry-run", *arguments, path=path)
    assert output.returncode == 0, output.stdout + output.stderr
    return job_counts(output.stdout + output.stderr)


def job_counts(text: str) -> dict[str, int]:
    """Snakemake's table of job counts, without ``all`` and ``total``."""
    if "Nothing to be done" in text:
        return {}
    table = text.split("Job stats:", 1)[1].split("total", 1)[0]
    counts = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.M)}
    assert counts, text
    counts.pop("all", None)
    return counts


def install(folder: Path, package: str) -> Path:
    """A folder with another version of a package, as far as its metadata say."""
    metadata = folder / f"{package}-99.0.dist-info/METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 99.0\n")
    return folder


@pytest.fixture
def config() -> dict[str, Any]:
    """The default scenario as jobs see it, with every key; to be changed by a test."""
    return effective_config(read_config(DEFAULTS), Memory(Path("none")))


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library `datasets` caches in the test's folder, and asks nothing of the net."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the workflow that is only read."""
    return copy_project(tmp_path_factory.mktemp("project"))


Make = Callable[[Path], None]


@pytest.fixture(scope="session")
def made_once(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Callable[[str, Make], Path]:
    """A function that gives a folder of that name, made by the first worker that asks for it."""
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent

    def folder(name: str, make: Make) -> Path:
        shared = base / "made" / name
        shared.parent.mkdir(exist_ok=True)
        with FileLock(f"{shared}.lock"):
            if not shared.exists():
                place = tmp_path_factory.mktemp(name) / "project"
                make(place)
                place.rename(shared)
        return shared

    return folder


def run_tiny(folder: Path) -> None:
    """Runs the tiny scenario to its end in a copy of the workflow."""
    output = snakemake(copy_project(folder), "--cores", "2", "--configfile", TINY)
    assert output.returncode == 0, output.stdout + output.stderr


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory, made_once: Callable[[str, Make], Path]
) -> Path:
    """A copy of the workflow in which the tiny scenario was run to its end."""
    own = tmp_path_factory.mktemp("finished") / "project"  # which tests edit
    return Path(shutil.copytree(made_once("tiny", run_tiny), own, symlinks=True))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A SLURM cluster, for as long as the tests run."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with Cluster() as running:
        yield running


# Long tests that need nothing of the others in their file, so that they run beside them, and first.
APART = {
    "test_every_kind_of_ensemble_is_trained_and_checked_without_policies": "all kinds",
    "test_policies_survive_the_loss_of_their_node": "faults of the cluster",
    "test_policies_survive_half_a_minute_without_slurmctld": "faults of the cluster",
    "test_full_disks": "faults of the cluster",
    "test_two_at_once_and_snakemake_killed_while_its_jobs_run": "faults of Snakemake",
    "test_snakemake_killed_and_its_jobs_cancelled": "faults of Snakemake",
    "test_no_way_back_beside_a_snakemake_on_another_machine": "faults of Snakemake",
    "test_jobs_see_their_own_gpus_and_no_more_at_once_than_the_cap": "requests",
    "test_a_cluster_that_takes_gres_alone": "requests",
    "test_what_no_partition_grants_is_refused_before_the_first_job": "requests",
    "test_a_job_that_comes_to_wait_in_vain_is_named": "requests",
    "test_a_file_of_partitions_chooses_them": "requests",
}


class Groups(LoadFileScheduling):
    """The tests of a file share a worker, and with it their fixtures, but for those apart."""

    def _split_scope(self, nodeid: str) -> str:
        name = nodeid.split("::")[-1].split("[")[0]
        return APART.get(name, super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    return Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of the cluster first: they mostly wait, while others run beside them. Then the
    longest, so that none is left alone at the end.

    What needs a finished run or a cluster has the mark of it.
    """
    for item in items:
        names = getattr(item, "fixturenames", ())
        if "cluster" in names:
            item.add_marker("cluster")
        if "cluster" in names or "finished" in names:
            item.add_marker("slow")
    items.sort(key=lambda item: not (item.get_closest_marker("cluster") or _name(item) in APART))


def _name(item: pytest.Item) -> str:
    return item.name.split("[")[0]


@pytest.fixture
def edit(finished: Path) -> Any:
    """A function that edits a file of the finished run's copy, until the test's end."""
    saved: dict[Path, str] = {}

    def change(name: str, edited: Callable[[str], str]) -> None:
        path = finished / name
        before = path.read_text(encoding="utf-8")
        saved.setdefault(path, before)
        after = edited(before)
        assert after != before, f"{name}: the edit changed nothing"
        path.write_text(after, encoding="utf-8")

    yield change
    for path, text in saved.items():
        path.write_text(text, encoding="utf-8")
