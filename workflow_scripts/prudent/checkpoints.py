"""Checkpoints: models and tokenizers from safetensors alone, whole, finite, and without their code.

Whatever is wrong with a checkpoint is one ``InputError`` that names it. A model is only loaded if
every weight of it stands in the checkpoint.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    cached_file,
    find_adapter_config_file,
)

from prudent import checkpoint_files
from prudent.errors import InputError, cut, quoted
from prudent.tables import atomic_path, write_json

MAX_LENGTH = 1 << 20
MAX_LAYERS = 1000

HUB_ID = re.compile(r"(?=.{1,96}$)\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
# What a checkpoint may hold that a model does not take: another task's head (a language model's
# where a reward model is trained, TRL's value head), and buffers that older versions stored. A
# reward model's own head is none of them: without it a policy would be no policy.
HARMLESS = re.compile(
    r"^(lm_head|embed_out|cls|predictions|lm_loss|vocab_(transform|layer_norm|projector)|v_head)\."
    r"|(^|\.)pooler\."
    r"|(^|\.)(inv_freq|position_ids|attn\.bias|attention\.bias|masked_bias)$"
)

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# The same types as safetensors names them.
STORED_FLOATS = ("F64", "F32", "F16", "BF16")


def device() -> torch.device:
    """The device that models run on: the first GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def attention(tokens: int = 0) -> str:
    """The attention that is fastest for texts of that many tokens.

    On a CPU that is the eager form for the few tokens of a policy's prompt and response, and SDPA
    for longer texts.
    """
    return "sdpa" if torch.cuda.is_available() or tokens > 64 else "eager"


def load_tokenizer(
    checkpoint: str | Path, revision: str | None = None, **options: Any
) -> PreTrainedTokenizerBase:
    """A checkpoint's tokenizer; one without a padding token pads with EOS (masks go by length).

    ``options`` replace the checkpoint's own and are stored with it from then on.
    """
    look_for(checkpoint)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            checkpoint, revision=revision, trust_remote_code=False, **options
        )
        count = len(tokenizer)
    # A broken file raises errors of many classes; `tokenizers` raises plain Exceptions.
    except Exception as error:
        raise InputError(f"{checkpoint}: no tokenizer can be loaded: {why(error)}") from error
    if not count:
        raise InputError(f"{checkpoint}: the tokenizer has no tokens; is a file of it missing?")
    length = tokenizer.model_max_length
    number = isinstance(length, int | float) and not isinstance(length, bool)
    if not number or length < 1 or length % 1 != 0:
        raise InputError(
            f"{checkpoint}: the tokenizer's model_max_length is {quoted(length)}; expected a whole "
            "number >= 1"
        )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise InputError(f"{checkpoint}: the tokenizer has neither a padding nor an EOS token")
        tokenizer.pad_token = tokenizer.eos_token
    # "Unlimited" in a tokenizer without a limit is 1e30.
    tokenizer.model_max_length = int(min(length, MAX_LENGTH))
    return tokenizer


def load_model(
    kind: Any,
    checkpoint: str | Path,
    revision: str | None = None,
    fresh: re.Pattern[str] | None = None,
    tokens: int = 0,
    **options: Any,
) -> PreTrainedModel:
    """A model of an ``AutoModel`` class in float32, for texts of so many tokens.

    ``fresh`` matches the names of the weights that may be newly initialised, for training; every
    other one has to stand in the checkpoint.
    """
    look_for(checkpoint)
    if os.path.isdir(checkpoint) and not (Path(checkpoint) / "config.json").is_file():
        raise InputError(f"{checkpoint}: has no config.json; expected the folder of a checkpoint")
    try:
        adapter = find_adapter_config_file(checkpoint, revision=revision)
        config = AutoConfig.from_pretrained(checkpoint, revision=revision, trust_remote_code=False)
        layers = getattr(config, "num_hidden_layers", None) or 0
        if layers > MAX_LAYERS:  # it would take for ever to make them
            raise ValueError(f"config.json: found {layers} layers, expected at most {MAX_LAYERS}")
        _check_stored(checkpoint, revision)
        model, report = kind.from_pretrained(
            checkpoint,
            revision=revision,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=attention(tokens),
            output_loading_info=True,
            # Otherwise it refuses them with a hint at a report that it logs; we say which they are.
            ignore_mismatched_sizes=True,
            **options,
        )
    except Exception as error:  # as above
        raise InputError(f"{checkpoint}: cannot be loaded as a model: {why(error)}") from error
    if adapter is not None:
        raise InputError(
            f"{checkpoint}: holds an adapter (adapter_config.json), whose weights would be left "
            "out; expected it merged into the model's weights"
        )
    _check_shapes(report, checkpoint, fresh)
    _check_weights(model, report, checkpoint, fresh)
    require_finite(model, str(checkpoint))
    _try_out(model, checkpoint)
    return model


def _check_shapes(
    report: dict[str, Any], checkpoint: str | Path, fresh: re.Pattern[str] | None
) -> None:
    """``InputError`` where weights have other shapes than config.json describes."""
    for name, found, expected in sorted(report["mismatched_keys"]):
        if fresh is None or not fresh.search(name):
            raise InputError(
                f"{checkpoint}: the weights {name} have the shape {list(found)}; expected "
                f"{list(expected)}, as config.json says"
            )


def _check_stored(checkpoint: str | Path, revision: str | None) -> None:
    """``ValueError`` where a weight's file is no safetensors, or its numbers are not real.

    transformers would load pickles that an index names, and convert integers, truth values, complex
    numbers and scaled ones.
    """
    for key, weight in _stored(checkpoint, revision):
        found = weight.get_dtype()
        if found not in STORED_FLOATS and not HARMLESS.search(key):
            raise ValueError(f"{key}: found numbers of type {found}, expected floats")


def _stored(checkpoint: str | Path, revision: str | None) -> Iterator[tuple[str, Any]]:
    """The names of the weights in a checkpoint's files, with what tells their types and shapes."""

    def find(name: str) -> str | None:
        return cached_file(
            checkpoint, name, revision=revision, _raise_exceptions_for_missing_entries=False
        )

    names, index = [SAFE_WEIGHTS_NAME], find(SAFE_WEIGHTS_INDEX_NAME)
    if index is not None and find(SAFE_WEIGHTS_NAME) is None:
        names = list(checkpoint_files.read_json(Path(index)).get("weight_map", {}).values())
    for name in dict.fromkeys(names):
        if not str(name).endswith(".safetensors"):
            raise ValueError(
                f"{SAFE_WEIGHTS_INDEX_NAME}: found {quoted(name)}, expected safetensors"
            )
        path = find(name)
        if path is None:
            continue  # transformers says so
        with safe_open(path, framework="pt") as file:
            for key in file.keys():
                yield key, file.get_slice(key)


def stored_rows(
    checkpoint: str | Path, names: Sequence[str], revision: str | None = None
) -> int | None:
    """How many rows the first of the named weights has that a checkpoint holds; None for none."""
    try:
        shapes = {key: weight.get_shape() for key, weight in _stored(checkpoint, revision)}
    except Exception:  # of many classes; loading says which
        return None
    return next((shapes[name][0] for name in names if shapes.get(name)), None)


def _check_weights(
    model: PreTrainedModel,
    report: dict[str, Any],
    checkpoint: str | Path,
    fresh: re.Pattern[str] | None,
) -> None:
    """``InputError`` unless the checkpoint's weights are the model's; ``report`` is of loading."""
    # A linear layer's mask buffers and the like may be missing; a parameter may not.
    parameters = {name for name, _ in model.named_parameters()}
    mismatched = {entry[0] for entry in report["mismatched_keys"]}  # of another shape
    missing = sorted((set(report["missing_keys"]) | mismatched) & parameters)
    if fresh is not None:
        missing = [name for name in missing if not fresh.search(name)]
    if missing:
        raise InputError(
            f"{checkpoint}: the weights {', '.join(missing[:5])} are not in the checkpoint in the "
            "model's shape and would be freshly initialised; expected a checkpoint with every "
            "weight trained"
        )
    # Such as a reward model's head, or those of the layers that config.json does not count.
    left = sorted(key for key in report["unexpected_keys"] if not HARMLESS.search(key))
    if left:
        raise InputError(
            f"{checkpoint}: the weights {', '.join(left[:5])} have no place in the "
            f"{type(model).__name__} that config.json describes; expected all weights to be used"
        )


@torch.no_grad()
def _try_out(model: PreTrainedModel, checkpoint: str | Path) -> None:
    """``InputError`` where the settings in config.json are of no use for reading two tokens."""
    try:
        logits = model(input_ids=torch.tensor([[0, 1]], device=model.device)).logits
    except Exception as error:  # of many classes, from deep in the model
        raise InputError(f"{checkpoint}: the model cannot be used: {why(error)}") from error
    if not logits.isfinite().all():
        raise InputError(
            f"{checkpoint}: the model's outputs are not finite, though its weights are; expected "
            "settings in config.json that it was trained with"
        )


def save_checkpoint(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    path: str | Path,
    metadata: dict[str, Any] | None = None,
    more: Callable[[Path], None] | None = None,
) -> None:
    """Writes a model with its tokenizer, all at once; ``InputError`` if a weight is not finite.

    ``more`` writes more files into the folder that it is given.
    """
    require_finite(model, str(path))
    with atomic_path(path) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        if more is not None:
            more(temporary)
        if metadata is not None:
            write_json(metadata, temporary / "metadata.json")


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Writes tensors as a safetensors file."""
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


def load_tensors(
    path: Path, shapes: Mapping[str, Sequence[int]] | None = None
) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file.

    ``InputError`` where it cannot be read, where one that ``shapes`` names is missing or of another
    shape, or where numbers are not finite or no floats.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: not a readable safetensors file: {error}") from error
    for name, shape in (shapes or {}).items():
        found = list(tensors[name].shape) if name in tensors else "nothing"
        if found != list(shape):
            raise InputError(f"{path}: {name}: found {found}, expected {list(shape)}")
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS:
            raise InputError(f"{path}: {name}: found {tensor.dtype}, expected floats")
        if not tensor.isfinite().all():
            raise InputError(f"{path}: {name}: found numbers that are not finite")
    return tensors


@torch.no_grad()
def require_finite(model: nn.Module, name: str) -> None:
    """``InputError`` where a weight is infinite or NaN, as after a training that diverged."""
    for key, tensor in model.named_parameters():
        if not tensor.isfinite().all():
            bad = int((~tensor.isfinite()).sum())
            raise InputError(
                f"{name}: the weights {key} hold {bad} number(s) of {tensor.numel()} that are not "
                "finite, as after a training that diverged; expected finite weights"
            )


def check_tokenizer(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, checkpoint: str | Path
) -> None:
    """``InputError`` where the tokenizer has tokens that the model knows no embedding of."""
    rows = model.get_input_embeddings().weight.shape[0]
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise InputError(
            f"{checkpoint}: the tokenizer's tokens go up to {largest}, and the model has "
            f"embeddings of {rows}; expected the model's own tokenizer"
        )


def check_length(model: PreTrainedModel, tokens: int, what: str) -> None:
    """``InputError`` where texts of so many tokens are longer than the model can read."""
    limit = checkpoint_files.positions(model.config.to_dict())
    if limit is not None and tokens > limit:
        raise InputError(
            f"{model.name_or_path or type(model).__name__}: {what} {tokens} tokens; the model "
            f"reads at most {limit}"
        )


def look_for(checkpoint: str | Path) -> None:
    """``InputError`` for what is neither a hub's id nor a folder that is there, of a checkpoint."""
    if not isinstance(checkpoint, str | Path):
        raise InputError(
            f"checkpoint: found {quoted(checkpoint)}, expected a folder or a hub id (name or "
            "owner/name)"
        )
    if os.path.isdir(checkpoint):
        file = Path(checkpoint) / "config.json"
        if file.is_file():
            try:
                checkpoint_files.read_json(file)
            except InputError as error:
                says = str(error).removeprefix(f"{file}: ")
                raise InputError(
                    f"{checkpoint}: cannot be loaded as a model: config.json: {says}"
                ) from None
        return
    if os.path.exists(checkpoint):
        raise InputError(f"{cut(str(checkpoint))}: found a file; expected a checkpoint's folder")
    if isinstance(checkpoint, Path) or not HUB_ID.fullmatch(checkpoint):
        raise InputError(
            f"{cut(str(checkpoint)) or 'checkpoint'}: no such folder; expected that of a "
            "checkpoint, or a hub id (name or owner/name)"
        )


def why(error: Exception) -> str:
    """The first line of an error, with its class where it says little by itself."""
    text = str(error).strip()
    if "trust_remote_code" in text or "custom code" in text:
        return (
            "it comes with code of its own, which is never run here; expected an architecture "
            "that transformers knows"
        )
    lines = [line.strip() for line in text.splitlines()]
    # Some end their first line with a colon, and say what is wrong in the next.
    first = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    plain = isinstance(error, OSError | ValueError)
    return first if plain and first else f"{type(error).__name__}: {first}".removesuffix(": ")
