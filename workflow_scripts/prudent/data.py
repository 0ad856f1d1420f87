"""Data: sources of any form in, one schema out, with bad rows refused or counted in a data card.

A source is a dictionary with exactly one of ``world`` (a table of the embedded world, with the
number of ``rows``), ``path`` (a parquet, jsonl, json or csv file), ``dataset`` (a hub id, or a
folder that `datasets` wrote or can read) or, for preferences, ``sampled`` (that many pairs of
responses of the reference policy). Common keys: ``columns`` (our name: theirs), ``rows`` (read only
so many, drawn at random), ``name``. Paths are used as they are.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from prudent import tables
from prudent.errors import InputError
from prudent.seeding import derive_seed

Message = dict[str, str]
Card = dict[str, Any]

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
CLEANING = "runs of HTML line breaks and the white space around them became one space"

_LINE_BREAKS = re.compile(r"\s*(?:<br\s*/?>\s*)+", re.IGNORECASE)
_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
# Whole reviews need not be tokenised for their first few tokens: so many characters do.
_CHARACTERS_PER_TOKEN = 32

log = logging.getLogger(__name__)


# ---------------------------------------------------------------------------- reading a source


@dataclasses.dataclass
class Source:
    """What was read of one source: columns under our names, and each row's number in its file."""

    name: str
    origin: str
    available: int
    numbers: list[int]
    columns: dict[str, list[Any]]

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Pairs of a row's number, from 1, and its values."""
        for index, number in enumerate(self.numbers):
            yield number, {name: values[index] for name, values in self.columns.items()}


def read_source(
    spec: Mapping[str, Any],
    required: Sequence[str],
    optional: Sequence[str],
    seed: int,
) -> Source:
    """Reads the named columns of one source, all rows or a random ``rows`` of them.

    Rows keep their order. ``optional`` columns are read where they exist. ``seed`` is that of the
    stream that draws the subset, or the embedded world's rows. ``InputError`` for a file, dataset
    or column that is not there.
    """
    kinds = [kind for kind in ("world", "path", "dataset") if kind in spec]
    if len(kinds) != 1:
        raise InputError(
            f"source {dict(spec)}: found {' and '.join(kinds) or 'no kind'}, expected exactly one "
            "of world, path, dataset"
        )
    mapping = dict(spec.get("columns") or {})
    allowed = [*required, *optional]
    unknown = [ours for ours in mapping if ours not in allowed]
    if unknown:
        raise InputError(
            f"source {dict(spec)}: columns maps our name to theirs: found {unknown[0]!r}, "
            f"expected one of {', '.join(allowed)}"
        )
    theirs = {ours: mapping.get(ours, ours) for ours in allowed}
    wanted = list(theirs.values())
    if kinds == ["world"]:
        raw = _read_world(spec, seed)
    else:
        raw = (_read_path if kinds == ["path"] else _read_dataset)(
            spec, wanted, lambda count: _subset(count, spec.get("rows"), seed)
        )
    missing = [
        their
        for our, their in theirs.items()
        if their not in raw.found and (our in required or our in mapping)
    ]
    if missing:
        raise InputError(
            f"{raw.origin}: the column(s) {', '.join(missing)} are missing; found the columns "
            f"{', '.join(raw.found)} (`columns: {{{next(iter(required))}: THEIRS}}` maps ours to "
            "another name)"
        )
    columns = {our: raw.columns[their] for our, their in theirs.items() if their in raw.columns}
    name = spec.get("name") or raw.name
    return Source(name, raw.origin, raw.available, raw.numbers, columns)


@dataclasses.dataclass
class _Raw:
    """A source before its columns are named as ours; ``found`` are all columns that it has."""

    name: str
    origin: str
    found: list[str]
    available: int
    numbers: list[int]
    columns: dict[str, list[Any]]


_Choose = Callable[[int], list[int]]


def _subset(count: int, limit: int | None, seed: int) -> list[int]:
    """Positions of the rows to read. Random ones: files are often sorted by label or origin."""
    if limit is None or limit >= count:
        return list(range(count))
    return sorted(np.random.default_rng(seed).choice(count, limit, replace=False).tolist())


def _read_world(spec: Mapping[str, Any], seed: int) -> _Raw:
    from prudent import world

    writers = {"reviews": world.reviews, "benchmark": world.benchmark}
    if spec["world"] not in writers:
        raise InputError(
            f"source {dict(spec)}: found world {spec['world']!r}, expected one of "
            f"{', '.join(writers)}"
        )
    made = writers[spec["world"]](spec["rows"], np.random.default_rng(seed))
    columns = made.to_dict("list") if isinstance(made, pd.DataFrame) else {"text": list(made)}
    name = f"world {spec['world']}"
    count = len(made)
    return _Raw(name, name, list(columns), count, list(range(1, count + 1)), columns)


def _read_path(spec: Mapping[str, Any], wanted: list[str], choose: _Choose) -> _Raw:
    path = Path(spec["path"])
    readers = {
        ".parquet": _parquet,
        ".jsonl": _jsonl,
        ".json": _json,
        ".csv": _csv,
    }
    if path.suffix not in readers:
        raise InputError(
            f"{path}: found the ending {path.suffix!r}, expected one of {', '.join(readers)}"
        )
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    try:
        found, available, numbers, columns = readers[path.suffix](path, wanted, choose)
    except (OSError, UnicodeDecodeError, pa.ArrowException, pd.errors.ParserError) as error:
        raise InputError(f"{path}: not a readable {path.suffix[1:]} file: {error}") from error
    return _Raw(path.stem, str(path), found, available, numbers, columns)


_Columns = tuple[list[str], int, list[int], dict[str, list[Any]]]


def _parquet(path: Path, wanted: list[str], choose: _Choose) -> _Columns:
    found = pq.read_schema(path).names
    table = pq.read_table(path, columns=[name for name in found if name in wanted])
    # A table without columns has lost its number of rows.
    count = pq.read_metadata(path).num_rows
    chosen = choose(count)
    columns = table.take(chosen).to_pydict() if table.num_columns else {}
    return found, count, [index + 1 for index in chosen], columns


def _csv(path: Path, wanted: list[str], choose: _Choose) -> _Columns:
    try:
        # Cells stay as written: "NA" and "None" are texts, and an empty cell is an empty text.
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except pd.errors.EmptyDataError as error:
        raise InputError(f"{path}: the file is empty, expected a line of column names") from error
    chosen = choose(len(frame))
    columns = {name: frame[name].iloc[chosen].tolist() for name in frame if name in wanted}
    return list(frame.columns), len(frame), [index + 1 for index in chosen], columns


def _json(path: Path, wanted: list[str], choose: _Choose) -> _Columns:
    text = path.read_text(encoding="utf-8")
    if not text.lstrip().startswith("["):
        return _jsonl(path, wanted, choose)  # `datasets` writes lines into .json files
    try:
        records = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from error
    return _records(path, list(enumerate(records, 1)), wanted, choose)


def _jsonl(path: Path, wanted: list[str], choose: _Choose) -> _Columns:
    records = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                records.append((number, json.loads(line)))
            except json.JSONDecodeError as error:
                raise InputError(f"{path}: row {number}: not valid JSON: {error}") from error
    return _records(path, records, wanted, choose)


def _records(
    path: Path, records: list[tuple[int, Any]], wanted: list[str], choose: _Choose
) -> _Columns:
    found: dict[str, None] = {}
    for number, record in records:
        if not isinstance(record, dict):
            raise InputError(
                f"{path}: row {number}: found {_shown(record)}, expected an object of fields"
            )
        found.update(dict.fromkeys(record))
    chosen = [records[index] for index in choose(len(records))]
    columns = {name: [record.get(name) for _, record in chosen] for name in found if name in wanted}
    return list(found), len(records), [number for number, _ in chosen], columns


def _read_dataset(spec: Mapping[str, Any], wanted: list[str], choose: _Choose) -> _Raw:
    details = {
        key: spec[key] for key in ("config", "revision", "split") if spec.get(key) is not None
    }
    origin = ", ".join(
        [f"dataset {spec['dataset']}", *(f"{key} {value}" for key, value in details.items())]
    )
    try:
        loaded = _load_dataset(spec)
    # `datasets` and the hub's client raise errors of many classes, all about this one source.
    except Exception as error:
        raise InputError(
            f"{origin}: could not be loaded: {type(error).__name__}: {error}"
        ) from error
    if isinstance(loaded, dict):
        split = spec.get("split") or (next(iter(loaded)) if len(loaded) == 1 else None)
        if split not in loaded:
            raise InputError(
                f"{origin}: found the splits {', '.join(loaded)}, expected `split:` to name one"
            )
        loaded = loaded[split]
    found = loaded.column_names
    chosen = choose(len(loaded))
    columns: dict[str, list[Any]] = {}
    part = loaded.select_columns([name for name in found if name in wanted])
    if part.column_names:
        part = part if len(chosen) == len(part) else part.select(chosen)
        columns = part.with_format("arrow")[:].to_pydict()
    name = str(spec["dataset"]).rstrip("/")
    name = Path(name).name if Path(name).is_dir() else name
    return _Raw(name, origin, found, len(loaded), [index + 1 for index in chosen], columns)


def _load_dataset(spec: Mapping[str, Any]) -> Any:
    """A Dataset, or a dictionary of them by split; code from the hub is never run."""
    import datasets

    identity = str(spec["dataset"])
    folder = Path(identity)
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        return datasets.load_from_disk(identity)
    return datasets.load_dataset(
        identity, name=spec.get("config"), revision=spec.get("revision"), split=spec.get("split")
    )


# ---------------------------------------------------------------------------- rows in one form


class BadRow(InputError):
    """One row that cannot be used: the reason counted in the card, and what to tell the user."""

    def __init__(self, reason: str, column: str, found: str, expected: str) -> None:
        super().__init__(f"column {column!r}: found {found}, expected {expected}")
        self.reason = reason


def clean(text: str) -> str:
    """A text without HTML line breaks (58% of the IMDB reviews hold ``<br />``), stripped."""
    return _LINE_BREAKS.sub(" ", text).strip()


def to_messages(value: Any, column: str = "prompt") -> list[Message]:
    r"""A prompt as messages ``{"role": "system"|"user"|"assistant", "content": text}``.

    Reads a list of messages (keys role/content or from/value; human is user, gpt is assistant), an
    HH-RLHF dialogue (``\n\nHuman: ... \n\nAssistant:``, whose turns are stripped), or a bare text,
    which is one user message. Consecutive messages of one role become one, since chat templates
    ask for turns. An open, empty assistant turn at the end is dropped. ``BadRow`` where the prompt
    is missing, empty, not text, or does not end with the user's turn.
    """
    messages = _turns(value, column)
    if messages and messages[-1]["role"] == "assistant" and not messages[-1]["content"].strip():
        messages.pop()
    if not messages:
        raise BadRow("empty_prompt", column, "no message", "a prompt")
    if messages[-1]["role"] != "user":
        raise BadRow(
            "not_users_turn",
            column,
            f"a dialogue that ends with the {messages[-1]['role']}'s turn",
            "one that ends with the user's",
        )
    if not messages[-1]["content"].strip():
        raise BadRow("empty_prompt", column, "an empty prompt", "a text")
    return messages


def to_pair(row: Mapping[str, Any]) -> tuple[list[Message], str, str]:
    """The prompt's messages and the two responses of a preference row.

    With a ``prompt``, ``chosen`` and ``rejected`` are texts, or messages: the assistant's alone or
    the whole dialogue. Without one they are whole dialogues, as messages or in HH-RLHF's form,
    that share all but the last turn. ``BadRow`` where the row is none of these, a response is
    empty, or both are the same.
    """
    if "prompt" in row:
        prompt = to_messages(row["prompt"])
        responses = [_response(row[side], prompt, side) for side in ("chosen", "rejected")]
        if _is_dialogue(row["prompt"]):
            responses = [response.strip() for response in responses]
    else:
        whole = {side: _whole(row[side], side) for side in ("chosen", "rejected")}
        if whole["chosen"][:-1] != whole["rejected"][:-1]:
            raise BadRow(
                "different_prompts",
                "rejected",
                "a dialogue whose earlier turns are not those of the chosen one",
                "two dialogues that differ in the last turn alone",
            )
        prompt = to_messages(whole["chosen"][:-1], "chosen")
        responses = [turns[-1]["content"] for turns in whole.values()]
    for side, response in zip(("chosen", "rejected"), responses, strict=True):
        if not response.strip():
            raise BadRow("empty_response", side, f"the empty text {response!r}", "a response")
    if responses[0].strip() == responses[1].strip():
        raise BadRow(
            "equal_responses",
            "rejected",
            f"the chosen response again, {_shown(responses[1])}",
            "another one",
        )
    return prompt, responses[0], responses[1]


def _turns(value: Any, column: str) -> list[Message]:
    if isinstance(value, str):
        if not _is_dialogue(value):
            return [{"role": "user", "content": value}]
        parts = _TURN.split(value)
        roles, contents = parts[1::2], [text.strip() for text in parts[2::2]]
        return _merge(zip((r.lower() for r in roles), contents, strict=True), column)
    if isinstance(value, list | tuple | np.ndarray):
        return _merge((_fields(message, column) for message in value), column)
    raise _not_text(value, column, "a text or a list of messages")


def _is_dialogue(value: Any) -> bool:
    """Whether a text is written in HH-RLHF's turns; some copies lack the first line breaks."""
    if not isinstance(value, str):
        return False
    return value.startswith("\n\nHuman:") or (
        value.lstrip().startswith("Human:") and "\n\nAssistant:" in value
    )


def _fields(message: Any, column: str) -> tuple[Any, Any]:
    if isinstance(message, dict):
        for role, content in (("role", "content"), ("from", "value")):
            if role in message and content in message:
                return message[role], message[content]
    raise BadRow(
        "not_messages", column, _shown(message), "a message with role and content, or from, value"
    )


def _merge(turns: Iterable[tuple[Any, Any]], column: str) -> list[Message]:
    messages: list[Message] = []
    for role, content in turns:
        if role == "assistant" and content is None:
            content = ""  # an open turn
        if not isinstance(content, str):
            raise _not_text(content, column, "messages whose contents are texts")
        if not isinstance(role, str) or role not in ROLES:
            raise BadRow("unknown_role", column, f"the role {role!r}", f"one of {', '.join(ROLES)}")
        if messages and messages[-1]["role"] == ROLES[role]:
            messages[-1]["content"] += "\n\n" + content
        else:
            messages.append({"role": ROLES[role], "content": content})
    return messages


def _whole(value: Any, column: str) -> list[Message]:
    """A whole dialogue: it ends with the assistant's turn."""
    turns = _turns(value, column)
    if len(turns) < 2 or turns[-1]["role"] != "assistant":
        raise BadRow(
            "not_a_dialogue",
            column,
            _shown(value),
            "a dialogue that ends with the assistant's turn, since there is no column prompt",
        )
    return turns


def _response(value: Any, prompt: list[Message], column: str) -> str:
    if isinstance(value, str) and not _is_dialogue(value):
        return value
    turns = _turns(value, column)
    if turns and turns[-1]["role"] == "assistant" and turns[:-1] in ([], prompt):
        return turns[-1]["content"]
    if isinstance(value, str):
        return value  # a response that happens to hold such turns
    raise BadRow(
        "different_prompts",
        column,
        _shown(value),
        "the assistant's message, alone or after the messages of the prompt",
    )


def to_text(value: Any, column: str = "text") -> str:
    """A cleaned text; ``BadRow`` where it is missing, not text, or empty."""
    if not isinstance(value, str):
        raise _not_text(value, column, "a text")
    text = clean(value)
    if not text:
        raise BadRow("empty_text", column, f"the empty text {value!r}", "a text")
    return text


def _not_text(value: Any, column: str, expected: str) -> BadRow:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return BadRow("missing", column, "no value", expected)
    return BadRow("not_text", column, _shown(value), expected)


def _shown(value: Any) -> str:
    text = repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return text if isinstance(value, str | None) else f"{text} ({type(value).__name__})"


def _parse(
    source: Source, parse: Callable[[Mapping[str, Any]], Any], bad_rows: str
) -> tuple[list[Any], Counter[str]]:
    """Every row in our form; bad ones are refused in one message, or dropped and counted."""
    if bad_rows not in ("refuse", "drop"):
        raise InputError(f"bad_rows: found {bad_rows!r}, expected refuse or drop")
    parsed, dropped, first = [], Counter[str](), ""
    for number, row in source.rows():
        try:
            parsed.append(parse(row))
        except BadRow as bad:
            first = first or f"{source.origin}: row {number}, {bad}"
            dropped[bad.reason] += 1
    if first and bad_rows == "refuse":
        raise InputError(
            f"{first} ({dropped.total()} bad row(s) in all; `bad_rows: drop` drops them and counts "
            "them in the data card)"
        )
    return parsed, dropped


# ---------------------------------------------------------------------------- the four tables


def split_of(key: str, seed: int, stage: str, validation: float, judge: float = 0.0) -> str:
    """The split of a text or prompt: by its own hash, so other rows and their order do not matter.

    ``judge`` is the share of all keys that goes to the judge, ``validation`` the share of the rest;
    the two are drawn independently, so that changing one share does not reshuffle the other.
    """
    if derive_seed(seed, stage, "judge", key) / 2**63 < judge:
        return "judge"
    return (
        "validation"
        if derive_seed(seed, stage, "validation", key) / 2**63 < validation
        else ("train")
    )


def build_texts(
    sources: Sequence[Mapping[str, Any]], validation: float, bad_rows: str, seed: int
) -> tuple[pd.DataFrame, Card]:
    """The texts for the reference policy: cleaned, without duplicates, split by text.

    Returns a table of the schema ``texts`` and its data card.
    """
    table = _Table(["text", "source"])
    for part, spec in enumerate(sources):
        source = read_source(spec, ["text"], [], derive_seed(seed, "texts", "rows", part))
        texts, dropped = _parse(source, lambda row: to_text(row["text"]), bad_rows)
        table.add(source, texts, [(text, source.name) for text in texts], dropped)
    frame = table.frame()
    frame["split"] = [split_of(text, seed, "texts", validation) for text in frame["text"]]
    _check_splits(frame, {"train": 1.0, "validation": validation})
    return frame, {"cleaning": CLEANING, **table.card(splits=_counts(frame["split"]))}


def build_prompts(
    settings: Mapping[str, Any], tokenizer: Any, bad_rows: str, seed: int
) -> tuple[pd.DataFrame, Card]:
    """Prompts for the policies: the first few tokens of texts, as in the paper.

    ``settings`` is the config's section: sources, min_tokens, max_tokens (inclusive),
    min_characters (of the cleaned text; the paper's "more than 200" is 201) and test, the number
    of prompts held out. How many tokens of a text are taken is drawn uniformly from a stream of
    that text, so neither other rows nor their order matter. ``tokenizer`` is the reference
    policy's, a fast one; a prompt is a piece of the text itself, not decoded tokens, and it is
    kept if it reads as so many tokens on its own too. Equal prompts are one. Returns a table of
    the schema ``prompts`` and its data card.
    """
    low, high = settings["min_tokens"], settings["max_tokens"]
    if not 1 <= low <= high:
        raise InputError(
            f"prompts: found min_tokens {low} and max_tokens {high}, expected 1 <= min <= max"
        )
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"prompts: found {type(tokenizer).__name__} as the reference policy's tokenizer, "
            "expected a fast one (tokenizer.json), which knows where tokens lie in a text"
        )

    def length(text: str) -> int:
        return low + derive_seed(seed, "prompts", "length", text) % (high - low + 1)

    table = _Table(["prompt", "source", "tokens"])
    for part, spec in enumerate(settings["sources"]):
        source = read_source(spec, ["text"], [], derive_seed(seed, "prompts", "rows", part))
        texts, dropped = _parse(source, lambda row: to_text(row["text"]), bad_rows)
        long_enough = [text for text in texts if len(text) >= settings["min_characters"]]
        dropped["below_min_characters"] = len(texts) - len(long_enough)
        wanted = [(text, length(text)) for text in long_enough]
        prompts, more_dropped = _first_tokens(wanted, tokenizer)
        rows = [(prompt, source.name, tokens) for prompt, tokens in prompts]
        table.add(source, [prompt for prompt, _ in prompts], rows, dropped + more_dropped)
    frame = table.frame()
    test = settings["test"]
    if not 0 <= test < len(frame):
        raise InputError(
            f"prompts: found test {test}, expected less than the {len(frame)} distinct prompts of "
            "the sources, so that some are left to train on"
        )
    order = np.argsort([derive_seed(seed, "prompts", "test", p) for p in frame["prompt"]])
    frame["split"] = "train"
    frame.loc[order[:test], "split"] = "test"
    return frame, {"cleaning": CLEANING, **table.card(splits=_counts(frame["split"]))}


def _first_tokens(
    texts: Sequence[tuple[str, int]], tokenizer: Any, batch: int = 4096
) -> tuple[list[tuple[str, int]], Counter[str]]:
    """The first n tokens of each text, as text, where there are more than that many."""
    prompts, dropped = [], Counter[str]()
    for start in range(0, len(texts), batch):
        rows = texts[start : start + batch]
        heads = [text[: _CHARACTERS_PER_TOKEN * count] for text, count in rows]
        spans = tokenizer(heads, add_special_tokens=False, return_offsets_mapping=True)
        cut = [
            (head[: span[count - 1][1]], count)
            for head, span, (_, count) in zip(heads, spans["offset_mapping"], rows, strict=True)
            if len(span) > count
        ]
        alone = tokenizer([prompt for prompt, _ in cut], add_special_tokens=False)["input_ids"]
        kept = [pair for pair, ids in zip(cut, alone, strict=True) if len(ids) == pair[1]]
        dropped["too_few_tokens"] += len(rows) - len(cut)
        dropped["cut_inside_a_character_or_word_piece"] += len(cut) - len(kept)
        prompts += kept
    return prompts, dropped


def build_preferences(
    settings: Mapping[str, Any],
    bad_rows: str,
    seed: int,
    prompts: Sequence[str] = (),
    sample: Callable[[list[str], int], list[str]] | None = None,
    gold: Callable[[list[list[Message]], list[str]], np.ndarray] | None = None,
) -> tuple[pd.DataFrame, Card]:
    """Preference pairs, split by prompt into train, validation and judge.

    ``settings`` is the config's section: sources, sharpness, label_noise, validation, judge. A
    source ``{sampled: N}`` draws N pairs of responses to ``prompts`` (each prompt once before any
    comes again) with ``sample(prompts, source's number)``; ``relabel: true`` takes the two
    responses of a read source. Both are labelled by ``gold(prompts, responses) -> scores [n]``
    (`draw_labels`); other sources keep their labels, and their probability is null. Returns a
    table of the schema ``preferences`` and its data card.
    """
    table = _Table(["prompt", "chosen", "rejected", "source", "probability"])
    for part, spec in enumerate(settings["sources"]):
        if "sampled" in spec:
            source, pairs, dropped = _sample_pairs(spec, prompts, sample, seed, part)
            # A pair that is drawn again is another draw of its label, not a duplicate.
            keys = [(part, index) for index in range(len(pairs))]
        else:
            stream = derive_seed(seed, "preferences", "rows", part)
            source = read_source(spec, ["chosen", "rejected"], ["prompt"], stream)
            pairs, dropped = _parse(source, to_pair, bad_rows)
            keys = [(prompt_key(prompt), *responses) for prompt, *responses in pairs]
        probabilities: list[float | None] = [None] * len(pairs)
        if "sampled" in spec or spec.get("relabel"):
            stream = derive_seed(seed, "preferences", "labels", part)
            pairs, probabilities = _label(pairs, settings, gold, stream)
        rows = [
            (prompt, chosen, rejected, source.name, probability)
            for (prompt, chosen, rejected), probability in zip(pairs, probabilities, strict=True)
        ]
        table.add(source, keys, rows, dropped)
    frame = table.frame()
    shares = {"train": 1.0, "validation": settings["validation"], "judge": settings["judge"]}
    frame["split"] = [
        split_of(prompt_key(p), seed, "preferences", shares["validation"], shares["judge"])
        for p in frame["prompt"]
    ]
    _check_splits(frame, shares)
    frame["probability"] = frame["probability"].astype(float)
    return frame, table.card(splits=_counts(frame["split"]))


def prompt_key(prompt: Sequence[Message]) -> str:
    """One string for a prompt's messages, whatever white space stands around them."""
    return json.dumps([[message["role"], message["content"].strip()] for message in prompt])


def draw_labels(
    gold_a: np.ndarray,
    gold_b: np.ndarray,
    sharpness: float,
    label_noise: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws which of two responses is chosen, by Bradley-Terry on gold scores [n].

    p(a is chosen) = (1 - noise) sigmoid(sharpness (gold_a - gold_b)) + noise (1 - sigmoid(...)):
    ``label_noise`` is the probability that a label is flipped (Gao et al. 2210.10760 label by gold
    scores, Coste et al. 2310.02743 flip labels). Returns whether a is chosen [n] (bool) and p [n].
    """
    margin = sharpness * (np.asarray(gold_a, dtype=float) - np.asarray(gold_b, dtype=float))
    clean_probability = np.exp(-np.logaddexp(0.0, -margin))
    probability = clean_probability + label_noise * (1 - 2 * clean_probability)
    return rng.random(len(probability)) < probability, probability


def _sample_pairs(
    spec: Mapping[str, Any],
    prompts: Sequence[str],
    sample: Callable[[list[str], int], list[str]] | None,
    seed: int,
    part: int,
) -> tuple[Source, list[tuple[list[Message], str, str]], Counter[str]]:
    count = spec["sampled"]
    if not len(prompts) or sample is None:
        raise InputError(
            f"source {dict(spec)}: found no prompts to sample responses to, expected prompts and "
            "the reference policy"
        )
    rng = np.random.default_rng(derive_seed(seed, "preferences", "prompts", part))
    order: list[int] = []
    while len(order) < count:
        order += rng.permutation(len(prompts)).tolist()
    drawn = [prompts[index] for index in order[:count]]
    responses = sample(drawn + drawn, part)
    pairs, dropped = [], Counter[str]()
    for row in zip(drawn, responses[:count], responses[count:], strict=True):
        try:
            pairs.append(to_pair(dict(zip(("prompt", "chosen", "rejected"), row, strict=True))))
        except BadRow as bad:  # the policy ended at once, or said the same twice
            dropped[bad.reason] += 1
    name = spec.get("name") or "sampled"
    origin = "pairs of responses of the reference policy"
    return Source(name, origin, count, list(range(1, count + 1)), {}), pairs, dropped


def _label(
    pairs: list[tuple[list[Message], str, str]],
    settings: Mapping[str, Any],
    gold: Callable[[list[list[Message]], list[str]], np.ndarray] | None,
    stream: int,
) -> tuple[list[tuple[list[Message], str, str]], list[float]]:
    """The pairs with the chosen response first, and the probability of that preference."""
    if gold is None:
        raise InputError(
            "preferences: found a source that is labelled by gold, expected `gold:` to name the "
            "scorer"
        )
    if not pairs:
        return [], []
    prompts = [prompt for prompt, _, _ in pairs]
    scores = np.asarray(gold(prompts * 2, [p[1] for p in pairs] + [p[2] for p in pairs]), float)
    if not np.isfinite(scores).all():
        bad = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise InputError(
            f"preferences: gold gave {scores[bad]} to a response, expected finite scores; its "
            f"prompt: {_shown(prompts[bad % len(pairs)][-1]['content'])}"
        )
    chosen_a, probability = draw_labels(
        scores[: len(pairs)],
        scores[len(pairs) :],
        settings["sharpness"],
        settings["label_noise"],
        np.random.default_rng(stream),
    )
    ordered = [
        (prompt, a, b) if a_is_chosen else (prompt, b, a)
        for (prompt, a, b), a_is_chosen in zip(pairs, chosen_a, strict=True)
    ]
    return ordered, np.where(chosen_a, probability, 1 - probability).tolist()


def build_benchmark(
    settings: Mapping[str, Any], bad_rows: str, seed: int
) -> tuple[pd.DataFrame, Card]:
    """The benchmark's pairs; a row without a section has RewardBench's own for its subset.

    Nothing is removed as a duplicate: the set is scored as it stands, and ``id`` with ``subset``
    has to name a row. Returns a table of the schema ``benchmark`` and its data card.
    """
    table = _Table(["prompt", "chosen", "rejected", "subset", "section", "id"])
    for part, spec in enumerate(settings["sources"]):
        source = read_source(
            spec,
            ["chosen", "rejected", "subset", "id"],
            ["prompt", "section"],
            derive_seed(seed, "benchmark", "rows", part),
        )
        rows, dropped = _parse(source, _benchmark_row, bad_rows)
        table.add(source, [(part, index) for index in range(len(rows))], rows, dropped)
    frame = table.frame()
    repeated = frame[frame.duplicated(["subset", "id"])]
    if len(repeated):
        row = repeated.iloc[0]
        raise InputError(
            f"benchmark: found the id {row['id']!r} more than once in the subset "
            f"{row['subset']!r} ({len(repeated)} such row(s)), expected ids to be unique in a "
            f"subset; the sources: {', '.join(card['origin'] for card in table.cards)}"
        )
    return frame, table.card(sections=_counts(frame["section"]), subsets=_counts(frame["subset"]))


def _benchmark_row(row: Mapping[str, Any]) -> tuple[Any, ...]:
    from prudent.rewardbench import SECTION_OF

    prompt, chosen, rejected = to_pair(row)
    if not isinstance(row["subset"], str):
        raise _not_text(row["subset"], "subset", "a text")
    if not isinstance(row["id"], str | int):
        raise _not_text(row["id"], "id", "a text or an integer")
    section = row.get("section")
    if section is None:
        if row["subset"] not in SECTION_OF:
            raise BadRow(
                "unknown_subset",
                "subset",
                _shown(row["subset"]),
                "one of RewardBench's, or a column section",
            )
        section = SECTION_OF[row["subset"]]
    if not isinstance(section, str):
        raise _not_text(section, "section", "a text")
    return prompt, chosen, rejected, row["subset"], section, str(row["id"])


def save(frame: pd.DataFrame, card: Card, schema: str, path: Path, card_path: Path) -> None:
    """Writes a table and, beside it, its data card with the table's SHA-256."""
    tables.write_parquet(frame, path, schema)
    tables.write_json({**card, "sha256": tables.file_digest(path)}, card_path)


class _Table:
    """Rows of all sources of one table, each key once, with what happened to each source."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.rows: list[tuple[Any, ...]] = []
        self.cards: list[Card] = []
        self.seen: set[Any] = set()

    def add(
        self, source: Source, keys: Sequence[Any], rows: Sequence[tuple[Any, ...]], dropped: Counter
    ) -> None:
        before = len(self.rows)
        for key, row in zip(keys, rows, strict=True):
            if key not in self.seen:
                self.seen.add(key)
                self.rows.append(row)
        kept = len(self.rows) - before
        self.cards.append(
            {
                "name": source.name,
                "origin": source.origin,
                "available": source.available,
                "read": len(source.numbers),
                "dropped": {reason: count for reason, count in dropped.items() if count},
                "duplicates": len(rows) - kept,
                "kept": kept,
            }
        )
        log.info("%s: kept %d of %d rows", source.origin, kept, len(source.numbers))

    def frame(self) -> pd.DataFrame:
        if not self.rows:
            raise InputError(
                "found no row to keep, expected some; the sources: "
                + "; ".join(
                    f"{card['origin']}: {card['read']} rows read, dropped {card['dropped']}"
                    for card in self.cards
                )
            )
        return pd.DataFrame(self.rows, columns=self.names)

    def card(self, **counts: dict[str, int]) -> Card:
        return {"sources": self.cards, "rows": len(self.rows), **counts}


def _counts(values: pd.Series) -> dict[str, int]:
    return {str(name): int(count) for name, count in values.value_counts().items()}


def _check_splits(frame: pd.DataFrame, shares: Mapping[str, float]) -> None:
    counts = _counts(frame["split"])
    for split, share in shares.items():
        if share > 0 and not counts.get(split):
            raise InputError(
                f"found no row in the split {split} of {len(frame)} rows ({counts}), expected "
                f"some for the share {share}: more rows or another share"
            )
