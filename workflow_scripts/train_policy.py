"""Train one policy with PPO: one method, one seed."""

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
from prudent.rewards.loading import load_rewards
from prudent.tables import metadata, read_table, write_csv
from prudent.workflow import entry, objectives


@dataclass
class Args:
    reference: Path
    ensemble: Path
    prompts: Path
    policy: Path
    training_log: Path
    objective: str
    beta: float
    head: int
    settings: dict[str, Any]
    sampling: dict[str, Any]
    checkpoints: Path
    run_seed: int
    seed: int
    parameters: dict[str, Any] = field(default_factory=dict)
    code: str = ""
    threads: int = 1


def main(args: Args) -> None:
    table = read_table(args.prompts, "prompts")
    prompts = table.loc[table["split"] == "train", "prompt"].tolist()
    if not prompts:
        raise InputError(f"{args.prompts}: no prompts with split train; PPO needs some")
    settings = PPOSettings(**args.settings, **args.sampling)
    effective = {
        "objective": args.objective,
        "parameters": args.parameters,
        "beta": args.beta,
        "head": args.head,
        "seed": args.seed,
        "run_seed": args.run_seed,
        **settings.model_dump(),
    }
    sheet = metadata(
        effective, reference=args.reference, ensemble=args.ensemble, prompts=args.prompts
    )

    # A folder of its own for each variant of a run: after an edit of the configuration the new one
    # starts afresh, and meets no checkpoint that it would have to refuse.
    fingerprint = {"code": args.code, **sheet}

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
        load_rewards(args.ensemble),
        functools.partial(objectives.load(args.objective), **args.parameters),
        beta=args.beta,
        head=args.head,
        settings=settings,
        seed=args.seed,
        run_seed=args.run_seed,
        checkpoints=args.checkpoints
        / hashlib.sha256(json.dumps(fingerprint).encode()).hexdigest()[:16],
        fingerprint=fingerprint,
    )
    log = trainer.train(prompts)

    write_csv(pd.DataFrame(log), args.training_log)
    save_checkpoint(policy, tokenizer, args.policy, metadata=sheet)
    # All is written by now: what a network file system does not let go of yet is no failure.
    shutil.rmtree(args.checkpoints, ignore_errors=True)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
