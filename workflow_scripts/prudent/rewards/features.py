"""The inputs of a frozen reward model's final linear layer, computed in batches of like length."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prudent.batches import collate
from prudent.checkpoint_files import read_json
from prudent.checkpoints import FLOATS
from prudent.errors import InputError, quoted
from prudent.rewards.models import final_linear
from prudent.rewards.text import Prompt, checked_texts, encode, encode_pairs
from prudent.tables import atomic_path, file_digest

BATCH_TOKENS = 8192

TENSORS, TEXTS = ("chosen", "rejected", "probability"), ("id", "split")


def batches_by_length(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Row numbers, longest first, in batches of at most ``batch_tokens`` tokens after padding.

    Rows of like length share a batch, which saves padding. A row longer than the limit forms its
    own batch.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size


def extract(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    batch_tokens: int = BATCH_TOKENS,
    progress: str | None = None,
) -> torch.Tensor:
    """The features [n, d], float32 on the CPU, of n prompts with their responses.

    For a decoder they are the last token's final state, for an encoder the pooled state. The final
    linear layer maps them to the model's logits (checked on the first batch).
    ``progress`` names the work on a progress bar; None shows none.
    """
    prompts, responses = checked_texts(prompts, responses)
    ids = encode(tokenizer, prompts, responses)
    return extract_ids(model, ids, tokenizer.pad_token_id, responses, batch_tokens, progress)


@torch.inference_mode()
def extract_ids(
    model: PreTrainedModel,
    ids: Sequence[Sequence[int]],
    pad_token_id: int,
    responses: Sequence[str],
    batch_tokens: int = BATCH_TOKENS,
    progress: str | None = None,
    layer: tuple[str, nn.Linear] | None = None,
) -> torch.Tensor:
    """``extract`` for token ids, as ``encode`` returns them.

    The error for features that are not finite quotes ``responses``. ``layer`` is the final linear
    layer with its name; it is looked up if not given.
    """
    was_training = model.training
    model.eval()
    name, linear = layer or final_linear(model)
    captured: list[torch.Tensor] = []
    hook = linear.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0]))
    features = torch.empty(len(ids), linear.in_features)
    bar = tqdm(
        desc=progress, total=len(ids), unit=" texts", mininterval=2, disable=progress is None
    )
    checked = False
    try:
        for rows in batches_by_length([len(row) for row in ids], batch_tokens):
            inputs = collate([ids[row] for row in rows], pad_token_id, model.device)
            logits = model(**inputs).logits
            states = captured.pop()
            if states.dim() == 3:
                last = inputs["attention_mask"].sum(1) - 1
                states = states[torch.arange(len(rows), device=states.device), last]
            features[rows] = states.float().cpu()
            if not features[rows].isfinite().all():
                bad = next(row for row in rows if not features[row].isfinite().all())
                raise InputError(
                    f"{model.name_or_path}: the features of text {bad}, {quoted(responses[bad])}, "
                    "are not finite; expected finite ones"
                )
            if not checked:
                _check(linear(states), logits, f"{model.name_or_path}: the model's logits", name)
                checked = True
            bar.update(len(rows))
    finally:
        bar.close()
        hook.remove()
        model.train(was_training)
    return features


def _check(expected: torch.Tensor, logits: torch.Tensor, what: str, name: str) -> None:
    if not torch.allclose(expected.float(), logits.float(), rtol=1e-2, atol=1e-3):
        raise InputError(
            f"{what} are not its layer {quoted(name)} of the last token's state "
            f"(largest difference {(expected - logits).abs().max():.3g}); is a text's last token "
            "also the model's padding token? Expected a padding token of its own"
        )


@dataclass(frozen=True)
class PairFeatures:
    """Features of n pairs, with everything that training heads on them needs."""

    id: list[str]
    """The pairs' ids in the preferences."""
    split: list[str]
    """train or validation."""
    probability: torch.Tensor
    """[n] float64: of the stored label under the gold labeller; NaN where the label was given."""
    chosen: torch.Tensor
    """[n, d]"""
    rejected: torch.Tensor
    """[n, d]"""

    def of(self, split: str) -> torch.Tensor:
        """Mask [n] (bool) of the pairs of a split."""
        return torch.tensor([name == split for name in self.split], dtype=torch.bool)

    def differences(self, split: str) -> torch.Tensor:
        """Features of the chosen less those of the rejected responses of a split [n, d]."""
        mask = self.of(split)
        return self.chosen[mask] - self.rejected[mask]


def pair_features(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: pd.DataFrame,
    batch_tokens: int = BATCH_TOKENS,
    progress: str | None = None,
) -> PairFeatures:
    """The features of pairs of the schema "preferences"; ``progress`` as in ``extract``."""
    sides = {
        side: extract_ids(
            model,
            ids,
            tokenizer.pad_token_id,
            pairs[side].tolist(),
            batch_tokens,
            progress=progress and f"{progress} of {side} responses",
        )
        for side, ids in encode_pairs(tokenizer, pairs).items()
    }
    return PairFeatures(
        id=pairs["id"].tolist(),
        split=pairs["split"].tolist(),
        probability=torch.tensor(pairs["probability"].to_numpy(dtype=float)),
        **sides,
    )


def save_features(features: PairFeatures, path: str | Path) -> None:
    """Writes the features; ids and splits are in the file's metadata."""
    tensors = {name: getattr(features, name).contiguous() for name in TENSORS}
    texts = {name: json.dumps(getattr(features, name)) for name in TEXTS}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=texts)


def load_features(path: str | Path, width: int) -> PairFeatures:
    """Reads a file of ``save_features``; ``InputError`` unless complete, finite and this wide."""
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a readable safetensors file: {error}") from error
    again = "delete the file to have it computed again"
    texts = {name: _texts(metadata.get(name)) for name in TEXTS}
    for name, values in texts.items():
        if values is None:
            raise InputError(f"{path}: {name}: found no list of texts in its metadata; {again}")
    rows = len(texts["id"])
    shapes = {"probability": (rows,), "chosen": (rows, width), "rejected": (rows, width)}
    for name, shape in shapes.items():
        tensor = found.get(name)
        if tensor is None or tensor.shape != shape:
            what = "nothing" if tensor is None else f"{list(tensor.shape)}"
            raise InputError(
                f"{path}: {name}: found {what}, expected {list(shape)}, by the pairs' ids and the "
                f"base model's width; {again}"
            )
        if tensor.dtype not in FLOATS:
            raise InputError(f"{path}: {name}: found {tensor.dtype}, expected floats; {again}")
        unknown = tensor.isnan() if name == "probability" else torch.tensor(False)
        if not (tensor.isfinite() | unknown).all():
            raise InputError(f"{path}: {name}: found numbers that are not finite")
    if len(texts["split"]) != rows or len(set(texts["id"])) != rows:
        raise InputError(
            f"{path}: found {len(texts['split'])} splits and {len(set(texts['id']))} different ids "
            f"for {rows} pairs; {again}"
        )
    return PairFeatures(**texts, **{name: found[name] for name in TENSORS})


def _texts(value: str | None) -> list[str] | None:
    try:
        texts = json.loads(value or "")
    except ValueError:
        return None
    plain = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
    return texts if plain else None


def check_features(features: Path, base: Path) -> None:
    """``InputError`` unless the metadata beside features say that this base model made them."""
    path = features.with_suffix(".json")
    digests = read_json(path).get("inputs")
    if not isinstance(digests, dict) or digests.get("base") != file_digest(base):
        raise InputError(
            f"{path}: the features beside it are of another {base}; delete them to have them "
            "computed again"
        )
