"""Snakemake's cache between checkouts: what hits, what misses, and what comes of it."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import TINY, copy_project, install, snakemake

# The rules that are cached, in order, each with what stands in its first output's path.
CACHED = {
    "prepare_texts": "data/texts",
    "train_reference": "reference",
    "prepare_prompts": "data/prompts",
    "prepare_preferences": "data/preferences",
    "prepare_benchmark": "data/benchmark",
    "train_reward_base": "reward/base",
    "compute_features": "reward/features",
}
WORLD = {"prepare_texts", "prepare_benchmark"}
BELOW_REFERENCE = set(CACHED) - WORLD


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of Snakemake's with all of the tiny scenario that can be in it."""
    store = tmp_path_factory.mktemp("cache")
    folder = copy_project(tmp_path_factory.mktemp("first"))
    targets = ("results/tiny/reward/features.safetensors", "results/tiny/data/benchmark.parquet")
    arguments = ("--cores", "2", "--cache", "--configfile", TINY, "--", *targets)
    output = snakemake(folder, *arguments, SNAKEMAKE_OUTPUT_CACHE=str(store))
    assert output.returncode == 0, output.stdout + output.stderr
    return store


SEARCH = "calibration/variance_aware"
"""What the one search of the tiny scenario makes; not in the first checkout's cache."""


def fates(folder: Path, store: Path, *arguments: str, path: Path | None = None) -> dict[str, str]:
    """What becomes of the results of cached rules in an empty checkout: obtained or written."""
    output = snakemake(
        *(folder, "--dry-run", "--forceall", "--cache", "--configfile", TINY, *arguments),
        path=path,
        SNAKEMAKE_OUTPUT_CACHE=str(store),
    )
    text = output.stdout + output.stderr
    assert output.returncode == 0, text
    found = dict(re.findall(r"Output file results/tiny/([\w/]+)\S* will be (\w+)", text))
    assert set(found) == {*CACHED.values(), SEARCH}, text
    assert set(found.values()) <= {"obtained", "written"}, text
    return found


def misses(folder: Path, store: Path, *arguments: str, path: Path | None = None) -> set[str]:
    """The cached rules, but for the search, whose results would not come from the cache."""
    found = fates(folder, store, *arguments, path=path)
    return {name for name, place in CACHED.items() if found[place] == "written"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return copy_project(tmp_path / "another" / "checkout")


ENDS = ("summary/summary.csv", "summary/policies.csv", "benchmark/accuracy.csv")
"""Tables that all cached stages lead to, and all that lies between; figures and pages are drawn
from such tables."""


def test_a_second_checkout_takes_what_there_is_and_ends_alike(cache, checkout, finished):
    targets = [f"results/tiny/{table}" for table in ENDS]
    arguments = ("--cores", "2", "--configfile", TINY, "--", *targets)
    output = snakemake(checkout, "--cache", *arguments, SNAKEMAKE_OUTPUT_CACHE=str(cache))
    assert output.returncode == 0, output.stdout + output.stderr
    results, uncached = checkout / "results/tiny", finished / "results/tiny"
    # A job that came from the cache ran no script: its log is empty.
    logs = {path.stem: path for path in (results / "logs").glob("*.log")}
    told, tells = (
        {name for name in logs if (place / f"logs/{name}.log").stat().st_size}
        for place in (results, uncached)
    )
    assert told == tells - set(CACHED) and {"train_reference", "train_reward_base"} <= tells
    assert {"train_pilots", "tabulate_variance", "compare_methods"} <= told
    for table in ENDS:
        assert (results / table).read_bytes() == (uncached / table).read_bytes()
    assert (results / "reward/features.safetensors").resolve().is_relative_to(cache.resolve())
    again = snakemake(
        *(checkout, "--dry-run", "--cache", *arguments), SNAKEMAKE_OUTPUT_CACHE=str(cache)
    )
    assert "Nothing to be done" in again.stdout + again.stderr
    # Links into a cache that was cleared lead nowhere: these stages are made again.
    shutil.rmtree(results)
    assert set(fates(checkout, cache).values()) == {"obtained"}
    # A search's key holds its target, its pilots, the study's seed and the trainer's code.
    overlay = checkout.parent / "overlay.yaml"
    for text in ("pilots: 2", "methods: {variance_aware: {beta: {kl: 0.03}}}", "seed: 1"):
        overlay.write_text(text)
        assert fates(checkout, cache, str(overlay))[SEARCH] == "written"
    overlay.write_text("seeds: 3\nmethods: {vanilla: {beta: 0.1}}\n")
    assert fates(checkout, cache, str(overlay))[SEARCH] == "obtained"
    edit(checkout, "prudent/ppo/trainer.py", lambda text: text + "\n\nUNUSED = 1\n")
    assert misses(checkout, cache) == set() and fates(checkout, cache)[SEARCH] == "written"
    cleared = checkout.parent / "cleared"
    cleared.mkdir()
    assert misses(checkout, cleared) == set(CACHED)


def edit(folder: Path, name: str, change: Callable[[str], str]) -> None:
    path = folder / "workflow_scripts" / name
    before = path.read_text()
    path.write_text(change(before))
    assert path.read_text() != before


def test_comments_hit(cache, checkout):
    for name in ("prudent/world/words.py", "prudent/tables.py", "train_reward_base.py"):
        edit(checkout, name, lambda text: text + "\n# A comment.\n")
    edit(checkout, "prudent/checkpoints.py", lambda text: text.replace('"""', '"""Once. ', 1))
    # The script's own text is in Snakemake's key, comments and all.
    assert misses(checkout, cache) == {"train_reward_base", "compute_features"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("seed=1", set(CACHED)),
        ("texts={validation: 0.2}", BELOW_REFERENCE | {"prepare_texts"}),
        ("reference={epochs: 2}", BELOW_REFERENCE),
        ("sampling={temperature: 0.9}", {"prepare_preferences"}),
        ("preferences={validation: 0.3}", {"prepare_preferences"}),
        ("benchmark={sources: [{world: benchmark, rows: 25}]}", {"prepare_benchmark"}),
        ("reward={learning_rate: 0.01}", {"train_reward_base"}),
        ("bad_rows=drop", set(CACHED)),
        # What these stages do not read, all at once.
        ("seeds=3;ensembles={bootstrap: {epochs: 1}}", set()),
    ],
)
def test_settings(cache, checkout, tmp_path, change, expected):
    overlay = tmp_path / "overlay.yaml"
    said = dict(part.split("=") for part in change.split(";"))
    overlay.write_text("".join(f"{name}: {value}\n" for name, value in said.items()))
    if "prepare_preferences" in expected:
        expected = expected | {"train_reward_base"}
    if "train_reward_base" in expected:
        expected = expected | {"compute_features"}
    assert misses(checkout, cache, str(overlay)) == expected


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("prudent/world/words.py", set(CACHED)),
        ("prudent/policies/reference.py", BELOW_REFERENCE),
        ("prudent/rewards/training.py", {"train_reward_base", "compute_features"}),
        (
            "prudent/rewards/features.py",
            {"prepare_preferences", "train_reward_base", "compute_features"},
        ),
        ("compute_features.py", {"compute_features"}),
    ],
)
def test_imported_modules(cache, checkout, module, expected):
    edit(checkout, module, lambda text: text + "\n\nUNUSED = 1\n")
    assert misses(checkout, cache) == expected


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        ("torch", set(CACHED)),
        ("trl", {"train_reward_base", "compute_features"}),
        ("matplotlib", set()),
    ],
)
def test_versions_of_libraries(cache, checkout, tmp_path, package, expected):
    packages = install(tmp_path / "packages", package)
    assert misses(checkout, cache, path=packages) == expected


def test_data_files_count_by_content_and_not_by_place(checkout, finished, tmp_path):
    """Texts from a file below data_root, and the start of the reference policy from a folder."""
    store = tmp_path / "store"
    store.mkdir()
    for place in ("here", "there"):
        shutil.copytree(finished / "results/tiny/reference", tmp_path / place / "model")
        (tmp_path / place / "texts.csv").write_text(
            "text\n" + "".join(f"a film of number {i} that was good\n" for i in range(60))
        )
    overlay = tmp_path / "files.yaml"
    overlay.write_text(
        yaml.safe_dump(
            {
                "texts": {"sources": [{"path": "{data_root}/texts.csv"}]},
                "reference": {"checkpoint": "{data_root}/model"},
            }
        )
    )

    def below(place: str) -> tuple[str, ...]:
        return (str(overlay), "--config", f"data_root={tmp_path / place}")

    target = "results/tiny/data/prompts.parquet"
    arguments = ("--cores", "2", "--cache", "--configfile", TINY, *below("here"), "--", target)
    output = snakemake(checkout, *arguments, SNAKEMAKE_OUTPUT_CACHE=str(store))
    assert output.returncode == 0, output.stdout + output.stderr

    def missed(place: str) -> set[str]:
        output = snakemake(
            *(checkout, "--dry-run", "--forceall", "--cache", "--configfile", TINY),
            *(*below(place), "--", target),
            SNAKEMAKE_OUTPUT_CACHE=str(store),
        )
        text = output.stdout + output.stderr
        fates = re.findall(r"Output file results/tiny/([\w/]+)\S* will be (\w+)", text)
        assert len(fates) == 3, text
        return {place for place, fate in fates if fate == "written"}

    assert missed("here") == missed("there") == set()
    for path in (tmp_path / "there").rglob("*"):
        os.utime(path)
    assert missed("there") == set()
    with (tmp_path / "there/texts.csv").open("a") as file:
        file.write("one film more\n")
    assert missed("there") == {"data/texts", "reference", "data/prompts"}
    with (tmp_path / "here/model/generation_config.json").open("a") as file:
        file.write("\n")
    assert missed("here") == {"reference", "data/prompts"}


def test_members_are_cached_by_their_settings_whatever_their_ensemble_is_called(
    cache, checkout, tmp_path
):
    """An ensemble of more members takes those that another one has trained."""
    options = ("--cores", "2", "--cache", "--configfile", TINY)

    def ensemble(name: str, **settings: object) -> tuple[str, str, str]:
        overlay = tmp_path / f"{name}.yaml"
        ensembles = {name: {"kind": "members", "count": 2} | settings}
        overlay.write_text(yaml.safe_dump({"ensembles": ensembles, "ensemble": name}))
        return str(overlay), "--", f"results/tiny/reward/ensembles/{name}"

    first = snakemake(checkout, *options, *ensemble("first"), SNAKEMAKE_OUTPUT_CACHE=str(cache))
    assert first.returncode == 0, first.stdout + first.stderr
    link = checkout / "results/tiny/reward/members/first/1"
    assert link.resolve().is_relative_to(cache.resolve())

    def fates(name: str, **settings: object) -> list[str]:
        output = snakemake(
            *(checkout, "--dry-run", *options, *ensemble(name, **settings)),
            SNAKEMAKE_OUTPUT_CACHE=str(cache),
        )
        text = output.stdout + output.stderr
        found = re.findall(rf"Output file \S*/members/{name}/(\d+) will be (\w+)", text)
        return [fate for _, fate in sorted(found)]

    assert fates("second", count=3) == ["obtained", "obtained", "written"]
    assert fates("third", draws=2) == ["obtained", "obtained", "written", "written"]
    assert fates("fourth", labels="shared") == ["written", "written"]


def test_a_bad_folder_is_named_before_any_work(checkout):
    arguments = ("--cores", "1", "--cache", "--configfile", TINY)
    output = snakemake(checkout, *arguments, SNAKEMAKE_OUTPUT_CACHE="/nowhere")
    assert output.returncode == 1 and not (checkout / "results").exists()
    message = output.stderr.strip().splitlines()[-1]
    assert message.startswith("SNAKEMAKE_OUTPUT_CACHE: /nowhere is not a writable folder")
