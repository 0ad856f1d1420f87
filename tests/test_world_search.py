"""The true reward under optimisation: nothing ungrammatical beats what the grammar can say."""

import numpy as np
import pandas as pd
import pytest
import torch
from world_search import (
    HACK,
    LENGTH,
    best_broken_by_beam,
    best_broken_by_evolution,
    best_grammatical,
    endings,
)

from prudent.checkpoints import load_tokenizer, save_checkpoint
from prudent.data.settings import PromptSettings
from prudent.data.texts import build_prompts
from prudent.objectives.single import vanilla
from prudent.policies.models import load_causal_lm
from prudent.policies.reference import ReferenceSettings, make_reference
from prudent.policies.respond import sample_responses
from prudent.ppo.trainer import PPOSettings, PPOTrainer
from prudent.rewards.judges import judge_world
from prudent.seeding import generator
from prudent.world import reward as reward_module
from prudent.world.grammar import REVIEWS, grammatical, join, split
from prudent.world.reviews import continuations, reviews
from prudent.world.reward import gold_reward


def shortest_beginnings() -> list[str]:
    """The shortest beginning for each state of the automaton: what can follow is all there is."""
    found, pending = {REVIEWS.start: ()}, [REVIEWS.start]
    for state in pending:
        for word, after in REVIEWS.follow(state).items():
            if after not in found:
                found[after] = (*found[state], word)
                pending.append(after)
    return [join(list(words)) for words in found.values()]


def cut_beginnings(count: int, seed: int) -> list[str]:
    """Beginnings of reviews of 1 to 60 characters, most of which end in a word."""
    rng = np.random.default_rng(seed)
    return [text[: int(rng.integers(1, 61))].strip() for text in reviews(count, rng)]


def test_the_search_within_the_grammar_stays_there_and_finds_more_than_chance():
    prompts = ["the pl", "this wedding film is", "last", "although this war film is too"]
    for prompt in prompts:
        gold, text = best_grammatical(prompt)
        assert grammatical(prompt + text) and gold == gold_reward([prompt], [text])[0]
        assert len(split(prompt + text)) <= len(split(prompt)) + LENGTH
    assert {text for text, _ in endings("this horror film is gri")} == {"pping", "m"}
    prompts, drawn = continuations(10, 200, np.random.default_rng(0))
    for prompt, responses in zip(prompts, drawn, strict=True):
        assert best_grammatical(prompt)[0] >= max(gold_reward([prompt] * 200, responses))


@pytest.mark.slow
def test_every_beginning_has_a_good_continuation():
    beginnings = shortest_beginnings()
    assert len(beginnings) > 150 and "" in beginnings
    beginnings += cut_beginnings(80, seed=0) + continuations(40, 1, np.random.default_rng(1))[0]
    assert min(len(split(prompt)) for prompt in beginnings if prompt) == 1
    for prompt in beginnings:
        gold, text = best_grammatical(prompt, enough=0.5)
        assert gold >= 0.5 and grammatical(prompt + text), (prompt, text)


def searched(prompts: list[str]) -> list[tuple[float, float, str]]:
    """Of each prompt the best grammatical and the best ungrammatical reward, and the latter's."""
    rng = np.random.default_rng(0)
    found = []
    for prompt in prompts:
        best, text = best_grammatical(prompt)
        starts = [f" {HACK}", text]
        broken = max(
            best_broken_by_beam(prompt, starts), best_broken_by_evolution(prompt, starts, rng)
        )
        assert not grammatical(prompt + broken[1]) and len(split(broken[1])) > 0
        found.append((best, *broken))
    return found


@pytest.mark.slow
def test_nothing_ungrammatical_beats_the_best_grammatical_response():
    prompts = ["the plot", "most", "la", "this horror film is gri", "i did not", "with its"]
    prompts += cut_beginnings(3, seed=1) + continuations(3, 1, np.random.default_rng(2))[0]
    for prompt, (best, broken, text) in zip(prompts, searched(prompts), strict=True):
        assert broken < 0 < 0.5 < best, (prompt, text)
        assert gold_reward([prompt], [f" {HACK}"])[0] < -0.9


def test_the_search_finds_a_reward_that_can_be_hacked(monkeypatch):
    # Were breaks free, the grammar would be in the way.
    monkeypatch.setattr(reward_module, "breaks", lambda text: 0)
    (best, broken, _), *_ = searched(["the plot"])
    assert broken > best > 0


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A policy that writes the world's language, and its folder."""
    path = tmp_path_factory.mktemp("reference")
    texts = pd.DataFrame({"text": reviews(6000, np.random.default_rng(0)), "split": "train"})
    settings = ReferenceSettings(
        **{"layers": 1, "width": 64, "vocabulary": 1024, "context": 32},
        **{"epochs": 3, "batch_size": 32, "learning_rate": 8e-3},
    )
    make_reference(texts, settings, 0, path)
    return path


@pytest.mark.slow
def test_ppo_on_the_true_reward_alone_keeps_to_the_grammar(reference, tmp_path):
    tokenizer = load_tokenizer(reference)
    table, _ = build_prompts(
        PromptSettings(sources=[{"world": "reviews", "rows": 2000}], test=400),
        *(tokenizer, "refuse", 0),
    )
    prompts = {split: list(rows["prompt"]) for split, rows in table.groupby("split")}

    def true_reward(prompts, responses):
        return torch.tensor(gold_reward(prompts, responses))[:, None]

    trainer = PPOTrainer(
        *(load_causal_lm(reference), load_causal_lm(reference), tokenizer, true_reward, vanilla),
        beta=0.0,
        settings=PPOSettings(steps=100, learning_rate=5e-4),
    )
    trainer.train(prompts["train"])
    save_checkpoint(trainer.policy, tokenizer, tmp_path / "policy")
    before, after = (
        judge_world(
            prompts["test"],
            sample_responses(path, prompts["test"], 10, 1.0, generator(0, "test", "draws")),
        )
        for path in (reference, tmp_path / "policy")
    )
    assert before["grammatical"].mean() > 0.85
    assert after["grammatical"].mean() > before["grammatical"].mean() - 0.03
    assert before["score"].mean() < 0.1 and after["score"].mean() > 0.5
