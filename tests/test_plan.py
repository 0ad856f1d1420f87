"""The plan against real models, operations that torch counts, measured memory and Snakemake."""

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import plan as script
import pytest
import torch
import yaml
from bench import plan_memory
from conftest import ROOT, dry_run, environment
from tiny_models import CONFIGS, VOCABULARY
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    GemmaConfig,
)

from prudent.__main__ import main
from prudent.analysis.printed import RESOURCES, SETTINGS, STEPS
from prudent.errors import InputError
from prudent.plan.command import made
from prudent.plan.costs import policy_operations, stages, study
from prudent.plan.memory import reward_training
from prudent.plan.models import forward, from_config, generation, read_model, scratch
from prudent.plan.settings import PlanSettings
from prudent.plan.table import plan_table, sentences
from prudent.policies.reference import new_policy
from prudent.policies.sampling import sample
from prudent.policies.settings import ReferenceSettings
from prudent.tables import read_csv
from prudent.workflow.checks import effective_config, row_counts
from prudent.workflow.configfiles import merged, read_config
from prudent.workflow.remembered import Memory

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
NAMED = ("gpt2", "llama", "qwen2", "mistral")
ALL = {
    **CONFIGS,
    "gemma": GemmaConfig(**SIZES, head_dim=8, eos_token_id=1, bos_token_id=1),
    "biased": type(CONFIGS["llama"])(**SIZES, attention_bias=True, mlp_bias=True),
    "tied": type(CONFIGS["qwen2"])(**SIZES, tie_word_embeddings=True),
    "fast_gpt2": type(CONFIGS["gpt2"])(vocab_size=30, n_embd=16, n_layer=1, n_head=2, n_inner=40),
}


def config_with(**over):
    values = merged(read_config(ROOT / "config.yaml"), over)
    return effective_config(values, Memory(Path("none")))


def weights(model):
    return sum(weight.numel() for weight in model.parameters())


# --- Weights and operations ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_weights_are_those_of_the_models(name):
    config = ALL[name]
    found = from_config(config.to_dict())
    assert found.policy == weights(AutoModelForCausalLM.from_config(config))
    labelled = type(config)(**config.to_dict() | {"num_labels": 1})
    model = AutoModelForSequenceClassification.from_config(labelled)
    assert found.reward == weights(model)
    assert found.backbone == weights(model.base_model)


def test_weights_of_an_encoder():
    config = BertConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=40,
        num_labels=1,
    )
    model = AutoModelForSequenceClassification.from_config(config)
    found = from_config(config.to_dict())
    assert found.reward == weights(model) and found.layers == 2


def test_weights_of_a_checkpoint_as_it_is_saved(tmp_path):
    """What a saved config.json leaves out, as transformers' defaults."""
    for name in ("gemma", "llama", "tied", "gpt2"):
        ALL[name].save_pretrained(tmp_path / name)
        assert read_model(str(tmp_path / name)) == from_config(ALL[name].to_dict())


def test_weights_of_the_reference_from_scratch():
    settings = ReferenceSettings(layers=3, width=32, heads=4, vocabulary=300, context=20)
    sizes = scratch(32, 3, 4, 300, 20)
    assert sizes.policy == settings.weights()
    words = plan_memory.tokenizer()
    model = new_policy(words, settings)
    assert scratch(32, 3, 4, len(words), 20).policy == weights(model)


@pytest.mark.parametrize("name", [*NAMED, "gemma", "gpt_neox", "opt"])
def test_operations_are_those_that_torch_counts(name):
    config, rows, length = ALL[name], 3, 12
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").train()
    ids = torch.randint(2, config.vocab_size, (rows, length))
    sizes = from_config(config.to_dict())
    with FlopCounterMode(display=False) as counter:
        output = model(ids, use_cache=False).logits
    one = rows * forward(sizes, length, length, length)
    assert one == pytest.approx(counter.get_total_flops(), rel=0.03)
    with FlopCounterMode(display=False) as counter:
        output.sum().backward()
    assert 2 * one == pytest.approx(counter.get_total_flops(), rel=0.03)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_operations_of_sampling_are_those_that_torch_counts(name):
    config, prompt, response = ALL[name], 5, 9
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    ids = torch.randint(2, VOCABULARY, (4, prompt))
    sample(model, ids, torch.ones_like(ids), torch.rand(4, response), 1.0, [], 1)  # finds the head
    with FlopCounterMode(display=False) as counter:
        sample(model, ids, torch.ones_like(ids), torch.rand(4, response), 1.0, [], 1)
    found = 4 * generation(from_config(config.to_dict()), prompt, response)
    assert found == pytest.approx(counter.get_total_flops(), rel=0.03)


# --- Memory ---------------------------------------------------------------------------------------


def test_gradients_and_optimizer_are_those_of_adamw():
    config = ALL["gemma"]
    config.num_labels = 1
    model = AutoModelForSequenceClassification.from_config(config)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randint(2, 50, (2, 6))).logits.sum().backward()
    optimizer.step()
    sizes = [weight.grad.nbytes for weight in model.parameters()]
    moments = [
        value.nbytes
        for state in optimizer.state.values()
        for name, value in state.items()
        if name != "step"
    ]
    found = reward_training(from_config(config.to_dict()), 1, 6, False)
    assert found.gradients == sum(sizes) and found.optimizer == sum(moments)


@pytest.mark.slow
@pytest.mark.parametrize("case", [("gpt2", "reward", 8), ("gemma", "ppo", 8)])
def test_memory_is_what_a_training_takes(case):
    assert plan_memory.planned(*case) == pytest.approx(plan_memory.measured(*case), rel=0.2)


def test_activations_grow_with_the_batch_and_halve_in_bfloat16():
    model = from_config(ALL["gemma"].to_dict())
    small, large = (reward_training(model, pairs, 64, False) for pairs in (2, 4))
    assert large.activations == 2 * small.activations and large.weights == small.weights
    half = reward_training(model, 4, 64, True)
    assert half.activations < large.activations


def test_checkpointing_keeps_the_inputs_of_layers_and_one_layers_activations():
    model = from_config(ALL["gemma"].to_dict())
    one = reward_training(replace(model, layers=1), 4, 64, False).activations
    for layers in (2, 20):
        deep = replace(model, layers=layers)
        found = reward_training(deep, 4, 64, False, checkpointing=True)
        assert found.activations == one + layers * 4 * 8 * 64 * model.width
        assert found.activations < reward_training(deep, 4, 64, False).activations


# --- A scenario -----------------------------------------------------------------------------------


def rows_of(config):
    return row_counts(config, Memory(Path("none")))


@pytest.mark.parametrize("scenario", [None, "ensembles", "regimes", "methods"])
def test_jobs_are_those_of_a_dry_run(project, scenario):
    files = [ROOT / "config.yaml"] + ([ROOT / f"scenarios/{scenario}.yaml"] if scenario else [])
    values = {}
    for file in files:
        values = merged(values, read_config(file))
    config = effective_config(values, Memory(Path("none")))
    found = {stage.rule: stage.jobs for stage in stages(study(config, rows_of(config)))}
    arguments = ("--configfile", f"scenarios/{scenario}.yaml") if scenario else ()
    counts = dry_run(project, *arguments)
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text(encoding="utf-8"))
    assert found == {rule: n for rule, n in counts.items() if rule in profile["set-resources"]}


def test_operations_of_a_policy_by_hand():
    config = config_with(ppo={"steps": 2, "batch_size": 4, "minibatch_size": 4, "epochs": 3})
    found = study(config, rows_of(config))
    training, rest = policy_operations(found, "vanilla")
    length = found.length - 1
    read = forward(found.reference, length, length, 10)
    assert training == 2 * 4 * 3 * 3 * read
    score = forward(found.backbone, 18, 18)
    assert rest == 2 * 4 * (generation(found.reference, 8, 10) + read + score)


def test_the_judge_that_is_asked_counts():
    def found(**over):
        config = config_with(preferences={"judge": 0.3}, **over)
        return {stage.rule: stage for stage in stages(study(config, rows_of(config)))}

    world, trained = found(), found(judge={"model": "trained"})
    besides = found(diagnosis={"ensembles": None, "trained_judge": True})
    assert "train_judge" not in world and "train_judge" in trained and "train_judge" in besides
    for rule in ("diagnose_rewards", "score_reference", "judge_responses"):
        assert trained[rule].generation > world[rule].generation
    assert besides["judge_responses"].generation == 0
    assert besides["score_reference"].generation == world["score_reference"].generation


def test_a_separate_value_network_and_parts_of_minibatches_count():
    def peak(**ppo):
        config = config_with(ppo=ppo)
        found = {stage.rule: stage for stage in stages(study(config, rows_of(config)))}
        return found["train_policy"].memory

    shared, separate = peak(), peak(value_network="separate")
    assert separate.optimizer > 1.9 * shared.optimizer
    assert peak(gradient_accumulation_steps=4).activations < shared.activations


def test_hours_are_operations_over_the_share_of_the_peak():
    config = config_with()
    found = stages(study(config, rows_of(config)))
    base = next(stage for stage in found if stage.rule == "train_reward_base")
    plain, measured = (
        plan_table([base], PlanSettings(**given).model_dump()).loc[0, "hours"]
        for given in ({}, {"flops": 1e9})
    )
    assert plain == pytest.approx(base.training / (37.4e12 * 0.4) / 3600)
    assert measured == pytest.approx(base.training / 1e9 / 3600)
    halved = plan_table([replace(base, bfloat16=True)], PlanSettings().model_dump())
    assert halved.loc[0, "hours"] == pytest.approx(base.training / (149.7e12 * 0.4) / 3600)


def test_rows_that_are_not_known_are_said(tmp_path):
    table = pd.DataFrame({"chosen": ["a"] * 40, "rejected": ["b"] * 40})
    table.to_parquet(tmp_path / "pairs.parquet")
    known = {"path": str(tmp_path / "pairs.parquet")}
    unknown = {"dataset": "some/pairs"}
    for sources, pairs in (([known], 40), ([known, unknown], None)):
        config = config_with(preferences={"sources": sources, "train": None})
        rows = rows_of(config)
        assert rows["preferences"] == pairs
        table, said = made(config, rows)
        text = "\n".join(said)
        missing = set(table.loc[table["hours"].isna(), "rule"])
        assert ("train_reward_base" in missing) == (pairs is None)
        assert ("`preferences.sources`" in text and "leave out the hours of" in text) == (
            pairs is None
        )
        assert table["memory_gb"].notna().all()


GEMMA = {
    **{"model_type": "gemma", "num_hidden_layers": 18, "hidden_size": 2048},
    **{"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256},
    **{"intermediate_size": 16384, "vocab_size": 256000},
}
"""The sizes of Gemma-2B."""


def test_gemma_beside_the_paper(tmp_path):
    """What docs/plan.md prints beside tables 3, 5 and 8, with the paper's settings (table 2, 7)."""
    assert from_config(GEMMA).policy == 2_506_172_416
    (tmp_path / "config.json").write_text(json.dumps(GEMMA))
    batch = next(one.printed for one in SETTINGS["Table 2"] if one.key == "batch_size")
    pairs = STEPS["Table 2"] * batch
    reward = {"checkpoint": str(tmp_path), "template": "dialogue", "max_length": 512}
    reward |= {"batch_size": batch, "epochs": 1, "bfloat16": True}
    gpt2 = {"layers": 12, "width": 768, "heads": 12, "vocabulary": 50257, "context": 1024}
    config = config_with(
        reward=reward,
        reference=gpt2,
        preferences={"sources": [{"sampled": pairs}], "train": pairs, "validation": 0.0},
        ensemble="heads",
        diagnosis={"ensembles": None},
        ppo={"steps": 192},
    )
    found = stages(study(config, rows_of(config)))
    table = plan_table(found, config["plan"])
    page = (ROOT / "docs/plan.md").read_text(encoding="utf-8")
    rules = ("train_reward_base", "train_ensemble", "train_policy")
    for (name, paper), rule in zip(RESOURCES.items(), rules, strict=True):
        row = table.set_index("rule").loc[rule]
        hours, disk = row["hours"] / row["jobs"], row["disk_gb"] / row["jobs"]
        line = f"| {name} | `{rule}` | {paper.hours:g} | {hours:.2g} | {paper.memory:g} | "
        line += f"{row['memory_gb']:.3g} | {paper.disk:g} | {disk:.2g} |"
        assert line in page, line
    said = sentences(table, rows_of(config), config["plan"])
    assert any(text.startswith("Does not fit: train_reward_base needs") for text in said)


# --- The commands ---------------------------------------------------------------------------------


def test_the_script_writes_the_table_and_says_it(tmp_path, caplog):
    config = config_with()
    caplog.set_level("INFO")
    script.main(script.Args(table=tmp_path / "plan.csv", settings=config, rows=rows_of(config)))
    table = read_csv(tmp_path / "plan.csv", "plan")
    assert len(table) == 17 and (table["fits"] == "yes").all()
    assert "All of it fits on an A40" in caplog.text and "assumed shares: 40%" in caplog.text


def test_the_command_takes_less_than_five_seconds_and_no_torch():
    code = "import sys; from prudent.__main__ import main; main(['plan']); "
    code += "print({'torch', 'transformers'} & {*sys.modules})"
    start = time.monotonic()
    output = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(ROOT, ROOT / "workflow_scripts"),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    # Other tests may run beside it.
    assert time.monotonic() - start < 20 and output.endswith("set()\n")
    assert re.search(r"^train_policy +20 ", output, re.M)


def test_a_checkpoint_that_is_not_there_is_a_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    overlay = tmp_path / "mine.yaml"
    overlay.write_text("reward: {checkpoint: nobody/nothing-at-all}\n", encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--configfile", str(overlay)])
    said = capsys.readouterr().err
    assert ended.value.code == 1 and said.count("\n") == 1
    assert said.startswith("error: nobody/nothing-at-all: there is no such folder, and the hub")


@pytest.mark.parametrize("given", [{"model_type": "no_such"}, {}, {"model_type": "llama"}, []])
def test_a_config_that_cannot_be_counted_is_a_line(tmp_path, given):
    (tmp_path / "config.json").write_text(json.dumps(given))
    with pytest.raises(InputError, match="is of no model that can be counted: ") as error:
        read_model(str(tmp_path))
    assert "\n" not in str(error.value)
