"""Sizes of models from their config.json alone: weights, and operations for a token.

GPT-2's and Llama's relatives are counted by formulas, without torch. Others are built on torch's
meta device, where weights take no memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prudent.errors import InputError

UNTIED = {"llama", "mistral", "qwen2"}
"""Architectures whose LM head is a matrix of its own, where their config does not say."""
FAMILY = UNTIED | {"gemma"}
GATED = FAMILY | {"gemma2", "gemma3_text", "qwen3", "phi3"}
"""Architectures whose layers have a gate, and norms that keep two tensors."""
SLOW_GELU = {"gelu_new", "gelu_fast"}
"""Activations of several operations, each of which keeps a tensor for the backward pass."""


@dataclass(frozen=True)
class Model:
    """The sizes of a transformer."""

    layers: int
    width: int
    heads: int
    queries: int
    """Width of all heads' queries together."""
    keys: int
    """Width of all keys together, which is that of the values."""
    inner: int
    """Width inside a layer's MLP."""
    vocabulary: int
    embeddings: int
    """Weights of the tables in which tokens and positions are looked up."""
    matrices: int
    """Weights of the matrices that each token is multiplied with, without the LM head."""
    others: int
    """Biases and norms."""
    tied: bool
    """Whether the LM head is the table of tokens."""
    gated: bool
    slow_gelu: bool
    label: int
    """Weights of the head of a reward model."""

    @property
    def backbone(self) -> int:
        """Weights without any head."""
        return self.embeddings + self.matrices + self.others

    @property
    def policy(self) -> int:
        """Weights of the language model."""
        return self.backbone + (0 if self.tied else self.vocabulary * self.width)

    @property
    def reward(self) -> int:
        """Weights of the sequence classifier with one label."""
        return self.backbone + self.label


def scratch(width: int, layers: int, heads: int, vocabulary: int, context: int) -> Model:
    """The GPT-2 that the reference policy is from scratch."""
    return from_config(
        {
            **{"model_type": "gpt2", "n_embd": width, "n_layer": layers, "n_head": heads},
            **{"vocab_size": vocabulary, "n_positions": context},
            "activation_function": "gelu_pytorch_tanh",
        }
    )


def from_config(config: Mapping[str, Any]) -> Model:
    """The sizes of the model of a config.json."""
    kind = config["model_type"]
    if kind == "gpt2":
        return _gpt2(config)
    return _llama(kind, config) if kind in FAMILY else _on_meta(dict(config))


def _gpt2(config: Mapping[str, Any]) -> Model:
    width, layers = config.get("n_embd", 768), config.get("n_layer", 12)
    vocabulary = config.get("vocab_size", 50257)
    inner = config.get("n_inner") or 4 * width
    return Model(
        layers=layers,
        width=width,
        heads=config.get("n_head", 12),
        queries=width,
        keys=width,
        inner=inner,
        vocabulary=vocabulary,
        embeddings=(vocabulary + config.get("n_positions", 1024)) * width,
        matrices=layers * (4 * width * width + 2 * width * inner),
        others=layers * (9 * width + inner) + 2 * width,
        tied=config.get("tie_word_embeddings", True),
        gated=False,
        slow_gelu=config.get("activation_function", "gelu_new") in SLOW_GELU,
        label=width,
    )


def _llama(kind: str, config: Mapping[str, Any]) -> Model:
    """Layers with a gate, and keys that several queries may share."""
    width, layers, inner, heads, vocabulary = (
        config[key]
        for key in (
            *("hidden_size", "num_hidden_layers", "intermediate_size"),
            *("num_attention_heads", "vocab_size"),
        )
    )
    size = config.get("head_dim") or width // heads
    queries, keys = heads * size, (config.get("num_key_value_heads") or heads) * size
    biases = 0
    if kind == "qwen2" or config.get("attention_bias"):
        biases += queries + 2 * keys + (0 if kind == "qwen2" else width)
    if config.get("mlp_bias"):
        biases += 2 * inner + width
    return Model(
        layers=layers,
        width=width,
        heads=heads,
        queries=queries,
        keys=keys,
        inner=inner,
        vocabulary=vocabulary,
        embeddings=vocabulary * width,
        matrices=layers * (2 * width * (queries + keys) + 3 * width * inner),
        others=layers * (2 * width + biases) + width,
        tied=config.get("tie_word_embeddings", kind not in UNTIED),
        gated=True,
        slow_gelu=False,
        label=width,
    )


def _on_meta(config: dict[str, Any]) -> Model:
    """Any other architecture, built without memory for its weights."""
    import torch
    from torch import nn
    from transformers import AutoConfig, AutoModelForSequenceClassification
    from transformers.pytorch_utils import Conv1D

    kind = config.pop("model_type")
    full = AutoConfig.for_model(kind, **(config | {"num_labels": 1}))
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(full)
    backbone, weights = model.base_model, dict.fromkeys(("tables", "matrices"), 0)
    for module in backbone.modules():
        if isinstance(module, nn.Embedding):
            weights["tables"] += module.weight.numel()
        elif isinstance(module, nn.Linear | Conv1D):
            weights["matrices"] += module.weight.numel()
    total = sum(weight.numel() for weight in backbone.parameters())
    width, heads = full.hidden_size, full.num_attention_heads
    size = getattr(full, "head_dim", None) or width // heads
    shared = getattr(full, "num_key_value_heads", None) or heads
    inner = getattr(full, "intermediate_size", None) or getattr(full, "ffn_dim", 4 * width)
    activation = getattr(full, "hidden_activation", None) or getattr(full, "hidden_act", "gelu")
    return Model(
        layers=full.num_hidden_layers,
        width=width,
        heads=heads,
        queries=heads * size,
        keys=shared * size,
        inner=inner,
        vocabulary=full.vocab_size,
        embeddings=weights["tables"],
        matrices=weights["matrices"],
        others=total - sum(weights.values()),
        tied=getattr(full, "tie_word_embeddings", True),
        gated=kind in GATED,
        slow_gelu=activation in SLOW_GELU,
        label=sum(weight.numel() for weight in model.parameters()) - total,
    )


def read_model(checkpoint: str, revision: str | None = None) -> Model:
    """The sizes of a checkpoint's model, a folder's or a hub id's; no weights are read.

    ``InputError`` in a line where its config.json cannot be had, or is of no such model.
    """
    path = Path(checkpoint) / "config.json"
    if not path.parent.is_dir():
        path = _of_hub(checkpoint, revision)
    try:
        return from_config(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, ValueError, KeyError, AttributeError, TypeError) as error:
        what = f"no `{error.args[0]}`" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"{checkpoint}: its config.json is of no model that can be counted: "
            f"{what.splitlines()[0] if what else type(error).__name__}"
        ) from error


def _of_hub(checkpoint: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(checkpoint, "config.json", revision=revision))
    except Exception as error:  # of many classes: no net, no such id, no right to read it
        raise InputError(
            f"{checkpoint}: there is no such folder, and the hub did not give its config.json "
            f"({type(error).__name__}); expected a checkpoint whose config.json can be read"
        ) from error


def forward(model: Model, tokens: float, seen: float, logits: float = 0) -> float:
    """Operations of a forward pass over tokens that see so many each, with logits of some.

    Two for each weight of a matrix, and those of attention, in which a padded batch computes all
    pairs of tokens, also those that a mask leaves out.
    """
    attention = 4 * model.layers * model.queries * seen
    return tokens * (2 * model.matrices + attention) + 2 * logits * model.vocabulary * model.width


def generation(model: Model, prompt: int, response: int) -> float:
    """Operations of one response with a cache; nothing reads its last token."""
    steps = response - 1
    seen = steps * (prompt + (steps + 1) / 2)
    return forward(model, prompt, prompt, 1) + forward(
        model, steps, seen / steps if steps else 0, steps
    )
