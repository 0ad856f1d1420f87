"""Train one policy with PPO: one method, one seed."""

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from prudent.checkpoints import save_checkpoint
from prudent.errors import InputError
from prudent.policies.settings import SamplingSettings
from prudent.policies.target_kl import read_calibration
from prudent.ppo.policy import PolicyRecipe, variant
from prudent.ppo.settings import PPOSettings, TrainingSettings
from prudent.precision import decided
from prudent.rewards.judges import load_judge
from prudent.rewards.last_layer import LastLayer
from prudent.rewards.loading import load_rewards
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
    draw: int  # of the ensemble
    head: int  # member that it is trained against
    settings: TrainingSettings  # section `ppo` of the configuration
    sampling: SamplingSettings  # section `sampling` of the configuration
    checkpoints: Path  # folder to go on from after an interruption
    run_seed: int  # of this policy
    seed: int  # of the study
    beta: float | None = None  # coefficient of the KL penalty
    judge: str | None = None  # world, where its score of each step is logged
    calibration: Path | None = None  # what it was found by, where it is not given
    parameters: dict[str, Any] = field(default_factory=dict)  # of the objective
    spread: SpreadSettings = SpreadSettings()  # how the method takes the spread
    base: Path | None = None  # base reward model, of a last layer
    features: Path | None = None  # of the training pairs, by the base reward model
    code: str = ""  # digest of the code; another one starts afresh
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    table = read_table(args.prompts, "prompts")
    prompts = table.loc[table["split"] == "train", "prompt"].tolist()
    if not prompts:
        raise InputError(f"{args.prompts}: no prompts with split train; PPO needs some")
    settings = decided(PPOSettings(**dict(args.settings), **dict(args.sampling)))
    ensemble = args.ensemble / str(args.draw)
    beta = args.beta
    if args.calibration is not None:
        beta = read_calibration(args.calibration).beta
    last_layer, inputs = None, {}
    if args.features is not None:
        last_layer = LastLayer.load(args.base, args.features)
        inputs = {"features": args.features}
    effective = {
        "objective": args.objective,
        "parameters": args.parameters,
        "spread": dict(args.spread),
        "beta": beta,
        "judge": args.judge,
        "draw": args.draw,
        "head": args.head,
        "seed": args.seed,
        "run_seed": args.run_seed,
        **dict(settings),
    }
    inputs |= {"reference": args.reference, "ensemble": ensemble, "prompts": args.prompts}
    sheet = metadata(effective, **inputs)

    fingerprint = {"code": args.code, **sheet}
    recipe = PolicyRecipe(
        args.reference,
        prompts,
        load_rewards(ensemble),
        functools.partial(objectives.load(args.objective), **args.parameters),
        settings,
        args.spread,
        last_layer,
        None if args.judge is None else load_judge(args.judge),
    )
    with variant(args.checkpoints, fingerprint) as checkpoints:
        policy, tokenizer, log = recipe.policy(
            *(beta, args.head, args.seed, args.run_seed),
            checkpoints=checkpoints,
            fingerprint=fingerprint,
        )
        table = pd.DataFrame(log)
        if args.judge is None:
            table["judge_score"] = float("nan")
        write_csv(table, args.training_log, "training_log")
        save_checkpoint(policy, tokenizer, args.policy, metadata=sheet)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
