"""How near the plan's memory is to what trainings take: measured peaks on a CPU, each in a process.

    .venv/bin/python tests/bench/plan_memory.py

A peak is the most resident memory, less that after the same training of a small model, which has
loaded the libraries.
"""

import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "workflow_scripts"))

CASES = {
    "GPT-2 reward model, 8 pairs of 64 tokens": ("gpt2", "reward", 16),
    "GPT-2 reward model, 1 pair of 64 tokens": ("gpt2", "reward", 2),
    "Llama reward model, 8 pairs of 64 tokens": ("llama", "reward", 16),
    "Gemma reward model, 8 pairs of 64 tokens": ("gemma", "reward", 16),
    "GPT-2 language model, 16 texts of 64 tokens": ("gpt2", "language", 16),
    "Gemma policy of PPO, 16 responses, 64 tokens with the prompt": ("gemma", "ppo", 16),
}
LENGTH, RESPONSE = 64, 48


def config_of(kind: str, layers: int = 8, width: int = 512, vocabulary: int = 8192):
    """A configuration, by default of about thirty million weights."""
    from transformers import GemmaConfig, GPT2Config, LlamaConfig

    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    if kind == "gpt2":
        return GPT2Config(
            **ends,
            vocab_size=vocabulary,
            n_embd=width,
            n_layer=layers,
            n_head=8,
            n_positions=LENGTH,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            activation_function="gelu_pytorch_tanh",
        )
    own = {"head_dim": 64} if kind == "gemma" else {}
    return {"llama": LlamaConfig, "gemma": GemmaConfig}[kind](
        **ends,
        **own,
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=2,
    )


def planned(kind: str, what: str, rows: int) -> float:
    """The plan's peak, in bytes."""
    from prudent.plan import memory
    from prudent.plan.models import from_config

    if what == "ppo":
        return planned_policy(rows)
    model = from_config(config_of(kind).to_dict())
    if what == "reward":
        return memory.reward_training(model, rows // 2, LENGTH, False).peak
    return memory.language_training(model, rows, LENGTH, False, False).peak


def planned_policy(rows: int) -> float:
    """That of a policy whose rewards need no model."""
    from prudent.plan.costs import policy_memory, study
    from prudent.plan.models import from_config
    from prudent.workflow.checks import effective_config
    from prudent.workflow.configfiles import merged, read_config
    from prudent.workflow.remembered import Memory

    over = {
        "ppo": {"batch_size": rows, "minibatch_size": rows},
        "sampling": {"response_length": RESPONSE},
        "prompts": {"max_tokens": LENGTH - RESPONSE},
        "reference": {"context": LENGTH},
    }
    config = effective_config(merged(read_config(ROOT / "config.yaml"), over), Memory(Path("none")))
    model = from_config(config_of("gemma", vocabulary=len(tokenizer())).to_dict())
    nothing = from_config(config_of("gemma", 1, 8, 2).to_dict())
    found = replace(study(config, {}), reference=model, backbone=nothing)
    return policy_memory(found, "vanilla").peak


def tokenizer():
    """One of a few hundred tokens."""
    from prudent.policies.reference import train_tokenizer

    return train_tokenizer(["some words of a text"], 262)


def train(what: str, config, rows: int) -> None:
    """Two steps, of which the second one has an optimizer's state from the start."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    if what == "ppo":
        train_policy(config, rows)
        return
    classes = {"reward": AutoModelForSequenceClassification, "language": AutoModelForCausalLM}
    config.num_labels = 1
    model = classes[what].from_config(config, attn_implementation="sdpa").train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    ids = torch.randint(2, config.vocab_size, (rows, LENGTH))
    for _ in range(2):
        if what == "reward":
            chosen, rejected = model(ids, use_cache=False).logits.chunk(2)
            loss = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
        else:
            loss = model(ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def train_policy(config, rows: int) -> None:
    """Two steps of PPO, with rewards that need no model."""
    import torch
    from transformers import AutoModelForCausalLM

    from prudent.objectives.single import vanilla
    from prudent.ppo.trainer import PPOSettings, PPOTrainer

    words = tokenizer()
    config.vocab_size = len(words)
    policy, reference = (
        AutoModelForCausalLM.from_config(config, attn_implementation="sdpa") for _ in range(2)
    )
    settings = PPOSettings(
        steps=2, batch_size=rows, minibatch_size=rows, epochs=1, response_length=RESPONSE
    )
    trainer = PPOTrainer(
        policy,
        reference,
        words,
        lambda prompts, responses: torch.randn(len(prompts), 2),
        vanilla,
        beta=0.1,
        settings=settings,
    )
    trainer.train(["some words of a "] * rows)


def measure(kind: str, what: str, rows: int) -> int:
    """The peak of two steps, in bytes."""
    import torch

    torch.set_num_threads(1)
    train(what, config_of(kind, layers=1, width=64, vocabulary=300), rows)
    with open("/proc/self/statm", encoding="ascii") as statm:
        before = int(statm.read().split()[1]) * resource.getpagesize()
    train(what, config_of(kind), rows)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def measured(kind: str, what: str, rows: int) -> int:
    """The same in a process of its own, which gives freed memory back at once."""
    output = subprocess.run(
        [sys.executable, __file__, kind, what, str(rows)],
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "1048576", "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return int(output.split()[-1])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(measure(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    else:
        for name, case in CASES.items():
            plan, peak = planned(*case), measured(*case)
            print(f"{name}: {plan / 1e9:.3f} GB planned, {peak / 1e9:.3f} GB measured")
