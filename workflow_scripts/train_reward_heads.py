"""Train all ensembles' heads from the cached features."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from prudent.checkpoints import load_tokenizer
from prudent.rewards.features import check_sidecar, load_features
from prudent.rewards.heads import HeadSettings, save_ensemble, train_heads
from prudent.rewards.models import final_linear, load_reward_model
from prudent.tables import metadata, read_table, write_csv, write_json
from prudent.workflow import entry


@dataclass
class Args:
    base: Path
    features: Path
    sidecar: Path
    preferences: Path
    ensembles: list[Path]
    loss: Path
    settings: dict[str, Any]
    seed: int
    threads: int = 1


def main(args: Args) -> None:
    settings = HeadSettings(**args.settings)
    check_sidecar(args.sidecar, base=args.base, preferences=args.preferences)
    pairs = read_table(args.preferences, "preferences")
    pairs = pairs[pairs["split"] != "judge"]
    base, tokenizer = load_reward_model(args.base), load_tokenizer(args.base)
    features = load_features(args.features, len(pairs), final_linear(base)[1].in_features)
    losses = []
    inputs = {"base": args.base, "features": args.features, "preferences": args.preferences}
    sheet = metadata({**args.settings, "seed": args.seed}, **inputs)
    for ensemble, path in enumerate(args.ensembles):
        heads = train_heads(
            features["chosen"],
            features["rejected"],
            torch.tensor((pairs["split"] == "train").to_numpy()),
            torch.tensor(pairs["probability"].to_numpy(dtype=float)),
            final_linear(base)[1],
            settings,
            args.seed,
            ensemble,
        )
        losses.append(heads.losses)
        save_ensemble(base, tokenizer, heads, path)
        write_json(sheet, path / "metadata.json")
    write_csv(pd.concat(losses), args.loss)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
