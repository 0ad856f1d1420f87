"""Compute the frozen base model's features of all pairs that the heads are trained on."""

from dataclasses import dataclass
from pathlib import Path

from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.features import extract, save_features
from prudent.tables import metadata, read_table, write_json
from prudent.workflow import entry


@dataclass
class Args:
    base: Path
    preferences: Path
    features: Path
    sidecar: Path
    batch_tokens: int
    threads: int = 1


def main(args: Args) -> None:
    pairs = read_table(args.preferences, "preferences")
    pairs = pairs[pairs["split"] != "judge"]
    base = RewardEnsemble.load(args.base)
    sides = {
        side: extract(
            base.model,
            base.tokenizer,
            pairs["prompt"].tolist(),
            pairs[side].tolist(),
            args.batch_tokens,
            progress=f"features of {side} responses",
        )
        for side in ("chosen", "rejected")
    }
    save_features(sides, args.features)
    write_json(
        {
            "rows": len(pairs),
            "of": "rows of the preferences whose split is not 'judge', in order",
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
