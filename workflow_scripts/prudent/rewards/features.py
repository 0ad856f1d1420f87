"""What enters a frozen reward model's final linear layer, computed in batches of like length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prudent.checkpoint_files import read_json
from prudent.errors import InputError
from prudent.rewards.models import final_linear
from prudent.rewards.text import Prompt, encode
from prudent.tables import atomic_path, file_digest

BATCH_TOKENS = 8192


def batches_by_length(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Row numbers, longest first, in batches of at most ``batch_tokens`` tokens after padding.

    Rows of like length share a batch, so little is spent on padding; a row longer than the limit
    is a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size


@torch.inference_mode()
def extract(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    batch_tokens: int = BATCH_TOKENS,
    progress: str | None = None,
) -> torch.Tensor:
    """The features [n, d], float32 on the CPU, of n prompts with their responses.

    In a decoder it is the last token's final state, in an encoder the pooled state: in both, the
    model's logits are its final linear layer of these features (checked on the first batch).
    ``progress`` names the work on a progress bar; None shows none.
    """
    was_training = model.training
    model.eval()
    name, linear = final_linear(model)
    captured: list[torch.Tensor] = []
    hook = linear.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0]))
    ids = encode(tokenizer, prompts, responses)
    features = torch.empty(len(ids), linear.in_features)
    bar = tqdm(
        desc=progress, total=len(ids), unit=" texts", mininterval=2, disable=progress is None
    )
    checked = False
    try:
        for rows in batches_by_length([len(row) for row in ids], batch_tokens):
            inputs = collate([ids[row] for row in rows], tokenizer.pad_token_id, model.device)
            logits = model(**inputs).logits
            states = captured.pop()
            if states.dim() == 3:
                last = inputs["attention_mask"].sum(1) - 1
                states = states[torch.arange(len(rows), device=states.device), last]
            features[rows] = states.float().cpu()
            if not features[rows].isfinite().all():
                bad = next(row for row in rows if not features[row].isfinite().all())
                raise InputError(
                    f"{model.name_or_path}: the features of text {bad}, {responses[bad]!r}, are "
                    "not finite; expected finite ones"
                )
            if not checked:
                _check(linear(states), logits, name)
                checked = True
            bar.update(len(rows))
    finally:
        bar.close()
        hook.remove()
        model.train(was_training)
    return features


def collate(
    ids: Sequence[Sequence[int]], pad_token_id: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Right-padded ``input_ids`` and ``attention_mask`` [n, longest]."""
    longest = max(len(row) for row in ids)
    input_ids = torch.full((len(ids), longest), pad_token_id)
    mask = torch.zeros(len(ids), longest, dtype=torch.long)
    for number, row in enumerate(ids):
        input_ids[number, : len(row)] = torch.tensor(row)
        mask[number, : len(row)] = 1
    return {"input_ids": input_ids.to(device), "attention_mask": mask.to(device)}


def _check(expected: torch.Tensor, logits: torch.Tensor, name: str) -> None:
    if not torch.allclose(expected.float(), logits.float(), rtol=1e-2, atol=1e-3):
        raise InputError(
            f"the model's logits are not its layer {name!r} of the last token's state (largest "
            f"difference {(expected - logits).abs().max():.3g}); is a text's last token also the "
            "model's padding token? Expected a padding token of its own"
        )


def save_features(features: dict[str, torch.Tensor], path: str | Path) -> None:
    """Writes the features of both sides, {"chosen": [n, d], "rejected": [n, d]}."""
    with atomic_path(path) as temporary:
        save_file(features, temporary)


def load_features(path: str | Path, rows: int, width: int) -> dict[str, torch.Tensor]:
    """What ``save_features`` wrote; ``InputError`` unless it is finite and of this shape."""
    try:
        features = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a readable safetensors file: {error}") from error
    for side in ("chosen", "rejected"):
        found = features.get(side)
        shape = "nothing" if found is None else f"{list(found.shape)}"
        if found is None or found.shape != (rows, width):
            raise InputError(
                f"{path}: {side}: found {shape}, expected [{rows}, {width}], a row for each pair "
                "and the base model's width; delete the file to have it computed again"
            )
        if not found.isfinite().all():
            raise InputError(f"{path}: {side}: found numbers that are not finite")
    return features


def check_sidecar(sidecar: Path, **inputs: Path) -> None:
    """``InputError`` unless the features that a sidecar stands beside are of these inputs."""
    digests = read_json(sidecar).get("inputs")
    for name, path in inputs.items():
        if not isinstance(digests, dict) or digests.get(name) != file_digest(path):
            raise InputError(
                f"{sidecar}: the features beside it are of another {path}; delete them to have "
                "them computed again"
            )
