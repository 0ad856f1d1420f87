"""Compute the frozen base model's features of all pairs that the heads are trained on."""

from dataclasses import dataclass
from pathlib import Path

import torch

from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.features import PairFeatures, extract_ids, save_features
from prudent.rewards.text import encode_pairs
from prudent.tables import metadata, read_table, write_json
from prudent.workflow import entry


@dataclass
class Args:
    base: Path  # checkpoint of the base reward model
    preferences: Path  # table of pairs
    features: Path  # written
    sidecar: Path  # what they are of, written
    batch_tokens: int  # tokens of a batch, padding included
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    pairs = read_table(args.preferences, "preferences")
    pairs = pairs[pairs["split"] != "judge"]
    base = RewardEnsemble.load(args.base)
    sides = {
        side: extract_ids(
            base.model,
            ids,
            base.tokenizer.pad_token_id,
            pairs[side].tolist(),
            args.batch_tokens,
            progress=f"features of {side} responses",
        )
        for side, ids in encode_pairs(base.tokenizer, pairs).items()
    }
    features = PairFeatures(
        id=pairs["id"].tolist(),
        split=pairs["split"].tolist(),
        probability=torch.tensor(pairs["probability"].to_numpy(dtype=float)),
        **sides,
    )
    save_features(features, args.features)
    write_json(
        {
            "rows": len(pairs),
            "of": "pairs of the preferences whose split is not 'judge'",
            "width": sides["chosen"].shape[1],
            "what": "input of the frozen model's final linear layer, float32",
            "model": type(base.model).__name__,
            "template": base.tokenizer.chat_template,
            "max_length": base.tokenizer.model_max_length,
            **metadata(
                {"batch_tokens": args.batch_tokens}, base=args.base, preferences=args.preferences
            ),
        },
        args.sidecar,
    )


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
