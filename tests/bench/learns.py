"""A policy learns: PPO with the embedded world's true reward raises that reward, for every seed.

The reward function is r* itself, so nothing but PPO stands between a policy and the goal. It starts
from the default scenario's reference policy, which the workflow makes if it is not there, and keeps
to config.yaml's PPO settings with vanilla's objective at a small KL coefficient. What was learned
is measured on the held-out prompts with fresh samples, the same draws for all. A seed that gains
less than one standard deviation of the reference's own responses fails the benchmark: status 1.

Writes results/bench/learns.csv, a row a seed.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from prudent.checkpoints import load_tokenizer
from prudent.objectives.single import vanilla
from prudent.policies.models import load_causal_lm
from prudent.policies.sampling import response_statistics, sample
from prudent.policies.text import decode_responses, encode_prompts, end_tokens, pad_token
from prudent.ppo import kl
from prudent.ppo.trainer import PPOSettings, PPOTrainer
from prudent.seeding import generator
from prudent.tables import read_table, write_csv
from prudent.workflow.checks import effective_config
from prudent.workflow.config_docs import DEFAULTS
from prudent.workflow.configfiles import read_config
from prudent.workflow.entry import set_threads
from prudent.workflow.remembered import Memory
from prudent.world.reward import gold_reward

ROOT = Path(__file__).resolve().parents[2]
SEEDS = range(5)
BETA = 0.05
ANSWERS = 4  # to each held-out prompt
REQUIRED = 1.0  # standard deviations

logger = logging.getLogger("learns")


def true_reward(prompts: list[str], responses: list[str]) -> Tensor:
    """r* as a reward function of one head, [B, 1]."""
    return torch.tensor(gold_reward(prompts, responses))[:, None]


def evaluate(
    policy: Any, reference: Any, tokenizer: Any, prompts: list[str], settings: PPOSettings
) -> tuple[Tensor, float]:
    """r* of fresh answers [n], and their mean KL (k1, nats per response) from the reference."""
    ids, mask = encode_prompts(tokenizer, prompts)
    draws = generator(0, "bench", "learns")
    uniforms = torch.rand(len(prompts), settings.response_length, generator=draws)
    rollout = sample(
        policy,
        *(ids, mask, uniforms, settings.temperature),
        *(end_tokens(policy, tokenizer), pad_token(tokenizer)),
    )
    with torch.no_grad():
        reference_log_probs, _ = response_statistics(
            reference,
            torch.cat([ids, rollout.response_ids], dim=1),
            torch.cat([mask, rollout.mask.to(mask.dtype)], dim=1),
            rollout.mask.shape[1],
            settings.temperature,
        )
    texts = decode_responses(tokenizer, ids, mask, rollout.response_ids, rollout.mask)
    divergence = kl.k1(rollout.log_probs - reference_log_probs, rollout.mask).mean().item()
    return true_reward(prompts, texts)[:, 0], divergence


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config = effective_config(read_config(DEFAULTS), Memory(Path("results/files.json")))
    results = Path("results") / config["scenario"]
    targets = [results / "reference", results / "data" / "prompts.parquet"]
    subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "all", *map(str, targets)],
        cwd=ROOT,
        check=True,
    )
    checkpoint, table = ROOT / targets[0], read_table(ROOT / targets[1], "prompts")
    train = table.loc[table["split"] == "train", "prompt"].tolist()
    test = table.loc[table["split"] == "test", "prompt"].tolist() * ANSWERS

    set_threads(config["ppo"].pop("threads"))
    settings = PPOSettings(**config["ppo"], **config["sampling"])
    reference, tokenizer = load_causal_lm(checkpoint), load_tokenizer(checkpoint)
    before, _ = evaluate(reference, reference, tokenizer, test, settings)
    mean, sd = before.mean().item(), before.std().item()
    logger.info("reference: r* %.3f, sd %.3f over %d responses", mean, sd, len(test))

    rows = []
    for seed in SEEDS:
        start = time.perf_counter()
        policy = load_causal_lm(checkpoint)
        trainer = PPOTrainer(
            *(policy, reference, tokenizer, true_reward, vanilla),
            **{"beta": BETA, "settings": settings, "seed": config["seed"], "run_seed": seed},
        )
        trainer.train(train)
        seconds = time.perf_counter() - start
        after, divergence = evaluate(policy, reference, tokenizer, test, settings)
        row = {"seed": seed, "beta": BETA, "reference_mean": mean, "reference_sd": sd}
        row |= {"policy_mean": after.mean().item(), "gain_sd": (after.mean().item() - mean) / sd}
        row |= {"kl": divergence, "steps": settings.steps, "seconds": seconds}
        rows.append(row)
        logger.info("seed %d: gain %.2f sd, KL %.2f", seed, row["gain_sd"], divergence)

    frame = pd.DataFrame(rows)
    write_csv(frame, ROOT / "results" / "bench" / "learns.csv")
    print(frame.to_string(index=False, float_format="{:.3f}".format))
    short = frame.loc[frame["gain_sd"] < REQUIRED, "seed"].tolist()
    if short:
        sys.exit(f"seeds {short} gained less than {REQUIRED:g} sd of the reference's responses")
    print(f"every seed gained at least {REQUIRED:g} sd of the reference's responses")


if __name__ == "__main__":
    main()
