"""Requests against partitions, as scontrol, sinfo and squeue print them."""

from dataclasses import replace
from pathlib import Path

import pytest

from prudent.workflow.slurm import Node, Request, impossible, minutes_of, never_ending, parsed

# As printed by SLURM 22.05 to 24.11; what is not read is left out.
LIMITS = """
PartitionName=cpu AllowGroups=ALL Default=YES MaxTime=7-00:00:00 MaxMemPerNode=UNLIMITED State=UP
PartitionName=gpu Default=NO MaxTime=08:00:00 MaxCPUsPerNode=16 MaxMemPerNode=UNLIMITED State=UP
PartitionName=open Default=NO MaxTime=UNLIMITED MaxCPUsPerNode=UNLIMITED MaxMemPerNode=64000
"""
NODES = """\
cpu|64|1000000|(null)
gpu|48|256000|gpu:a40:4(S:0-1)
gpu|48+|512000+|gpu:a40:2,gpu:h100:2(IDX:0-1),mps:100
gpu|8|64000|gpu:8
open|8|1000000|gpu:8
"""
REQUEST = Request("train_policy", 1, "gpu", 480.0, 16000, 4, 1, "a40")


def test_partitions_are_what_slurm_prints():
    found = parsed(LIMITS, NODES)
    assert {name: part.minutes for name, part in found.items()} == {
        "cpu": 7 * 24 * 60,
        "gpu": 480,
        "open": None,
    }
    assert [part.default for part in found.values()] == [True, False, False]
    assert found["cpu"].nodes == (Node(64, 1_000_000, {}),)
    assert found["gpu"].nodes == (
        Node(16, 256_000, {"a40": 4}),
        Node(16, 512_000, {"a40": 2, "h100": 2}),
        Node(8, 64_000, {"": 8}),
    )
    assert found["open"].nodes == (Node(8, 64_000, {"": 8}),)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("1-12:30:00", 36 * 60 + 30),
        ("12:30:00", 750),
        ("30:00", 30),
        ("00:00:30", 0.5),
        ("UNLIMITED", None),
        ("INFINITE", None),
    ],
)
def test_times(text, minutes):
    assert minutes_of(text) == minutes


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gpus": 4},
        {"model": "h100", "gpus": 2},
        {"model": None, "gpus": 8, "cpus": 8},
        {"cpus": 16, "memory": 512_000, "gpus": 2},
        {"partition": "open", "minutes": 1e6, "model": None},
        {"partition": "cpu", "gpus": 0, "model": None, "memory": 1_000_000},
        {"minutes": None, "memory": None},
        # Of a list, one is enough, wherever it stands.
        {"partition": "cpu,gpu"},
        {"partition": "gpu,cpu"},
        {"partition": "gpu,open", "minutes": 481.0, "model": None},
    ],
)
def test_what_fits_is_let_through(changes):
    assert impossible(replace(REQUEST, **changes), parsed(LIMITS, NODES)) is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"minutes": 481.0}, "runtime: attempt 1 asks for 481 minutes, and the partition gpu gran"),
        ({"attempt": 3, "memory": 512_001}, "mem_mb: attempt 3 asks for 512001 MB of a node"),
        ({"cpus": 17}, "threads: attempt 1 asks for 17 CPUs of a node"),
        ({"gpus": 5}, "gpu: attempt 1 asks for 5 a40 GPUs of a node"),
        ({"model": "a100"}, "gpu: attempt 1 asks for 1 a100 GPUs of a node"),
        ({"model": None, "gpus": 9}, "gpu: attempt 1 asks for 9 GPUs of a node"),
        ({"partition": "cpu"}, "gpu: attempt 1 asks for 1 a40 GPUs of a node"),
        ({"partition": "open", "memory": 64_001}, "mem_mb: attempt 1 asks for 64001 MB of a node"),
        ({"partition": "none"}, "slurm_partition: found 'none', expected one of the cluster's"),
        ({"partition": "gpu,none"}, "slurm_partition: found 'none', expected one of the clus"),
        ({"partition": ""}, "no partition in the file of partitions takes attempt 1, which asks"),
        # Each alone is there, and not in one node.
        ({"gpus": 4, "memory": 300_000}, "has nodes of each, and none of all three"),
    ],
)
def test_what_fits_nowhere_is_named(changes, says):
    message = impossible(replace(REQUEST, **changes), parsed(LIMITS, NODES))
    assert message.startswith("rule train_policy, resource") and says in message
    assert "\n" not in message


def test_a_list_of_partitions_is_refused_by_all_of_them():
    asked = replace(REQUEST, partition="gpu,cpu,open", minutes=481.0)
    message = impossible(asked, parsed(LIMITS, NODES))
    assert "\n" not in message and message.startswith(
        "rule train_policy, resource slurm_partition: none of gpu, cpu, open grants the request: "
        "in gpu, runtime: attempt 1 asks for 481 minutes, and the partition gpu grants at most 480"
    )
    assert "; in cpu, gpu: attempt 1 asks for 1 a40 GPUs of a node" in message
    assert "; in open, gpu: attempt 1 asks for 1 a40 GPUs of a node" in message


def test_a_partition_without_nodes_has_its_time_limit_alone():
    known = parsed(LIMITS, "")
    assert impossible(replace(REQUEST, gpus=99), known) is None
    assert "runtime" in impossible(replace(REQUEST, minutes=481.0), known)


def test_lines_of_another_form_are_no_nodes_and_no_jobs():
    odd = "slurm_load_partitions: warning\ngpu|many|64000|gpu:8\ngpu|48\n\ngpu|8|64000|gpu:8|up\n"
    found = parsed("no answer\n" + LIMITS, odd + NODES)
    assert found["cpu"] == parsed(LIMITS, NODES)["cpu"]
    assert found["gpu"].nodes[-3:] == parsed(LIMITS, NODES)["gpu"].nodes
    assert list(never_ending("squeue: error\n7|cpu|PartitionTimeLimit\n", Path("/work"))) == []


def test_jobs_that_wait_in_vain():
    text = (
        "7|gpu|PartitionTimeLimit|/work/study|rule_train_policy_wildcards_vanilla_3\n"
        "8|gpu|Priority|/work/study|rule_train_policy_wildcards_vanilla_4\n"
        "9|gpu|BadConstraints|/work/other|rule_train_policy\n"
        "10|gpu|QOSMaxCpuPerJobLimit|/work/study|rule_train_reference\n"
        # The other partition may take it.
        "11|gpu,urgent|PartitionTimeLimit|/work/study|rule_train_reference\n"
        "12|gpu,urgent|JobHeldUser|/work/study|rule_train_judge\n"
    )
    assert list(never_ending(text, Path("/work/study"))) == [
        ("7", "train_policy of vanilla_3", "PartitionTimeLimit"),
        ("10", "train_reference", "QOSMaxCpuPerJobLimit"),
        ("12", "train_judge", "JobHeldUser"),
    ]


# SLURM's reasons (job_reason_codes, 22.05 to 25.05), of each family one or two.
IN_VAIN = """
AccountNotAllowed AssocMaxBillingPerJob AssocMaxCpuMinutesPerJobLimit AssocMaxCpuPerJobLimit
AssocMaxCpuPerNode AssocMaxGRESPerJob AssocMaxGRESPerNode AssocMaxMemMinutesPerJob
AssocMaxMemPerNode AssocMaxNodePerJobLimit AssocMaxUnknownPerNode AssocMaxWallDurationPerJobLimit
BadConstraints BurstBufferOperation DeadLine DependencyNeverSatisfied InvalidAccount InvalidQOS
JobHeldAdmin JobHeldUser JobHoldMaxRequeue JobLaunchFailure MaxMemPerLimit PartitionConfig
PartitionNodeLimit PartitionTimeLimit QOSMaxBBPerNode QOSMaxCpuPerJobLimit QOSMaxCpuPerNode
QOSMaxGRESMinutesPerJob QOSMaxGRESPerNode QOSMaxMemoryPerJob QOSMaxMemoryPerNode
QOSMaxNodePerJobLimit QOSMaxWallDurationPerJobLimit QOSMinBB QOSMinBilling QOSMinCpuNotSatisfied
QOSMinEnergy QOSMinGRES QOSMinLicense QOSMinMemory QOSMinNode QOSMinUnknown QOSNotAllowed
ReservationDeleted ReservationInvalid
"""
IN_WORDS = [
    "launch failed requeued held",
    "launch_failed_requeued_held",
    "user env retrieval failed requeued held",
    "job requeued in held state",
    "job_requeued_in_special_exit_state",
]
FOR_A_WHILE = """
AccountingPolicy AssocGrpCpuLimit AssocGrpCPUMinutesLimit AssocGrpCPURunMinutesLimit AssocGrpGRES
AssocGrpGRESRunMinutes AssocGrpJobsLimit AssocGrpMemLimit AssocGrpSubmitJobsLimit AssocGrpWallLimit
AssocMaxJobsLimit AssocMaxSubmitJobLimit AssociationJobLimit AssociationResourceLimit BeginTime
BurstBufferResources BurstBufferStageIn Cleaning Constraints Dependency FedJobLock
JobArrayTaskLimit Licenses MaxCpuPerAccount MaxGRESPerAccount MaxGRESRunMinsPerUser
MaxJobsPerAccount MaxMemoryPerAccount MaxPoweredUpNodes MpiPortsBusy NodeDown None PartitionDown
PartitionInactive Priority Prolog QOSGrpBilling QOSGrpCPUMinutesLimit QOSGrpCpuLimit QOSGrpGRES
QOSGrpMemLimit QOSGrpNodeLimit QOSGrpWallLimit QOSJobLimit QOSMaxBBPerUser QOSMaxCpuPerUserLimit
QOSMaxGRESPerUser QOSMaxJobsPerUserLimit QOSMaxMemoryPerUser QOSMaxNodePerUserLimit
QOSMaxSubmitJobPerUserLimit QOSResourceLimit QOSUsageThreshold ReqNodeNotAvail Reservation
Resources SchedDefer SystemFailure
"""


@pytest.mark.parametrize("reason", [*IN_VAIN.split(), *IN_WORDS])
def test_reasons_that_waiting_does_not_end(reason):
    found = never_ending(f"7|gpu|{reason}|/work|rule_train_policy\n", Path("/work"))
    assert list(found) == [("7", "train_policy", reason)]


@pytest.mark.parametrize(
    "reason",
    [
        *FOR_A_WHILE.split(),
        "ReqNodeNotAvail, UnavailableNodes:a[1-2]",
        "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority "
        "partitions",
    ],
)
def test_reasons_that_pass(reason):
    text = f"7|gpu|{reason}|/work|rule_train_policy\n"
    assert list(never_ending(text, Path("/work"))) == []
