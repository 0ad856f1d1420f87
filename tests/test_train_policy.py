"""A policy's script: what it writes, and that it comes back after being killed."""

import json
import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
import train_policy
from conftest import environment, python
from tiny_models import CONFIGS, VOCABULARY, tiny_model, tiny_tokenizer
from tiny_runs import PROMPTS, CountingRewards, Preempted
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from prudent.policies.settings import SamplingSettings
from prudent.policies.target_kl import Calibration
from prudent.ppo.settings import TrainingSettings
from prudent.tables import write_json, write_parquet
from prudent.workflow import entry


def script_args(tmp_path, **settings) -> train_policy.Args:
    """Arguments of the script, and the files that they name."""
    tokenizer = tiny_tokenizer()
    tiny_model("gpt2", 0).save_pretrained(tmp_path / "reference")
    tokenizer.save_pretrained(tmp_path / "reference")
    config = CONFIGS["llama"].to_dict() | {"num_labels": 3, "pad_token_id": 1}
    config = type(CONFIGS["llama"])(**config)
    torch.manual_seed(0)
    ensemble = AutoModelForSequenceClassification.from_config(config)
    ensemble.save_pretrained(tmp_path / "ensemble/1")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(tmp_path / "ensemble/1")
    distinct = list(dict.fromkeys(PROMPTS))
    prompts = pd.DataFrame({"prompt": distinct, "source": "here", "tokens": 1, "split": "train"})
    prompts.loc[20:, "split"] = "test"
    write_parquet(prompts, tmp_path / "prompts.parquet", "prompts")

    return train_policy.Args(
        reference=tmp_path / "reference",
        ensemble=tmp_path / "ensemble",
        prompts=tmp_path / "prompts.parquet",
        policy=tmp_path / "policy",
        training_log=tmp_path / "policy.csv",
        objective="variance_aware",
        beta=0.1,
        draw=1,
        head=2,
        settings=TrainingSettings(
            **{"batch_size": 8, "minibatch_size": 8, "steps": 3, "checkpoint_every": 2}
            | {"learning_rate": 1e-3, **settings}
        ),
        sampling=SamplingSettings(response_length=5),
        checkpoints=tmp_path / "checkpoints",
        run_seed=2,
        seed=0,
        threads=torch.get_num_threads(),
    )


def test_a_judge_is_logged_and_has_no_part_in_the_training(tmp_path):
    args = script_args(tmp_path)
    judged = replace(
        args, judge="world", policy=tmp_path / "judged", training_log=tmp_path / "judged.csv"
    )
    logs = []
    for one in (args, judged):
        train_policy.main(one)
        logs.append(pd.read_csv(one.training_log).drop(columns="seconds"))
    assert logs[1]["judge_score"].between(-1, 1).all()
    pd.testing.assert_frame_equal(
        logs[0].drop(columns="judge_score"), logs[1].drop(columns="judge_score")
    )


def test_a_coefficient_that_was_searched_for_is_the_policys(tmp_path):
    args = script_args(tmp_path)
    found = Calibration(0.123, 0.8, None, 0.8, True)
    write_json({"found": found._asdict()}, tmp_path / "found.json")
    train_policy.main(replace(args, beta=None, calibration=tmp_path / "found.json"))
    assert json.loads((args.policy / "metadata.json").read_text())["settings"]["beta"] == 0.123


def test_the_script_writes_a_policy_that_loads_and_its_log(tmp_path):
    args = script_args(tmp_path)
    train_policy.main(args)

    log = pd.read_csv(args.training_log)
    assert (
        log.columns.tolist()
        == (
            "step kl kl_k3 proxy_reward ensemble_reward sigma kl_coefficient score entropy "
            "clip_fraction policy_loss value_loss learning_rate tokens seconds judge_score"
        ).split()
    )
    assert log["step"].tolist() == [0, 1, 2]
    assert (log["sigma"] > 0).all() and log["judge_score"].isna().all()
    assert not (tmp_path / "checkpoints").exists()
    policy = AutoModelForCausalLM.from_pretrained(args.policy)
    assert AutoTokenizer.from_pretrained(args.policy).vocab_size == VOCABULARY
    assert policy.lm_head.weight is policy.transformer.wte.weight
    before = tiny_model("gpt2", 0).state_dict()
    assert not torch.equal(
        policy.state_dict()["transformer.ln_f.weight"], before["transformer.ln_f.weight"]
    )
    sheet = json.loads((args.policy / "metadata.json").read_text())
    assert sheet["settings"]["beta"] == 0.1
    assert (sheet["settings"]["draw"], sheet["settings"]["head"]) == (1, 2)
    assert sheet["settings"]["epochs"] == 4
    assert set(sheet["inputs"]) == {"reference", "ensemble", "prompts"}

    # The same arguments give the same weights: nothing depends on anything else.
    again = replace(args, policy=tmp_path / "again", training_log=tmp_path / "again.csv")
    train_policy.main(again)
    for file in args.policy.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


@pytest.mark.parametrize("objective", ["variance_aware", "centred_spread"])
def test_the_script_killed_and_terminated_ends_with_the_same_policy(tmp_path, objective):
    """Also the one that remembers, whose memory comes back with the checkpoint."""
    args = script_args(tmp_path, steps=16, checkpoint_every=1)
    args = replace(args, objective=objective)
    again = replace(args, policy=tmp_path / "again", training_log=tmp_path / "again.csv")
    script = [python(), train_policy.__file__]
    command = [*script, *entry.to_command_line(again)]
    # The tokenizer's file says whether the hub was to be had, so all have one environment.
    options = {"stderr": subprocess.PIPE, "text": True, "env": environment(tmp_path)}
    subprocess.run([*script, *entry.to_command_line(args)], **options, check=True)

    def stopped(number: int) -> tuple[int, str]:
        """Status and output of a process that is sent a signal after its first checkpoint."""
        before = {path.stat().st_mtime_ns for path in args.checkpoints.glob("*/checkpoint*")}
        with subprocess.Popen(command, **options) as process:
            while {path.stat().st_mtime_ns for path in args.checkpoints.glob("*/check*")} == before:
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.01)
            process.send_signal(number)
            return process.wait(), process.stderr.read()

    assert stopped(signal.SIGKILL)[0] == -signal.SIGKILL
    status, output = stopped(signal.SIGTERM)
    assert status == 143
    assert "taken over from process" in output and "the process has ended" in output
    step = re.search(r"SIGTERM: checkpoint written after step (\d+)", output)[1]
    assert not again.policy.exists()
    output = subprocess.run(command, **options, check=True).stderr
    assert f"going on after step {step}" in output
    for file in args.policy.iterdir():
        assert file.read_bytes() == (again.policy / file.name).read_bytes()
    logs = [pd.read_csv(a.training_log).drop(columns="seconds") for a in (args, again)]
    pd.testing.assert_frame_equal(*logs, check_exact=True)
    assert not args.checkpoints.exists()


def test_what_else_is_in_the_folder_of_checkpoints_stays(tmp_path, monkeypatch):
    args = script_args(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here/notes.txt").touch()
    train_policy.main(replace(args, checkpoints=Path(".")))
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["notes.txt"]


def test_after_an_edit_of_the_settings_the_script_starts_afresh(tmp_path, monkeypatch):
    args = script_args(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("prudent.rewards.ensemble.RewardEnsemble.__call__", CountingRewards(3))
        with pytest.raises(Preempted):
            train_policy.main(args)
    assert len(list(args.checkpoints.iterdir())) == 1
    train_policy.main(replace(args, settings=args.settings.replace(learning_rate=1e-4)))
    assert pd.read_csv(args.training_log)["step"].tolist() == [0, 1, 2]
    (first,) = args.checkpoints.iterdir()  # it may be another process's by now
    assert (first / "checkpoint.safetensors").is_file()
