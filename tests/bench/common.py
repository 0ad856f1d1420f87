"""What the benchmark's two sides share: models, queries, reward, and how a step is timed."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)
from transformers.modeling_outputs import BaseModelOutput

VOCABULARY = 50257
# Padding and end of text lie outside the vocabulary, so that no response ever ends early.
NEVER = VOCABULARY


@dataclass(frozen=True)
class Work:
    """What both trainers do in a step."""

    size: str = "4x256"
    """Layers and width of the policy, the reference and the value network."""
    dtype: str = "float32"
    batch: int = 128
    prompt: int = 8
    response: int = 10
    epochs: int = 4
    learning_rate: float = 1.414e-5
    beta: float = 0.05

    def config(self, attention: str = "sdpa") -> GPT2Config:
        """GPT-2's architecture at this size; 12x768 is GPT-2 itself."""
        layers, width = map(int, self.size.split("x"))
        return GPT2Config(
            n_layer=layers,
            n_embd=width,
            n_head=max(1, width // 64),
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=NEVER,
            num_labels=1,
            attn_implementation=attention,
            dtype="float32",
        )

    def policy(self, attention: str = "sdpa") -> GPT2LMHeadModel:
        """The same weights at each call: the policy and, from another call, the reference.

        The attention is to be that of the trainer's own loaders; transformers' is SDPA.
        """
        torch.manual_seed(0)
        return GPT2LMHeadModel(self.config(attention)).eval()

    def value_model(self) -> GPT2ForSequenceClassification:
        """A value network: the policy's architecture with a scalar head."""
        torch.manual_seed(1)
        return GPT2ForSequenceClassification(self.config()).eval()

    def least_flops(self) -> float:
        """The fewest floating-point operations in which the models can do a step of PPO.

        A multiplication and an addition are two. A token of a body of n layers and width d is worth
        2 * 12 d^2 n for the matrices, and 4 d n for each token that it looks at, itself included; a
        token's logits are worth 2 d V. With P tokens of prompt and T of response nothing has to
        read the last token, and T tokens need logits.

        Sampling (with keys and values kept) reads the P + T - 1 tokens once, as do the reference
        and the value network; an update is a forward pass of policy and value network, and a
        backward pass that is worth two. Elementwise work and the optimizer count nothing.
        """
        layers, width = map(int, self.size.split("x"))
        tokens = self.prompt + self.response - 1
        body = layers * (24 * width**2 * tokens + 2 * width * tokens * (tokens + 1))
        head = self.response * 2 * width * VOCABULARY
        rollout = (body + head) + (body + head) + body
        update = 3 * (2 * body + head)
        return float(self.batch * (rollout + self.epochs * update))

    def queries(self) -> Tensor:
        """The prompts of every step, [batch, prompt]."""
        stream = torch.Generator().manual_seed(2)
        return torch.randint(VOCABULARY, (self.batch, self.prompt), generator=stream)


def tokenizer() -> PreTrainedTokenizerFast:
    """Token i is written ``i``; words stand between spaces."""
    vocabulary = {str(i): i for i in range(VOCABULARY)} | {"<end>": NEVER}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", pad_token="<end>")


class EvenReward(nn.Module):
    """Both trainers' reward, in the form of TRL's reward models: the share of even tokens.

    It costs nothing beside a step, so what is timed is the trainers' own work.
    """

    base_model_prefix = "backbone"

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Identity()

    def backbone(self, input_ids: Tensor, **_: Any) -> BaseModelOutput:
        count = torch.arange(1, input_ids.shape[1] + 1)
        share = (input_ids % 2 == 0).float().cumsum(dim=1) / count
        return BaseModelOutput(hidden_states=(share[..., None],))


def even_reward(prompts: list[str], responses: list[str]) -> Tensor:
    """The same reward from texts, as Prudent's trainer asks for it, [B, 1]."""
    texts = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
    parities = [[int(word) % 2 == 0 for word in text.split()] for text in texts]
    return torch.tensor([[sum(parity) / len(parity)] for parity in parities])


def steps() -> Iterator[int]:
    """Yields a step's number for each line on the standard input, and times what is done with it.

    A step lasts from there to the next request; its seconds and the process's peak memory go to
    the standard output, as a line of JSON. Between steps the process waits and computes nothing.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is not an answer
    print("ready", file=answers)
    for step, _ in enumerate(sys.stdin):
        start, cpu_start = time.perf_counter(), time.process_time()
        yield step
        answer = {
            "seconds": time.perf_counter() - start,
            "cpu_seconds": time.process_time() - cpu_start,
            "peak_mb": peak_mb(),
        }
        print(json.dumps(answer), file=answers)
    sys.exit()


def peak_mb() -> float:
    """This process's peak resident memory (Linux), in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000
