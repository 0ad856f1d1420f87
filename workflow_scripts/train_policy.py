"""Train one policy with PPO: one method, one seed."""

import contextlib
import functools
import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from prudent.checkpoints import save_checkpoint
from prudent.errors import InputError
from prudent.policies.models import load_causal_lm, load_policy, use_fused_gelu
from prudent.ppo.memory import keep_freed_memory
from prudent.ppo.trainer import PPOSettings, PPOTrainer
from prudent.rewards.features import check_sidecar, load_features
from prudent.rewards.last_layer import LastLayer
from prudent.rewards.loading import load_rewards
from prudent.rewards.models import final_linear, load_reward_model
from prudent.rewards.settings import SpreadSettings
from prudent.tables import metadata, read_table, write_csv
from prudent.workflow import entry, objectives


@dataclass
class Args:
    reference: Path  # checkpoint that the policy starts from and stays near
    ensemble: Path  # folder of the draws' checkpoints of the reward ensemble
    prompts: Path  # table
    policy: Path  # checkpoint, written
    training_log: Path  # table, written
    objective: str  # function of prudent/objectives
    beta: float  # coefficient of the KL penalty
    draw: int  # of the ensemble
    head: int  # member that it is trained against
    settings: dict[str, Any]  # section `ppo` of the configuration
    sampling: dict[str, Any]  # section `sampling` of the configuration
    checkpoints: Path  # folder to go on from after an interruption
    run_seed: int  # of this policy
    seed: int  # of the study
    parameters: dict[str, Any] = field(default_factory=dict)  # of the objective
    spread: dict[str, Any] = field(default_factory=dict)  # how the method takes the spread
    base: Path | None = None  # base reward model, of a last layer
    features: Path | None = None  # of the training pairs, by the base reward model
    sidecar: Path | None = None  # what they are of
    code: str = ""  # digest of the code; another one starts afresh
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    table = read_table(args.prompts, "prompts")
    prompts = table.loc[table["split"] == "train", "prompt"].tolist()
    if not prompts:
        raise InputError(f"{args.prompts}: no prompts with split train; PPO needs some")
    settings = PPOSettings(**args.settings, **args.sampling)
    ensemble = args.ensemble / str(args.draw)
    spread, last_layer, inputs = SpreadSettings(**args.spread), None, {}
    if args.features is not None:
        check_sidecar(args.sidecar, base=args.base)
        width = final_linear(load_reward_model(args.base))[1].in_features
        last_layer = LastLayer(load_features(args.features, width).differences("train"))
        inputs = {"features": args.features}
    effective = {
        "objective": args.objective,
        "parameters": args.parameters,
        "spread": spread.model_dump(),
        "beta": args.beta,
        "draw": args.draw,
        "head": args.head,
        "seed": args.seed,
        "run_seed": args.run_seed,
        **settings.model_dump(),
    }
    inputs |= {"reference": args.reference, "ensemble": ensemble, "prompts": args.prompts}
    sheet = metadata(effective, **inputs)

    # A folder of its own for each variant of a run: after an edit of the configuration the new one
    # starts afresh, and meets no checkpoint that it would have to refuse.
    fingerprint = {"code": args.code, **sheet}
    variant = hashlib.sha256(json.dumps(fingerprint).encode()).hexdigest()[:16]
    checkpoints = args.checkpoints / variant

    policy, tokenizer = load_policy(args.reference)
    reference = load_causal_lm(args.reference)
    for model in (policy, reference):
        use_fused_gelu(model)
    if policy.device.type == "cpu":
        keep_freed_memory()
    trainer = PPOTrainer(
        policy,
        reference,
        tokenizer,
        load_rewards(ensemble),
        functools.partial(objectives.load(args.objective), **args.parameters),
        beta=args.beta,
        head=args.head,
        settings=settings,
        seed=args.seed,
        run_seed=args.run_seed,
        spread=spread,
        last_layer=last_layer,
        checkpoints=checkpoints,
        fingerprint=fingerprint,
    )
    log = trainer.train(prompts)

    write_csv(pd.DataFrame(log), args.training_log, "training_log")
    save_checkpoint(policy, tokenizer, args.policy, metadata=sheet)
    # All is written by now: what a network file system does not let go of yet is no failure.
    # Another variant's checkpoint, or what else is in that folder, is not ours to delete.
    shutil.rmtree(checkpoints, ignore_errors=True)
    with contextlib.suppress(OSError):
        args.checkpoints.rmdir()


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
