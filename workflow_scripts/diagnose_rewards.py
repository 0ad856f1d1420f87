"""Compare the rewards with the judge's on several responses of the reference to each prompt."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prudent.policies.respond import sample_responses
from prudent.rewards.diagnosis import diagnosis_table, pair_accuracy
from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.features import load_features
from prudent.rewards.judges import load_judge
from prudent.rewards.scoring import long_table, score_responses
from prudent.seeding import generator
from prudent.tables import read_table, write_csv, write_parquet
from prudent.workflow import entry


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
    table = read_table(args.prompts, "prompts")
    prompts = table.loc[table["split"] == "test", "prompt"].tolist()[: args.settings["prompts"]]
    count = args.settings["responses"]
    repeated = [prompt for prompt in prompts for _ in range(count)]
    draws = generator(args.seed, "diagnosis", "sampling")
    responses = sample_responses(args.reference, repeated, **args.sampling, draws=draws)
    verdict = load_judge(args.judge or args.scorer)(repeated, responses)

    base = RewardEnsemble.load(args.base)
    ensembles = [RewardEnsemble.load(path) for path in args.ensembles]
    rewards = score_responses(ensembles, repeated, responses)

    pairs = read_table(args.preferences, "preferences")
    unseen = pairs.loc[pairs["split"] != "judge", "split"].to_numpy() == "validation"
    features = load_features(args.features, len(unseen), base.weight.shape[1])
    difference = (features["chosen"] - features["rejected"]).numpy()[unseen]
    weights = [ensemble.weight.numpy() for ensemble in ensembles]
    accuracies = pair_accuracy(difference, base.weight.numpy(), weights)

    numbers = [reward.double().numpy() for reward in rewards]
    world = args.scorer == "world"
    write_csv(diagnosis_table(accuracies, numbers, verdict, count, targets=world), args.table)
    samples = pd.DataFrame({"prompt": repeated, "response": responses, **verdict})
    samples.insert(0, "prompt_index", np.repeat(np.arange(len(prompts)), count))
    write_parquet(long_table(samples, rewards), args.samples)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
