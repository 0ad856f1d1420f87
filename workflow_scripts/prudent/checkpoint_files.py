"""What a checkpoint's folder says of it, read without loading any model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prudent.errors import InputError

# Models that count positions from behind the padding token's number.
OFFSET = (
    *("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "longformer", "mpnet", "xmod"),
    *("roberta-prelayernorm", "data2vec-text", "ibert", "luke", "lilt", "esm", "markuplm"),
)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file; ``InputError`` where it is not one object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a readable JSON file: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: found {type(value).__name__}, expected an object")
    return value


def positions(config: Mapping[str, Any]) -> int | None:
    """The longest text in tokens that a model reads; None where its configuration sets no limit."""
    limits = (config.get(name) for name in ("max_position_embeddings", "n_positions"))
    limit = next((value for value in limits if isinstance(value, int) and value > 0), None)
    if limit is not None and config.get("model_type") in OFFSET:
        limit -= (config.get("pad_token_id") or 0) + 1
    return limit


def has_template(folder: Path) -> bool:
    """Whether the folder's tokenizer comes with a chat template."""
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    path = folder / "tokenizer_config.json"
    return path.is_file() and bool(read_json(path).get("chat_template"))


def tokens_before(folder: Path) -> int:
    """How many tokens a folder's tokenizer writes before a text, such as BOS; 0 where it has none.

    Some add them when they are loaded, by ``add_bos_token``.
    """
    said = 0
    if (folder / "tokenizer_config.json").is_file():
        said = int(read_json(folder / "tokenizer_config.json").get("add_bos_token") is True)
    path = folder / "tokenizer.json"
    if not path.is_file():
        return said
    processor = read_json(path).get("post_processor")
    return max(said, _before(processor if isinstance(processor, dict) else {}))


def _before(processor: Mapping[str, Any]) -> int:
    """The special tokens in front of a single text, by a part of tokenizer.json."""
    if processor.get("type") == "Sequence":
        return sum(_before(part) for part in processor.get("processors", []))
    if processor.get("type") in ("BertProcessing", "RobertaProcessing"):
        return 1
    count = 0
    for piece in processor.get("single", []):
        if "SpecialToken" not in piece:
            break
        count += 1
    return count


def names_an_end(folder: Path) -> bool:
    """Whether a language model's folder names a token that ends a text (EOS)."""
    found = []
    for name, key in (
        ("config.json", "eos_token_id"),
        ("generation_config.json", "eos_token_id"),
        ("tokenizer_config.json", "eos_token"),
        ("special_tokens_map.json", "eos_token"),
    ):
        if (folder / name).is_file():
            found.append(read_json(folder / name).get(key))
    return any(value is not None and value != [] for value in found)
