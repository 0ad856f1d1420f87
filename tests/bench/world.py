"""What the embedded world is worth: its language, its true reward, and what PPO makes of that.

Draws reviews and continuations at the default exponent of Zipf's law, trains the default
scenario's reference policy on its texts, and runs PPO on r* alone with no price on leaving the
reference. If r* could be hacked, PPO would do it: its responses have to stay grammatical. Takes
some minutes on one core.

Prints, and writes to results/bench/world.csv, a row a quantity.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from learns import true_reward

from prudent.checkpoints import load_tokenizer, save_checkpoint
from prudent.data.settings import PromptSettings, TextSettings
from prudent.data.texts import build_prompts, build_texts
from prudent.objectives.single import vanilla
from prudent.policies.models import load_causal_lm
from prudent.policies.reference import make_reference
from prudent.policies.respond import sample_responses
from prudent.policies.settings import ReferenceSettings, SamplingSettings
from prudent.ppo.trainer import PPOSettings, PPOTrainer
from prudent.rewards.judges import judge_world
from prudent.seeding import generator
from prudent.tables import write_csv
from prudent.workflow.config_docs import DEFAULTS
from prudent.workflow.configfiles import read_config
from prudent.world.grammar import split, vocabulary
from prudent.world.reviews import continuations
from prudent.world.reward import gold_reward

ROOT = Path(__file__).resolve().parents[2]
PAIRS = 12_000  # to fit the regression, and as many to test it
ANSWERS = 4  # to each prompt
BEST_OF, PROMPTS = 512, 64
HACK = "very really truly deeply very really truly deeply very superb"

logger = logging.getLogger("world")


def spread(gold: np.ndarray) -> dict[str, float]:
    """Standard deviations of rewards [prompts, answers]."""
    within = np.sqrt(gold.var(axis=1, ddof=1).mean())
    return {"sd": float(gold.std()), "sd within prompts": float(within)}


def counts_of_words(texts: list[str]) -> np.ndarray:
    """How often each word of the vocabulary stands in each text."""
    index = {word: i for i, word in enumerate(sorted(vocabulary()))}
    counts = np.zeros((len(texts), len(index)))
    for row, text in enumerate(texts):
        for word in split(text):
            counts[row, index[word]] += 1
    return counts


def explained(prompts: list[str], responses: list[str], gold: np.ndarray) -> float:
    """R2 of a ridge regression of r* on the words of prompt and response, on the second half."""
    counts = np.hstack([counts_of_words(prompts), counts_of_words(responses)])
    half = len(gold) // 2
    mean, level = counts[:half].mean(axis=0), gold[:half].mean()
    centred = counts[:half] - mean
    gram = centred.T @ centred + 3 * np.eye(counts.shape[1])
    weights = np.linalg.solve(gram, centred.T @ (gold[:half] - level))
    error = gold[half:] - level - (counts[half:] - mean) @ weights
    return float(1 - error.var() / gold[half:].var())


def of_the_grammar() -> dict[str, float]:
    """What r* is over the grammar's own continuations."""
    rows = 2 * PAIRS // ANSWERS
    prompts, drawn = continuations(rows, ANSWERS, np.random.default_rng(0))
    prompts = [prompt for prompt in prompts for _ in range(ANSWERS)]
    responses = [response for answers in drawn for response in answers]
    gold = np.array(gold_reward(prompts, responses))
    found = {"mean": float(gold.mean()), **spread(gold.reshape(rows, ANSWERS))}
    found["R2 of a linear regression on words"] = explained(prompts, responses, gold)
    prompts, drawn = continuations(PROMPTS, BEST_OF, np.random.default_rng(1))
    best = [
        max(gold_reward([prompt] * BEST_OF, answers))
        for prompt, answers in zip(prompts, drawn, strict=True)
    ]
    found[f"best of {BEST_OF}: mean"] = float(np.mean(best))
    found[f"best of {BEST_OF}: lowest"] = float(min(best))
    found["a hack: highest"] = max(gold_reward(prompts, [f" {HACK}"] * PROMPTS))
    return {f"grammar: {quantity}": value for quantity, value in found.items()}


def of_policies() -> dict[str, float]:
    """What r* is over the responses of the reference, and of PPO's policy at coefficient 0."""
    config = read_config(DEFAULTS)
    texts, _ = build_texts(TextSettings(**config["texts"]), "refuse", 0)
    sampling = SamplingSettings(**config.get("sampling", {}))
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        reference, policy = Path(folder, "reference"), Path(folder, "policy")
        make_reference(texts, ReferenceSettings(**config["reference"]), 0, reference)
        logger.info("the reference policy is trained")
        tokenizer = load_tokenizer(reference)
        table, _ = build_prompts(PromptSettings(**config["prompts"]), tokenizer, "refuse", 0)
        prompts = {split: list(rows["prompt"]) for split, rows in table.groupby("split")}
        known = PPOSettings.model_fields
        ppo = {key: value for key, value in config["ppo"].items() if key in known}
        trainer = PPOTrainer(
            *(load_causal_lm(reference), load_causal_lm(reference), tokenizer),
            *(true_reward, vanilla),
            beta=0.0,
            settings=PPOSettings(**ppo, **sampling.model_dump()),
        )
        trainer.train(prompts["train"])
        save_checkpoint(trainer.policy, tokenizer, policy)
        asked = [prompt for prompt in prompts["test"] for _ in range(ANSWERS)]
        for name, checkpoint in (("reference", reference), ("PPO on r* alone", policy)):
            draws = generator(0, "bench", "world")
            answers = sample_responses(
                checkpoint, asked, sampling.response_length, sampling.temperature, draws
            )
            verdict = judge_world(asked, answers)
            gold = verdict["score"]
            numbers = {"mean": float(gold.mean()), **spread(gold.reshape(-1, ANSWERS))}
            numbers["grammatical"] = float(verdict["grammatical"].mean())
            found |= {f"{name}: {quantity}": value for quantity, value in numbers.items()}
            for prompt, answer, score in list(zip(asked, answers, gold, strict=True))[::97][:8]:
                logger.info("%s: %.3f %r + %r", name, score, prompt, answer)
    return found


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    found = of_the_grammar()
    logger.info("%s", found)
    found |= of_policies()
    frame = pd.DataFrame({"quantity": list(found), "value": list(found.values())})
    write_csv(frame, ROOT / "results" / "bench" / "world.csv")
    print(frame.to_string(index=False, float_format="{:.3f}".format))
    kept = [found[f"{name}: grammatical"] for name in ("reference", "PPO on r* alone")]
    if kept[1] < kept[0] - 0.02:
        sys.exit("PPO on the true reward alone unlearned the grammar")


if __name__ == "__main__":
    main()
