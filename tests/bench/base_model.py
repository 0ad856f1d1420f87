"""How right base reward models are that are trained on few pairs, over learning rate and epochs.

Each is trained on pairs drawn anew, with labels drawn anew, and measured on validation pairs: as
replicates of the study are. Read the folder of a finished run of the default scenario:

    python tests/bench/base_model.py results/embedded --pairs 1000 --seeds 3
"""

import argparse
import itertools
import logging
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

from prudent.data.draws import draw_anew, with_spare
from prudent.rewards.settings import RewardSettings
from prudent.rewards.training import train_reward_model
from prudent.seeding import derive_seed
from prudent.tables import read_table

PAIRS = 600
"""Validation pairs that are measured on."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="folder of a run")
    parser.add_argument("--pairs", type=int, nargs="+", default=[1000], help="to train on")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 2e-3, 4e-3])
    parser.add_argument("--epochs", type=float, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    logging.disable()
    torch.set_num_threads(1)
    config = yaml.safe_load((args.results / "config.yaml").read_text(encoding="utf-8"))
    preferences = read_table(args.results / "data/preferences.parquet", "preferences")
    print("pairs  learning rate  epochs  accuracy of each seed  (validation loss of each)")
    for pairs, rate, epochs in itertools.product(args.pairs, args.rates, args.epochs):
        settings = RewardSettings(**config["reward"])
        settings = settings.replace(learning_rate=rate, epochs=epochs)
        found = []
        for seed in range(args.seeds):
            stream = derive_seed(config["seed"], "bench", seed)
            drawn = preferences.assign(split=with_spare(preferences["split"], pairs, stream))
            drawn = draw_anew(drawn, stream, 0)
            of_split = [drawn[drawn["split"] == name] for name in ("train", "validation")]
            drawn = pd.concat([of_split[0], of_split[1].iloc[:PAIRS]])
            with tempfile.TemporaryDirectory() as place:
                losses = train_reward_model(
                    drawn, "train", args.results / "reference", settings, stream, Path(place, "x")
                )
            found.append(losses[losses["split"] == "validation"].iloc[-1])
        accuracy = " ".join(f"{row['accuracy']:.3f}" for row in found)
        loss = " ".join(f"{row['loss']:.3f}" for row in found)
        mean = np.mean([row["accuracy"] for row in found])
        print(
            f"{pairs:5} {rate:14g} {epochs:7g}  {accuracy}, mean {mean:.3f}  ({loss})", flush=True
        )


if __name__ == "__main__":
    main()
