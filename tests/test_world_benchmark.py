"""The world's benchmark."""

import numpy as np

from prudent.schemas import SCHEMAS
from prudent.tables import read_table, write_parquet
from prudent.world.benchmark import SUBSETS, benchmark
from prudent.world.grammar import (
    grammatical,
    split,
)
from prudent.world.reward import gold_reward
from prudent.world.words import (
    LEXICON,
)


def test_benchmark(tmp_path):
    frame = benchmark(200, np.random.default_rng(0))
    assert frame.equals(benchmark(200, np.random.default_rng(0)))
    assert list(frame.columns) == SCHEMAS["benchmark"].names
    write_parquet(frame, tmp_path / "benchmark.parquet", "benchmark")
    assert read_table(tmp_path / "benchmark.parquet", "benchmark").equals(frame)
    assert set(frame["subset"].value_counts()) == {20} and frame["id"].is_unique
    assert frame.groupby("section")["subset"].nunique().to_dict() == {
        "Wide margin": 2,
        "Narrow margin": 2,
        "Negation": 2,
        "Off-policy": 4,
    }
    prompts = [messages[0]["content"] for messages in frame["prompt"]]
    assert all(messages[0]["role"] == "user" for messages in frame["prompt"])
    for side in ("chosen", "rejected"):
        assert {len(split(text)) for text in frame[side]} == {10}
        assert all(text[0] in " .," for text in frame[side])
        own = [grammatical(p + text) for p, text in zip(prompts, frame[side], strict=True)]
        off_policy = frame["section"] == "Off-policy"
        assert all(np.array(own)[~off_policy])
        assert np.mean(np.array(own)[off_policy]) == (side == "chosen")
    margin = np.subtract(
        gold_reward(prompts, list(frame["chosen"])),
        gold_reward(prompts, list(frame["rejected"])),
    )
    for subset, (_, least, most) in SUBSETS.items():
        margins = margin[frame["subset"] == subset]
        assert (margins >= least).all() and (margins <= most).all() and least > 0


def test_benchmark_pairs_have_the_form_of_their_subset():
    frame = benchmark(100, np.random.default_rng(1)).set_index("subset")
    for _, row in frame.loc["negation"].iterrows():
        sides = [split(row[side]) for side in ("chosen", "rejected")]
        longer, shorter = sorted(sides, key=lambda side: -side.count("not"))
        place = next(
            i for i, pair in enumerate(zip(longer, shorter, strict=True)) if len({*pair}) > 1
        )
        assert longer[place] == "not" and [*longer[:place], *longer[place + 1 :]] == shorter[:9]
    for _, row in frame.loc["contrast"].iterrows():
        chosen, rejected = split(row["chosen"]), split(row["rejected"])
        assert sorted(chosen) == sorted(rejected)
        assert sum(a != b for a, b in zip(chosen, rejected, strict=True)) == 2
    for _, row in frame.loc["shuffled"].iterrows():
        assert sorted(split(row["chosen"])) == sorted(split(row["rejected"]))
    for _, row in frame.loc["praise"].iterrows():
        assert set(split(row["rejected"])) <= set(LEXICON["PRAISE"])
