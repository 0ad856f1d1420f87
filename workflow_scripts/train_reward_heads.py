"""Train all ensembles' heads from the cached features."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file

from prudent.checkpoints import load_tokenizer
from prudent.errors import InputError
from prudent.rewards.heads import HeadSettings, save_ensemble, train_heads
from prudent.rewards.models import final_linear, load_reward_model
from prudent.tables import file_digest, metadata, read_table, write_csv, write_json
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
    digests = json.loads(args.sidecar.read_text(encoding="utf-8"))["inputs"]
    for name, path in (("base", args.base), ("preferences", args.preferences)):
        if digests[name] != file_digest(path):
            raise InputError(
                f"{args.features}: these features are of another {path}; compute them again"
            )
    pairs = read_table(args.preferences, "preferences")
    pairs = pairs[pairs["split"] != "judge"]
    features = load_file(args.features)
    base, tokenizer = load_reward_model(args.base), load_tokenizer(args.base)
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
