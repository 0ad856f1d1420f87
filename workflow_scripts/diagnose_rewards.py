"""Compare the rewards with the judge's on several responses of the reference to each prompt."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file

from prudent import entry
from prudent.diagnosis import diagnose, diagnosis_table
from prudent.ensemble import RewardEnsemble
from prudent.judging import load_judge, sample_responses
from prudent.scoring import long_table, score_responses
from prudent.seeding import generator
from prudent.tables import read_table, write_csv, write_parquet


@dataclass
class Args:
    reference: Path
    base: Path
    ensembles: list[Path]
    prompts: Path
    features: Path
    preferences: Path
    samples: Path
    table: Path
    settings: dict[str, Any]
    scorer: str
    sampling: dict[str, Any]
    seed: int
    judge: Path | None = None
    threads: int = 1


def main(args: Args) -> None:
    prompts = read_table(args.prompts, "prompts")
    chosen = prompts.loc[prompts["split"] == "test", "prompt"].tolist()[: args.settings["prompts"]]
    count = args.settings["responses"]
    repeated = [prompt for prompt in chosen for _ in range(count)]
    responses = sample_responses(
        args.reference,
        repeated,
        args.sampling["response_length"],
        args.sampling["temperature"],
        generator(args.seed, "diagnosis", "sampling"),
    )
    verdict = load_judge(args.judge or args.scorer)(repeated, responses)
    ensembles = [RewardEnsemble.load(path) for path in args.ensembles]
    rewards = score_responses(ensembles, repeated, responses)
    samples = pd.DataFrame(
        {
            "prompt_index": np.repeat(np.arange(len(chosen)), count),
            "prompt": repeated,
            "response": responses,
            **verdict,
        }
    )
    shape = (len(chosen), count)
    truth = verdict["score"].reshape(shape)
    found = [diagnose(table.double().numpy().reshape(*shape, -1), truth) for table in rewards]
    values = {
        "grammatical responses": float(verdict["grammatical"].mean())
        if "grammatical" in verdict
        else float("nan"),
        **validation_accuracy(args, ensembles),
        **{name: float(np.mean([one[name] for one in found])) for name in found[0]},
    }
    values = {name: value for name, value in values.items() if not np.isnan(value)}
    write_parquet(long_table(samples, rewards), args.samples)
    write_csv(diagnosis_table(values, targets=args.scorer == "world"), args.table)


def validation_accuracy(args: Args, ensembles: list[RewardEnsemble]) -> dict[str, float]:
    """Share of unseen pairs that the base model, one head and the ensembles' mean get right."""
    pairs = read_table(args.preferences, "preferences")
    pairs = pairs[pairs["split"] != "judge"]
    unseen = torch.from_numpy((pairs["split"] == "validation").to_numpy())
    features = load_file(args.features)
    difference = (features["chosen"] - features["rejected"])[unseen]
    base = RewardEnsemble.load(args.base)
    margins = torch.stack([difference @ ensemble.weight.T for ensemble in ensembles])
    return {
        "accuracy on unseen pairs: base model": share(difference @ base.weight.T),
        "accuracy on unseen pairs: one head": share(margins),
        "accuracy on unseen pairs: ensemble mean": share(margins.mean(-1)),
    }


def share(margins: torch.Tensor) -> float:
    return (margins > 0).double().mean().item()


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
