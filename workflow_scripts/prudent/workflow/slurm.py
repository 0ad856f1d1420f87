"""Requests that a SLURM partition can never grant: found before the first job, and named later.

By default SLURM takes a job whose request exceeds its partition's limits, and leaves it pending for
ever. Snakemake waits just as long, and says nothing.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prudent.errors import InputError, quoted

HELD = re.compile(
    "(JobHeldUser|JobHeldAdmin|JobHoldMaxRequeue|JobLaunchFailure|BurstBufferOperation|DeadLine"
    "|DependencyNeverSatisfied|Reservation(Deleted|Invalid)|.*requeued[ _](held|in[ _].*state))"
)
"""Reasons of pending jobs that waiting does not end, wherever the job is to run. After a requeue
SLURM says them in words, such as "launch failed requeued held"."""

REFUSED = re.compile(
    "(Partition(TimeLimit|NodeLimit|Config)|BadConstraints|MaxMemPerLimit"
    "|(Account|QOS)NotAllowed|Invalid(Account|QOS)"
    "|QOSMin.*|(Assoc|QOS)Max.*(PerJob(Limit)?|PerNode))"
)
"""Reasons of SLURM's list (job_reason_codes) that waiting does not end, in a partition. Limits of a
user, an account or a group are not among them: they pass when other jobs end, or usage decays."""


@dataclass(frozen=True)
class Request:
    """What a job, or a group of jobs in one, asks its partition for."""

    rule: str
    attempt: int
    partition: str
    """A name, or several with commas between: SLURM takes the first that lets the job start."""
    minutes: float | None
    memory: int | None
    """In MB, of a node."""
    cpus: int
    gpus: int
    model: str | None


@dataclass(frozen=True)
class Node:
    """What a node has; ``gpus`` by model, with '' for those of no stated model."""

    cpus: int
    memory: int
    gpus: dict[str, int]

    def gpus_of(self, model: str | None) -> int:
        return self.gpus.get(model, 0) if model else sum(self.gpus.values())


@dataclass(frozen=True)
class Partition:
    """A partition's limits; None where there is none."""

    name: str
    minutes: float | None
    default: bool
    nodes: tuple[Node, ...]


def partitions() -> dict[str, Partition]:
    """The cluster's partitions by name; none where SLURM does not answer."""
    try:
        limits = _ask("scontrol", "show", "partition", "--oneliner", "--all")
        nodes = _ask("sinfo", "--noheader", "--Node", "--all", "--format=%R|%c|%m|%G")
    except (OSError, subprocess.SubprocessError):
        return {}
    return parsed(limits, nodes)


def parsed(limits: str, nodes: str) -> dict[str, Partition]:
    """Partitions from what scontrol prints of them, and sinfo, a line a node and partition."""
    found = {}
    for line in limits.splitlines():
        fields = dict(re.findall(r"(\w+)=(\S*)", line))
        if "PartitionName" not in fields:
            continue
        name, most = fields["PartitionName"], {}
        for key, limit in (("cpus", "MaxCPUsPerNode"), ("memory", "MaxMemPerNode")):
            most[key] = int(fields[limit]) if fields.get(limit, "").isdigit() else None
        found[name] = Partition(
            name,
            minutes_of(fields.get("MaxTime", "UNLIMITED")),
            fields.get("Default") == "YES",
            tuple(_nodes(name, nodes, **most)),
        )
    return found


def _nodes(partition: str, text: str, cpus: int | None, memory: int | None) -> Iterator[Node]:
    for line in text.splitlines():
        # A mixture of nodes is shown as its smallest, with a plus; what else there is, is no node.
        shown = re.fullmatch(r"([^|]*)\|(\d+)\+?\|(\d+)\+?\|(.*)", line)
        if shown is None or shown[1] != partition:
            continue
        gpus: dict[str, int] = {}
        for model, count in re.findall(r"gpu(?::([^:,(]+))?:(\d+)(?=[,(]|$)", shown[4]):
            gpus[model] = gpus.get(model, 0) + int(count)
        own = int(shown[2]), int(shown[3])
        yield Node(min(own[0], cpus or own[0]), min(own[1], memory or own[1]), gpus)


def minutes_of(text: str) -> float | None:
    """SLURM's times, such as 1-12:30:00, 12:30:00, 30:00 or UNLIMITED, in minutes."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if not match:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return (days * 24 + hours) * 60 + minutes + seconds / 60


def impossible(request: Request, known: dict[str, Partition]) -> str | None:
    """Why a request can never be granted, in one line that names the resource; else None.

    Of a list of partitions one has to grant it.
    """
    where = f"rule {request.rule}, resource"
    names = [name for name in request.partition.split(",") if name]
    if not names:
        return (
            f"{where}s: no partition in the file of partitions takes attempt {request.attempt}, "
            f"which asks for {_text(request.minutes or 0)} minutes, {request.memory or 0} MB, "
            f"{request.cpus} CPUs and {request.gpus} GPUs"
        )
    for name in names:
        if name not in known:  # sbatch refuses the whole list
            return (
                f"{where} slurm_partition: found {quoted(name)}, expected one of the "
                f"cluster's partitions, {', '.join(known)}"
            )
    refusals = [_refusal(request, known[name]) for name in names]
    if None in refusals:
        return None
    if len(names) == 1:
        return f"{where} {refusals[0]}"
    each = "; ".join(f"in {name}, {why}" for name, why in zip(names, refusals, strict=True))
    return f"{where} slurm_partition: none of {', '.join(names)} grants the request: {each}"


def _refusal(request: Request, partition: Partition) -> str | None:
    """Why a partition can never grant a request, beginning with the resource; else None."""
    for key, asked, limit, unit in _pairs(request, partition):
        if limit is not None and asked is not None and asked > limit:
            return (
                f"{key}: attempt {request.attempt} asks for {_text(asked)} {unit}, and "
                f"the partition {partition.name} grants at most {_text(limit)}; SLURM would leave "
                f"the job pending for ever; in the profile, set another partition or less, as in "
                f"set-resources: {request.rule}: {{{key}: {_text(limit)}}}"
            )
    if partition.nodes and not any(_fits(request, node) for node in partition.nodes):
        return (
            f"mem_mb, threads and gpu: attempt {request.attempt} asks for "
            f"{request.memory or 0} MB, {request.cpus} CPUs and {request.gpus} GPUs of one node; "
            f"the partition {partition.name} has nodes of each, and none of all three; SLURM "
            "would leave the job pending for ever"
        )
    return None


def _pairs(
    request: Request, partition: Partition
) -> Iterator[tuple[str, float | None, float | None, str]]:
    """Resource by resource: its key, what is asked for, the most that there is, and its unit."""
    yield "runtime", request.minutes, partition.minutes, "minutes"
    if not partition.nodes:
        return
    nodes, model = partition.nodes, request.model
    yield "mem_mb", request.memory, max(node.memory for node in nodes), "MB of a node"
    yield "threads", request.cpus, max(node.cpus for node in nodes), "CPUs of a node"
    gpus = max(node.gpus_of(model) for node in nodes)
    yield "gpu", request.gpus, gpus, f"{model or ''} GPUs of a node".lstrip()


def _text(number: float) -> str:
    return f"{number:.0f}" if number == int(number) else f"{number:.1f}"


def _fits(request: Request, node: Node) -> bool:
    return (
        (request.memory or 0) <= node.memory
        and request.cpus <= node.cpus
        and request.gpus <= node.gpus_of(request.model)
    )


def check_requests(workflow: Any, executor: Any) -> None:
    """Checks what a run's jobs will ask for, and goes on looking at them while they wait.

    ``workflow`` is Snakemake's, its DAG known; ``executor`` is SLURM's executor's module. Where it
    was given a file of partitions, it chooses one for each job, whatever the profile names.

    Raises InputError for what no partition can grant.
    """
    choose = None
    file = workflow.executor_settings.partition_config
    if file := file or os.environ.get("SNAKEMAKE_SLURM_PARTITIONS"):
        from snakemake.resources import Resource

        for each in workflow.rules:
            each.resources["slurm_partition"] = Resource("slurm_partition", "")
        candidates = executor.read_partition_file(file)
        quiet = logging.Logger("partitions", logging.CRITICAL)
        choose = lambda job: executor.get_best_partition(candidates, job, quiet) or ""  # noqa: E731
    needed = set(workflow.dag.needrun_jobs())
    jobs = [
        job
        for job in workflow.dag.get_jobs_or_groups()
        if not job.is_local and needed & set(job.jobs if job.is_group() else [job])
    ]
    known = partitions()
    default = next((name for name, part in known.items() if part.default), "")
    for request in requests(jobs, default, choose):
        message = known and impossible(request, known)
        if message:
            raise InputError(message)
    watch(Path.cwd())


def requests(jobs: Iterable[Any], default: str, choose: Any = None) -> Iterator[Request]:
    """What Snakemake's jobs and groups will ask for, at their first and their last attempt.

    ``default`` is the partition of a job that names none; with ``choose``, what that finds for it.
    """
    seen = set()
    for job in jobs:
        first = job.attempt
        for attempt in sorted({first, 1 + max(job.restart_times, 0)}):
            job.attempt = attempt
            request = _request(job, attempt, default, choose)
            if request not in seen:
                seen.add(request)
                yield request
        job.attempt = first


def _request(job: Any, attempt: int, default: str, choose: Any) -> Request:
    asked = job.resources
    # As the executor reads them: gres is another way to ask for GPUs.
    gres = re.fullmatch(r"gpu(?::([^:]+?))??(?::(\d+))?", str(asked.get("gres") or ""))
    gpus, model = int(asked.get("gpu") or 0), asked.get("gpu_model")
    if gres:
        gpus, model = int(gres[2] or 1), gres[1]
    cpus = max(int(asked.get("cpus_per_task") or job.threads), 1)
    if gpus and not asked.get("cpus_per_task") and asked.get("cpus_per_gpu"):
        cpus = max(int(asked["cpus_per_gpu"]), 0) * gpus
    memory = asked.get("mem_mb")
    if asked.get("mem_mb_per_cpu"):
        memory = int(asked["mem_mb_per_cpu"]) * cpus
    minutes = asked.get("runtime")
    return Request(
        rule=job.groupid if job.is_group() else job.rule.name,
        attempt=attempt,
        partition=asked.get("slurm_partition") or (choose(job) if choose else default),
        minutes=float(minutes) if isinstance(minutes, int | float) else None,
        memory=int(memory) if isinstance(memory, int | float) else None,
        cpus=cpus,
        gpus=gpus,
        model=model,
    )


def never_ending(text: str, folder: Path) -> Iterator[tuple[str, str, str]]:
    """The pending jobs of a folder that wait in vain: id, what they are, SLURM's reason.

    ``text`` is what squeue prints, a line a job: id, partition, reason, working directory and
    comment. Of a job in several partitions the reason is that of one, and another may take it.
    """
    for line in text.splitlines():
        if line.count("|") < 4:  # a warning, say
            continue
        job, partition, reason, place, comment = line.split("|", 4)
        vain = HELD.fullmatch(reason) or ("," not in partition and REFUSED.fullmatch(reason))
        if vain and Path(place) == folder:
            name = re.sub(r"_wildcards_", " of ", comment).removeprefix("rule_")
            yield job, name, reason


def watch(folder: Path, seconds: float = 30.0) -> None:
    """Says, while the process lives, which of a folder's jobs wait for what never comes."""

    def look() -> None:
        said, ended = set(), threading.Event()
        while not ended.wait(seconds):
            try:
                # SE: requeued after a special exit, and held
                text = _ask(
                    *("squeue", "--me", "--noheader", "--states=PD,SE"),
                    "--format=%i|%P|%r|%Z|%k",
                )
            except (OSError, subprocess.SubprocessError):
                continue
            for job, name, reason in never_ending(text, folder):
                if (job, reason) not in said:
                    said.add((job, reason))
                    _logger().warning(
                        f"SLURM job {job} ({name}) is pending for the reason {reason}, which "
                        "waiting does not change; change the job with scontrol, or stop this "
                        "run, ask for something else, and start it again"
                    )

    threading.Thread(target=look, daemon=True, name="slurm-watch").start()


def _logger() -> Any:
    """Snakemake's own, whose messages the user sees."""
    from snakemake.logging import logger

    return logger


def _ask(*command: str) -> str:
    return subprocess.run(
        command, capture_output=True, check=True, encoding="utf-8", errors="replace", timeout=60
    ).stdout
