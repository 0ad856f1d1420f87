"""Language models as policies."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.activations import NewGELUActivation

from prudent.checkpoints import check_tokenizer, device, load_model, load_tokenizer
from prudent.errors import InputError
from prudent.policies.sampling import check_cache
from prudent.policies.text import end_tokens

OTHER_TASKS = (
    *("SequenceClassification", "TokenClassification", "MaskedLM", "QuestionAnswering"),
    *("MultipleChoice", "NextSentencePrediction", "PreTraining"),
)


def load_policy(
    checkpoint: str | Path, revision: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A language model, on our device, and its tokenizer."""
    model, tokenizer = load_causal_lm(checkpoint, revision), load_tokenizer(checkpoint, revision)
    check_tokenizer(tokenizer, model, checkpoint)
    end_tokens(model, tokenizer)
    # Rows without a token, as in a padded vocabulary, could be drawn.
    size = max(tokenizer.get_vocab().values()) + 1
    if size < model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(size)
    return model, tokenizer


def load_causal_lm(checkpoint: str | Path, revision: str | None = None) -> PreTrainedModel:
    """A language model in float32 and evaluation mode, on our device.

    ``InputError`` for a model of another task, such as a reward model or a masked language model,
    whose weights transformers would accept.
    """
    model = load_model(AutoModelForCausalLM, checkpoint, revision).to(device()).eval()
    named = model.config.architectures or ()
    for name in named if isinstance(named, list | tuple) else [named]:
        if str(name).endswith(OTHER_TASKS):
            raise InputError(
                f"{checkpoint}: is a {name}, expected a causal language model (such as "
                f"{type(model).__name__})"
            )
    if not _is_causal(model):
        raise InputError(
            f"{checkpoint}: the model's next-token probabilities change with later tokens; "
            "expected a causal language model"
        )
    check_cache(model, str(checkpoint))
    return model


@torch.no_grad()
def _is_causal(model: PreTrainedModel) -> bool:
    """Whether a token leaves the logits before it unchanged."""
    last = model.get_input_embeddings().weight.shape[0] - 1
    ids = torch.tensor([[0, 0], [0, last]], device=model.device)
    first, second = model(input_ids=ids, use_cache=False).logits[:, 0]
    return torch.allclose(first, second, rtol=1e-3, atol=1e-4 * float(first.abs().max()) + 1e-6)


def use_fused_gelu(model: nn.Module) -> None:
    """Replaces GPT-2's activation, which takes eight operations, by torch's own kernel.

    The function is the same, GELU's tanh approximation, up to rounding.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
