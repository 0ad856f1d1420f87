"""Judges, and the answers that policies give them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import EOS, tiny_model, tiny_prompts, tiny_tokenizer
from tiny_rewards import random_texts, save_reward_model

from prudent.errors import InputError
from prudent.policies import respond as responding
from prudent.policies.respond import respond, sample_responses
from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.judges import judge_responses, judge_world, load_judge
from prudent.rewards.scoring import reward_table
from prudent.seeding import generator
from prudent.world import grammar
from prudent.world.reviews import reviews
from prudent.world.reward import gold_reward

PROMPTS = tiny_prompts(30)
T = 6


@pytest.fixture(scope="module")
def policies(tmp_path_factory) -> dict[str, Path]:
    """Two copies of one policy, and another one."""
    paths = {}
    for name, seed in (("first", 0), ("copy", 0), ("other", 1)):
        paths[name] = tmp_path_factory.mktemp(name)
        tiny_model(seed=seed).save_pretrained(paths[name])
        tiny_tokenizer().save_pretrained(paths[name])
    return paths


def answers(path: Path, seed: int = 0, prompts=PROMPTS, temperature: float = 1.0) -> list[str]:
    stream = torch.Generator().manual_seed(seed)
    return sample_responses(path, prompts, T, temperature, stream)


# --- judges ---------------------------------------------------------------------------------------


def test_the_worlds_judge_is_the_true_reward():
    rng = np.random.default_rng(0)
    cut = [text.split(" ") for text in reviews(30, rng)]
    prompts = [" ".join(words[:6]) for words in cut]
    responses = [" " + " ".join(words[6:]) for words in cut]
    responses[3] += " the the of"
    found = load_judge("world")(prompts, responses)
    expected = [gold_reward([p], [r])[0] for p, r in zip(prompts, responses, strict=True)]
    np.testing.assert_allclose(found["score"], expected)
    assert found["score"].dtype == np.float64 and found["score"].std() > 0.1
    grammatical = [grammar.grammatical(p + r) for p, r in zip(prompts, responses, strict=True)]
    assert found["grammatical"].tolist() == [float(flag) for flag in grammatical]
    assert found["grammatical"][3] == 0 and found["grammatical"].mean() > 0.9


def test_the_worlds_judge_reads_messages():
    text, response = "the plot is", " not very gripping."
    messages = [{"role": "user", "content": text}]
    both = judge_world([messages, text], [response, response])
    assert both["score"][0] == both["score"][1] != 0


def test_a_reward_model_judges(tmp_path):
    path = save_reward_model(tmp_path, "bert")
    texts = random_texts(len(PROMPTS))
    for name in (path, str(path)):
        found = load_judge(name)(PROMPTS, texts)
        assert list(found) == ["score"] and found["score"].dtype == np.float64
        expected = RewardEnsemble.load(path)(PROMPTS, texts).mean[:, 0]
        np.testing.assert_array_equal(found["score"], expected.double())
        assert found["score"].std() > 0.01


def test_a_judge_of_many_labels_is_refused(tmp_path):
    path = save_reward_model(tmp_path, labels=3)
    with pytest.raises(InputError, match="a judge has one label, this model has 3"):
        load_judge(path)


def test_a_policy_is_no_judge(policies):
    with pytest.raises(InputError, match="no chat template"):
        load_judge(policies["first"])


def test_a_missing_judge_is_refused(tmp_path):
    with pytest.raises(InputError, match="nothing: no such folder"):
        load_judge(tmp_path / "nothing")


# --- answers --------------------------------------------------------------------------------------


def test_answers_hang_on_the_seed_and_not_on_the_batches(policies, monkeypatch):
    whole = answers(policies["first"])
    assert len(set(whole)) > 20
    for size in (1, 7, 30):
        monkeypatch.setattr(responding, "BATCH", size)
        assert answers(policies["first"]) == whole
    assert answers(policies["first"], seed=1) != whole


def test_equal_policies_answer_alike_and_others_do_not(policies):
    first, copy, other = (answers(policies[name]) for name in ("first", "copy", "other"))
    assert first == copy
    assert sum(a != b for a, b in zip(first, other, strict=True)) > 15


def test_an_answer_belongs_to_its_place(policies):
    # The same draws for the first prompts, however many follow.
    assert answers(policies["first"], prompts=PROMPTS[:11]) == answers(policies["first"])[:11]


def test_answers_are_the_policys_own_greedy_ones_when_it_is_cold(policies):
    model, tokenizer = tiny_model(), tiny_tokenizer()
    for prompt, answer in zip(PROMPTS, answers(policies["first"], temperature=1e-4), strict=True):
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        expected: list[int] = []
        for _ in range(T):
            with torch.no_grad():
                token = model(input_ids=ids).logits[0, -1].argmax()
            if token == EOS:
                break
            expected.append(int(token))
            ids = torch.cat([ids, token[None, None]], dim=1)
        assert answer.split() == tokenizer.decode(expected, skip_special_tokens=True).split()


def test_answers_hold_no_special_tokens_and_at_most_t_tokens(policies):
    found = [answer.split() for answer in answers(policies["other"])]
    assert not any("<" in token for answer in found for token in answer)
    assert max(map(len, found)) == T > min(map(len, found))


# --- both -----------------------------------------------------------------------------------------


def test_policies_answer_and_are_judged_one_by_one(policies, tmp_path):
    checkpoints = {seed: policies[name] for seed, name in enumerate(("first", "other", "copy"))}
    table = respond(checkpoints, policies["other"], PROMPTS, T, 1.0, seed=5).assign(method="some")
    assert table["seed"].tolist() == [seed for seed in range(3) for _ in PROMPTS]
    assert table["prompt"].tolist() == PROMPTS * 3
    alone = {
        seed: sample_responses(path, PROMPTS, T, 1.0, generator(5, "judge", "sampling"))
        for seed, path in checkpoints.items()
    }
    assert table["response"].tolist() == alone[0] + alone[1] + alone[2]
    assert alone[0] == alone[2] != alone[1]
    kl = table.groupby("seed")["kl"].mean()
    assert kl[0] == kl[2] > 0.01 and kl[1] == 0, "that of the reference itself"
    other = respond({0: policies["first"]}, policies["other"], PROMPTS, T, 1.0, seed=6)
    assert other["response"].tolist() != alone[0]

    judge = load_judge(save_reward_model(tmp_path))
    judged = judge_responses(table, judge)
    assert list(judged.columns) == [*table.columns, "score"]
    expected = np.concatenate([judge(PROMPTS, alone[seed])["score"] for seed in range(3)])
    np.testing.assert_array_equal(judged["score"], expected)
    flagged = judge_responses(table.head(3), judge_world)
    assert list(flagged.columns) == [*table.columns, "score", "grammatical"]


def test_all_heads_reward_all_responses(policies, tmp_path):
    table = respond({3: policies["first"]}, policies["other"], PROMPTS, T, 1.0, seed=5).assign(
        method="some"
    )
    paths = [save_reward_model(tmp_path / str(n), labels=2, seed=0) for n in range(2)]
    ensembles = [RewardEnsemble.load(path) for path in paths]
    ensembles[1].weight += 1
    found = reward_table(table, ensembles)
    for number, ensemble in enumerate(ensembles):
        expected = ensemble(PROMPTS, table["response"]).mean
        for head in range(2):
            rows = found[(found["ensemble"] == number) & (found["head"] == head)]
            assert rows["prompt"].tolist() == PROMPTS and set(rows["seed"]) == {3}
            rewards = torch.tensor(rows["reward"].to_numpy()).float()
            torch.testing.assert_close(rewards, expected[:, head])
