"""A policy of the paper's shape on one GPU: time per phase, and the share of the GPU's peak.

GPT-2 (124M) against a reward backbone of Gemma-2B's shape with ten heads in bfloat16, both with
random weights; batch 128, 10 new tokens, 192 steps. On a machine without a GPU, or with --tiny, the
same code runs on tiny models, which shows that it works and nothing about its speed.

    python tests/bench/gpu.py [--tiny] [--steps 192]
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GemmaConfig,
    GemmaForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from prudent.checkpoints import attention, device
from prudent.objectives.weighted import variance_aware
from prudent.ppo import trainer as ppo
from prudent.ppo.trainer import PPOSettings, PPOTrainer
from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.text import TEMPLATES

RESULTS = Path("results/bench")
VOCABULARY, READER_VOCABULARY = 50257, 256000


def tokenizer(size: int, first: int, **options: Any) -> PreTrainedTokenizerFast:
    """Words w0, w1, ... of which the first ones come last, so that two differ in every token."""
    words = {f"w{(first + i) % (size - 2)}": i for i in range(size - 2)}
    words |= {"<end>": size - 2, "<pad>": size - 1}
    model = Tokenizer(models.WordLevel(words, unk_token="<end>"))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=model, eos_token="<end>", pad_token="<pad>", **options
    )


def policy(tiny: bool) -> GPT2LMHeadModel:
    """The same weights at each call."""
    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_embd": 64, "n_head": 2} if tiny else {}
    config = GPT2Config(**shape, attn_implementation=attention())
    return GPT2LMHeadModel(config).to(device())


def ensemble(tiny: bool) -> RewardEnsemble:
    """Ten heads on a backbone of Gemma-2B's shape."""
    torch.manual_seed(1)
    shape = (
        {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 16}
        | {"num_attention_heads": 4, "num_key_value_heads": 1}
        if tiny
        else {"hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18}
        | {"num_attention_heads": 8, "num_key_value_heads": 1}
    )
    config = GemmaConfig(
        **shape,
        vocab_size=READER_VOCABULARY,
        num_labels=10,
        pad_token_id=READER_VOCABULARY - 1,
        attn_implementation=attention(),
        dtype="bfloat16",
    )
    with device():
        model = GemmaForSequenceClassification(config).to(torch.bfloat16)
    reader = tokenizer(
        READER_VOCABULARY, 1000, chat_template=TEMPLATES["continuation"], model_max_length=64
    )
    return RewardEnsemble(model, reader)


def matmul_peak() -> float:
    """FLOP/s of the best of some bfloat16 matrix products."""
    size = 8192 if torch.cuda.is_available() else 1024
    a, b = (torch.randn(size, size, device=device(), dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(10):
        start = now()
        a @ b
        best = max(best, 2 * size**3 / (now() - start))
    return best


def now() -> float:
    """Seconds, when all that was asked of the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def weights(model: Any) -> int:
    """Weights that every token is multiplied by: all but embeddings and the final layer."""
    return sum(p.numel() for p in model.base_model.parameters() if p.ndim == 2) - sum(
        m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Embedding)
    )


def model_flops(trainer: PPOTrainer, rewards: RewardEnsemble, tokens: int, prompts: int) -> float:
    """Of the steps that read that many tokens of prompts and wrote that many of responses.

    2 a weight and token; sampling and reference read each token once, an update is worth three, and
    logits are made for the responses' tokens alone. Attention itself is left out: texts are short.
    """
    passes = 2 + 3 * trainer.settings.epochs
    config = trainer.policy.config
    body = weights(trainer.policy) * (prompts + tokens)
    logits = config.vocab_size * config.hidden_size * tokens
    reading = weights(rewards.model) * (prompts + tokens)
    return 2.0 * (passes * (body + logits) + reading)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiny", action="store_true", default=not torch.cuda.is_available())
    parser.add_argument("--steps", type=int, default=192)
    parser.add_argument("--batch", type=int, default=128)
    options = parser.parse_args()

    rewards = ensemble(options.tiny)
    stream = torch.Generator().manual_seed(2)
    lengths = torch.randint(2, 8, (4000,), generator=stream).tolist()
    draw = functools.partial(torch.randint, VOCABULARY - 2, generator=stream)
    prompts = [" ".join(f"w{i}" for i in draw((length,)).tolist()) for length in lengths]

    def train(steps: int) -> tuple[float, PPOTrainer, list[dict[str, float]]]:
        settings = PPOSettings(
            batch_size=options.batch,
            minibatch_size=options.batch,
            steps=steps,
            bfloat16=True,
            matmul_precision="high",
        )
        models = policy(options.tiny), policy(options.tiny)
        trainer = PPOTrainer(
            *models,
            tokenizer(VOCABULARY, 0),
            rewards,
            variance_aware,
            beta=0.05,
            settings=settings,
        )
        start = now()
        log = trainer.train(prompts)
        return now() - start, trainer, log

    train(2)  # to warm up
    seconds, trainer, log = train(options.steps)
    flops = model_flops(
        trainer,
        rewards,
        tokens=int(sum(row["tokens"] for row in log)),
        prompts=sum(lengths) * options.batch * options.steps // len(lengths),
    )
    peak = matmul_peak()

    # Phases in a run of their own: to time them is to wait for the device between them.
    phases: dict[str, float] = defaultdict(float)

    def timed(phase: str, function: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = now()
            result = function(*args, **kwargs)
            phases[phase] += now() - start
            return result

        return call

    ppo.sample = timed("sampling", ppo.sample)
    ppo.response_statistics = timed("reference", ppo.response_statistics)
    ppo.decode_responses = timed("decoding", ppo.decode_responses)
    PPOTrainer._scores = timed("reward", PPOTrainer._scores)
    PPOTrainer._update = timed("updates", PPOTrainer._update)
    count = min(options.steps, 20)
    phased, _, _ = train(count)
    phases["rest"] = phased - sum(phases.values())

    cuda = torch.cuda.is_available()
    result = {
        "device": torch.cuda.get_device_name() if cuda else "CPU",
        "torch": torch.__version__,
        "tiny": options.tiny,
        "steps": options.steps,
        "batch": options.batch,
        "seconds": seconds,
        "seconds_per_step": seconds / options.steps,
        "seconds_per_step_by_phase": {name: value / count for name, value in phases.items()},
        "model_tflop_per_step": flops / options.steps / 1e12,
        "matmul_peak_tflops": peak / 1e12,
        "share_of_peak": flops / seconds / peak,
        "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9 if cuda else None,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "gpu.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
