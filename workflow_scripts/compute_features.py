"""Compute the frozen base model's features of all pairs that the heads are trained on."""

from dataclasses import dataclass
from pathlib import Path

from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.features import pair_features, save_features
from prudent.tables import metadata, read_table, write_json
from prudent.workflow import entry


@dataclass
class Args:
    base: Path  # checkpoint of the base reward model
    preferences: Path  # table of pairs
    features: Path  # written
    metadata: Path  # settings, versions and digests, written
    batch_tokens: int  # tokens of a batch, padding included
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    pairs = read_table(args.preferences, "preferences")
    pairs = pairs[pairs["split"].isin(["train", "validation"])]
    base = RewardEnsemble.load(args.base)
    features = pair_features(
        base.model, base.tokenizer, pairs, args.batch_tokens, progress="features"
    )
    save_features(features, args.features)
    write_json(
        {
            "rows": len(pairs),
            "of": "pairs of the preferences whose split is train or validation",
            "width": features.chosen.shape[1],
            "what": "input of the frozen model's final linear layer, float32",
            "model": type(base.model).__name__,
            "template": base.tokenizer.chat_template,
            "max_length": base.tokenizer.model_max_length,
            **metadata(
                {"batch_tokens": args.batch_tokens}, base=args.base, preferences=args.preferences
            ),
        },
        args.metadata,
    )


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
