"""Measurements in a process of their own: python alone.py heads '{"repeats": 100}'."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import Work
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2ForSequenceClassification, PreTrainedTokenizerFast

from prudent.policies.text import decode_responses, encode_prompts
from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.text import TEMPLATES, encode
from prudent.world.reviews import reviews


def matmul(dtype: str) -> list[dict[str, Any]]:
    """GFLOP/s of square matrix products of each size, kept up for a second."""
    rows = []
    for size in (2048, 4096):
        a, b = torch.randn(2, size, size).to(getattr(torch, dtype))
        seconds = [timed(lambda a=a, b=b: a @ b)]
        while sum(seconds[1:]) < 1:
            seconds.append(timed(lambda a=a, b=b: a @ b))
        count = len(seconds) - 1  # without the first, which warms up
        rows.append({"size": size, "gflops": 2 * size**3 * count / sum(seconds[1:]) / 1e9})
    return rows


def timed(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def texts(rows: int) -> list[str]:
    return reviews(rows, np.random.default_rng(0))


def policy_tokenizer() -> PreTrainedTokenizerFast:
    """GPT-2's kind: byte pairs, spaces at the beginnings of words."""
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pairs.train_from_iterator(texts(2000), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=pairs, eos_token="<|endoftext|>")


def reward_tokenizer() -> PreTrainedTokenizerFast:
    """Another kind, which cuts texts elsewhere: BERT's word pieces."""
    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=["[PAD]", "[UNK]", "[SEP]"], show_progress=False
    )
    pieces.train_from_iterator(texts(2000), trainer)
    result = PreTrainedTokenizerFast(
        tokenizer_object=pieces, eos_token="[SEP]", pad_token="[PAD]", model_max_length=64
    )
    result.chat_template = TEMPLATES["continuation"]
    return result


def exchange(work: Work) -> tuple[Callable[[], tuple[list[str], list[str]]], int]:
    """A function that turns a batch of the policy's tokens into texts, and how many tokens."""
    tokenizer = policy_tokenizer()
    ids, _ = encode_prompts(tokenizer, [text * 2 for text in texts(work.batch)])
    whole = ids[:, -(work.prompt + work.response) :]
    prompts, responses = whole[:, : work.prompt], whole[:, work.prompt :]
    names = tokenizer.batch_decode(prompts)

    def texts_again() -> tuple[list[str], list[str]]:
        ones = torch.ones_like
        return names, decode_responses(
            tokenizer, prompts, ones(prompts), responses, ones(responses)
        )

    return texts_again, whole.numel()


def tokenizer(repeats: int) -> list[dict[str, Any]]:
    """Seconds to decode a batch's responses and tokenise them for another model."""
    texts_again, _ = exchange(Work())
    other = reward_tokenizer()
    rows = [timed(lambda: encode(other, *texts_again())) for _ in range(repeats + 1)]
    return [
        {"what": "tokenizers", "repeat": repeat, "seconds": seconds}
        for repeat, seconds in enumerate(rows[1:])
    ]


def heads(repeats: int) -> list[dict[str, Any]]:
    """Seconds to reward a batch with ten heads and with one, on the same body, in turn."""
    texts_again, _ = exchange(Work())
    prompts, responses = texts_again()
    words = reward_tokenizer()
    ensembles = []
    for count in (10, 1):
        config = Work().config()
        config.num_labels, config.vocab_size = count, len(words)
        config.pad_token_id = words.pad_token_id
        torch.manual_seed(0)
        ensembles.append(RewardEnsemble(GPT2ForSequenceClassification(config), words))
    rows = []
    for repeat in range(-1, repeats):
        for ensemble in ensembles if repeat % 2 else reversed(ensembles):
            seconds = timed(lambda ensemble=ensemble: ensemble(prompts, responses))
            rows.append({"what": ensemble.heads, "repeat": repeat, "seconds": seconds})
    return [row for row in rows if row["repeat"] >= 0]


if __name__ == "__main__":
    measurement = {"matmul": matmul, "heads": heads, "tokenizer": tokenizer}[sys.argv[1]]
    print(json.dumps(measurement(**json.loads(sys.argv[2]))))
