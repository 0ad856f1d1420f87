"""The SLURM profile on a real cluster: what the jobs are granted, see and leave."""

import re
import signal
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml
from cluster import Cluster, wait_for
from conftest import TINY, copy_project, dry_run, finish, start

# What a job of each rule is granted: partition, GPUs, CPUs, memory in MB, minutes.
GRANTED = {
    "prepare_texts": ("cpu", 0, 1, 4000, 60),
    "prepare_prompts": ("cpu", 0, 1, 4000, 60),
    "prepare_preferences": ("gpu", 1, 8, 8000, 120),
    "prepare_benchmark": ("cpu", 0, 1, 4000, 60),
    "train_reference": ("gpu", 1, 8, 8000, 240),
    "train_reward_base": ("gpu", 2, 8, 16000, 720),
    "compute_features": ("gpu", 1, 8, 16000, 240),
    "train_ensemble": ("gpu", 1, 1, 16000, 240),
    "diagnose_rewards": ("gpu", 1, 1, 16000, 120),
    "train_replicate": ("gpu", 1, 1, 16000, 720),
    "sample_reference": ("gpu", 1, 8, 8000, 240),
    "score_reference": ("gpu", 1, 8, 16000, 240),
    "exact_policies": ("cpu", 0, 8, 8000, 240),
    "exact_frontier": ("cpu", 0, 8, 8000, 60),
    "score_benchmark": ("gpu", 1, 8, 16000, 120),
    "train_pilots": ("gpu", 1, 1, 16000, 240),
    "calibrate_beta": ("gpu", 1, 1, 16000, 720),
    "train_policy": ("gpu", 1, 1, 16000, 480),
    # A method's policies answer in one job.
    "respond": ("gpu", 1, 1, 16000, 60),
    "respond_reference": ("gpu", 1, 1, 16000, 45),
    "judge_responses": ("gpu", 1, 1, 16000, 120),
    "reward_responses": ("gpu", 1, 1, 16000, 120),
    "compare_methods": ("cpu", 0, 1, 4000, 30),
}

Job = dict[str, str]


def rule(job: Job) -> str:
    """A job's rule, from the comment that the executor gives it."""
    return re.sub(r"_wildcards_.*", "", job["Comment"].removeprefix("rule_"))


def granted(job: Job) -> tuple[str, int, int, int, int]:
    """What SLURM gave a job."""
    gpus = re.fullmatch(r"gpu:a40:(\d+)", job["JOB_GRES"]) if "JOB_GRES" in job else None
    cpus, memory = re.match(r"cpu=(\d+),mem=(\d+)M,node=1,", job["TRES"]).groups()
    days, hours, minutes = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):00", job["TimeLimit"]).groups("0")
    time = (24 * int(days) + int(hours)) * 60 + int(minutes)
    return job["Partition"], int(gpus[1]) if gpus else 0, int(cpus), int(memory), time


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the runs have as SNAKEMAKE_OUTPUT_CACHE."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def run(
    cluster: Cluster, store: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Job]]:
    """The tiny scenario, stopped by Ctrl-C on the way and started again; its folder and jobs."""
    folder = copy_project(tmp_path_factory.mktemp("cluster"))
    variables = {"SNAKEMAKE_OUTPUT_CACHE": str(store)}
    process = start(cluster, folder, "--configfile", TINY, **variables)

    def features_are_computed() -> bool:
        states = {rule(job): job["JobState"] for job in cluster.jobs(folder)}
        return states.get("compute_features") == "RUNNING"

    wait_for(features_are_computed, "the features' job", process)
    process.send_signal(signal.SIGINT)
    finish(process, folder, 1)
    finish(start(cluster, folder, "--configfile", TINY, **variables), folder)
    return folder, cluster.jobs(folder)


def runs_at(job: Job, time: str) -> bool:
    return job["StartTime"] <= time < job["EndTime"]


def test_a_run_that_was_stopped_goes_on_to_its_end(run):
    folder, jobs = run
    assert dry_run(folder, "--configfile", TINY) == {}
    ended = Counter((rule(job), job["JobState"]) for job in jobs)
    assert ended.pop(("compute_features", "CANCELLED")) == 1
    # Two methods of two seeds each; the reference's responses are judged and rewarded too.
    expected = dict.fromkeys(GRANTED, 1) | {"train_policy": 4, "respond": 2, "train_replicate": 3}
    expected |= {"judge_responses": 3, "reward_responses": 3}
    # What had ended before was not done again, and figures and tables never were jobs.
    assert ended == {(name, "COMPLETED"): count for name, count in expected.items()}


def test_every_job_was_granted_what_the_profile_says(run):
    _, jobs = run
    assert {(rule(job), granted(job)) for job in jobs} == set(GRANTED.items())
    for job in jobs:
        assert job["Requeue"] == "1" and job["JobName"].startswith("prudent_")


def test_the_base_model_was_trained_in_as_many_processes_as_gpus(run, finished):
    folder, _ = run
    log = (folder / "results/tiny/logs/train_reward_base.log").read_text()
    assert "training in 2 processes" in log
    shared, alone = (
        pd.read_csv(place / "results/tiny/reward/base_loss.csv") for place in (folder, finished)
    )
    train = alone["split"] == "train"  # the last batch of the others is not full
    assert train.any()
    pd.testing.assert_frame_equal(shared[train], alone[train], rtol=1e-5)


def test_logs_and_timings_came_back(run):
    folder, _ = run
    results = folder / "results/tiny"
    for part, count in (("logs", 61 - 1), ("timings", 61 - 1 - 8)):
        files = [path for path in (results / part).rglob("*") if path.is_file()]
        assert len(files) == count
    for path in (results / "timings").rglob("*.tsv"):
        header, values = path.read_text().splitlines()
        assert header.startswith("s\t") and float(values.split("\t")[0]) > 0
    assert "step 2 of 2" in (results / "logs/train_policy/vanilla/seed1.log").read_text()
    left = list((folder / ".snakemake/slurm_logs").rglob("*.log"))
    assert all("compute_features" in str(path) for path in left), "a log of a job that went well"


SEEN = """
rule train_policy:
    output: "{n}.policy"
    resources: gpu=1
    shell: "sleep 5; echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES > {output}"
rule train_reward_base:
    output: "base"
    resources: gpu=2
    shell: "sleep 5; echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES > {output}"
rule plain:
    output: "plain"
    shell: "echo $SLURMD_NODENAME ${{CUDA_VISIBLE_DEVICES:-}} > {output}"
"""


def seen(path: Path) -> set[tuple[str, str]]:
    """The GPUs that a job of SEEN saw, each with its node."""
    node, *devices = path.read_text().split()
    return {(node, device) for device in ",".join(devices).split(",") if device}


def target(job: Job) -> str:
    return f"{job['Comment'][-1]}.policy" if rule(job) == "train_policy" else "base"


def test_jobs_see_their_own_gpus_and_no_more_at_once_than_the_cap(cluster, tmp_path):
    folder = copy_project(tmp_path / "project")
    (folder / "seen.smk").write_text(SEEN)
    arguments = ["--snakefile", "seen.smk", "--cache", "--resources", "gpu=3", "--"]
    names = ["base", "1.policy", "2.policy", "3.policy", "plain"]
    finish(start(cluster, folder, *arguments, *names), folder)
    devices = {name: seen(folder / name) for name in names}
    assert [len(devices[name]) for name in names] == [2, 1, 1, 1, 0]
    jobs = [job for job in cluster.jobs(folder) if granted(job)[1]]
    most = 0
    for job in jobs:
        at_once = [other for other in jobs if runs_at(other, job["StartTime"])]
        shown = set.union(*(devices[target(other)] for other in at_once))
        assert len(shown) == sum(granted(other)[1] for other in at_once), "a GPU for two jobs"
        most = max(most, len(shown))
    assert most == 3


def test_a_cluster_that_takes_gres_alone(cluster, tmp_path):
    """The change of the profile that its comment describes."""
    folder = copy_project(tmp_path / "project")
    (folder / "seen.smk").write_text(SEEN)
    profile = folder / "profiles/slurm/config.yaml"
    text = profile.read_text()
    line = re.search(r"\{slurm_partition: gpu, gpu: 0, gres: .*?\}", text)[0]
    changed = text.replace("&gpu {slurm_partition: gpu, gpu_model: a40}", f"&gpu {line}")
    assert changed != text
    profile.write_text(changed)
    finish(start(cluster, folder, "--cache", "--snakefile", "seen.smk", "--", "1.policy"), folder)
    assert len(seen(folder / "1.policy")) == 1
    (job,) = cluster.jobs(folder)
    assert granted(job)[:2] == ("gpu", 1) and job["TresPerNode"] == "gres:gpu:a40:1"


def test_a_second_checkout_takes_its_results_from_the_cache(cluster, run, store, tmp_path):
    """Its jobs are submitted nevertheless, and run no script."""
    folder = copy_project(tmp_path / "second")
    stages = ("data/benchmark.parquet", "reward/features.safetensors")
    arguments = ("--configfile", TINY, "--", *(f"results/tiny/{stage}" for stage in stages))
    finish(start(cluster, folder, *arguments, SNAKEMAKE_OUTPUT_CACHE=str(store)), folder)
    assert len(cluster.jobs(folder)) == 7
    logs = {place: (place / "results/tiny/logs").glob("*.log") for place in (folder, run[0])}
    told, tells = ({log.stem for log in logs[place] if log.stat().st_size} for place in logs)
    assert not told and {"prepare_texts", "train_reward_base", "compute_features"} <= tells
    for stage in stages:
        assert (folder / "results/tiny" / stage).resolve().is_relative_to(store.resolve())


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        # The last attempt alone is too long.
        ("runtime=4000*attempt", "resource runtime: attempt 3 asks for 12000 minutes"),
        ("mem_mb=1000001", "resource mem_mb: attempt 1 asks for 1000001 MB of a node"),
        ("gpu=5", "resource gpu: attempt 1 asks for 5 a40 GPUs of a node, .* at most 4"),
        ("gpu_model=h200", "resource gpu: attempt 1 asks for 1 h200 GPUs of a node, .* at most 0"),
        ("slurm_partition=gpus", "'gpus', expected one of the cluster's partitions, cpu, gpu, urg"),
        ("cpus_per_task=65", "resource threads: attempt 1 asks for 65 CPUs of a node"),
    ],
)
def test_what_no_partition_grants_is_refused_before_the_first_job(cluster, tmp_path, asked, says):
    folder = copy_project(tmp_path / "project")
    profile = folder / "profiles/slurm/config.yaml"
    key, _, value = asked.partition("=")
    settings = yaml.safe_load(profile.read_text())
    rules = settings["set-resources"]
    rules["train_policy"] = rules["train_policy"] | {key: yaml.safe_load(value)}
    profile.write_text(yaml.safe_dump(settings))
    output = finish(start(cluster, folder, "--configfile", TINY), folder, 1)
    (line,) = [line for line in output.splitlines() if line.startswith("rule train_policy")]
    assert re.search(says, line) and "Traceback" not in output
    assert not cluster.jobs(folder)


def test_a_job_that_comes_to_wait_in_vain_is_named(cluster, tmp_path):
    """Its partition's limit was lowered when the check had passed."""
    folder = copy_project(tmp_path / "project")
    options = ("--configfile", TINY, "--", "results/tiny/data/texts.parquet")
    cluster.run("scontrol", "update", "nodename=cpu1", "state=drain", "reason=test")
    try:
        process = start(cluster, folder, *options)
        wait_for(lambda: cluster.jobs(folder), "the job", process)
        cluster.run("scontrol", "update", "partitionname=cpu", "maxtime=1")
        log = folder / "snakemake.log"
        wait_for(lambda: "PartitionTimeLimit" in log.read_text(), "the warning", process)
        assert "(prepare_texts) is pending for the reason PartitionTimeLimit" in log.read_text()
    finally:
        cluster.run("scontrol", "update", "partitionname=cpu", "maxtime=7-0")
        cluster.run("scontrol", "update", "nodename=cpu1", "state=resume")
    finish(process, folder)


PARTITIONS = """
partitions:
  cpu: {max_runtime: 600, max_mem_mb: 1000000}
  urgent: {max_runtime: 600, max_mem_mb: 1000000, max_gpu: 4, available_gpu_models: [a40]}
"""


def test_a_file_of_partitions_chooses_them(cluster, tmp_path):
    folder = copy_project(tmp_path / "project")
    (folder / "partitions.yaml").write_text(PARTITIONS)
    options = ("--configfile", TINY, "--slurm-partition-config", "partitions.yaml")
    target = ("--", "results/tiny/reference.sha256")
    output = finish(start(cluster, folder, *options, *target), folder, 1)
    assert "no partition in the file of partitions takes attempt 3, which asks for 720" in output
    text = PARTITIONS.replace("600", "1000")
    (folder / "partitions.yaml").write_text(text)
    finish(start(cluster, folder, *options, *target), folder)
    chosen = {rule(job): granted(job)[0] for job in cluster.jobs(folder)}
    assert chosen == {"prepare_texts": "cpu", "train_reference": "urgent"}
