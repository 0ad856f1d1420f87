"""Writes the preference pairs, read, sampled or labelled anew, with their data card."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from prudent import tables
from prudent.data.preferences import build_preferences
from prudent.data.rows import Message
from prudent.data.settings import PreferenceSettings
from prudent.data.table import save
from prudent.policies.respond import sample_responses
from prudent.policies.settings import SamplingSettings
from prudent.rewards.judges import load_judge
from prudent.seeding import generator
from prudent.workflow import entry


@dataclass
class Args:
    preferences: Path  # table, written
    card: Path  # data card, written
    settings: PreferenceSettings  # section `preferences` of the configuration
    sampling: SamplingSettings  # section `sampling` of the configuration
    bad_rows: str  # refuse or drop
    seed: int  # of the study
    reference: Path | None = None  # its checkpoint, where a source is sampled
    prompts: Path | None = None  # table, where a source is sampled
    gold: Path | None = None  # where settings.gold is a local folder
    threads: int = 1  # of the CPU


def main(args: Args) -> None:
    prompts: list[str] = []
    if args.prompts is not None:
        table = tables.read_table(args.prompts, "prompts")
        prompts = table["prompt"][table["split"] == "train"].tolist()

    def sample(drawn: list[str], part: int) -> list[str]:
        return sample_responses(
            args.reference,
            drawn,
            args.sampling.response_length,
            args.sampling.temperature,
            generator(args.seed, "preferences", "sampling", part),
        )

    settings = args.settings
    load_gold = cache(lambda: load_judge(args.gold or settings.gold, settings.gold_revision))

    def gold(messages: list[list[Message]], responses: list[str]) -> np.ndarray:
        return load_gold()(messages, responses)["score"]

    frame, card = build_preferences(
        settings,
        args.bad_rows,
        args.seed,
        prompts,
        sample if args.reference is not None else None,
        gold,
    )
    save(frame, card, "preferences", args.preferences, args.card)


if __name__ == "__main__":
    entry.run(main, Args, globals().get("snakemake"))
