"""Files between the stages: schemas, atomic writing, digests."""

import hashlib
import json
import math
import os

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hostile import whole_rows
from safetensors.torch import save_file

from prudent import schemas, tables
from prudent.errors import InputError

PROMPT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
PREFERENCES = pd.DataFrame(
    {
        "id": ["0:1", "1:7"],
        "probability": [0.75, None],
        "split": ["train", "validation"],
        "source": ["a", "b"],
        "rejected": ["no", "n"],
        "chosen": ["yes", "y"],
        "prompt": [PROMPT, PROMPT[:1]],
        "more": [1, 2],
    }
)


def test_a_table_is_written_in_its_schemas_columns_and_types(tmp_path):
    tables.write_parquet(PREFERENCES, tmp_path / "p.parquet", "preferences")
    assert pq.read_schema(tmp_path / "p.parquet").equals(schemas.SCHEMAS["preferences"])
    frame = tables.read_table(tmp_path / "p.parquet", "preferences")
    assert frame["prompt"].tolist() == [PROMPT, PROMPT[:1]]
    assert isinstance(frame["prompt"][0], list)
    assert frame["probability"][0] == 0.75 and pd.isna(frame["probability"][1])
    assert pq.read_table(tmp_path / "p.parquet")["probability"].null_count == 1


def test_a_table_without_rows_is_neither_written_nor_read(tmp_path):
    path = tmp_path / "p.parquet"
    with pytest.raises(InputError, match=r"p\.parquet: found no rows, expected some"):
        tables.write_parquet(PREFERENCES.iloc[:0], path, "preferences")
    assert not path.exists()
    empty = pa.Table.from_pylist([], schemas.SCHEMAS["preferences"])
    pq.write_table(empty, path)
    with pytest.raises(InputError, match=r"p\.parquet: found no rows, expected some"):
        tables.read_table(path, "preferences")
    losses = pd.DataFrame({"step": [], "split": [], "loss": []})  # of a reference that is only read
    tables.write_csv(losses, tmp_path / "losses.csv", "losses")
    assert tables.read_csv(tmp_path / "losses.csv", "losses").empty


def test_a_table_of_another_form_is_refused(tmp_path):
    path = tmp_path / "p.parquet"
    with pytest.raises(InputError, match="p.parquet: not a readable parquet file"):
        tables.read_table(path, "texts")
    path.write_text("no parquet")
    with pytest.raises(InputError, match="p.parquet: not a readable parquet file"):
        tables.read_table(path, "texts")
    PREFERENCES[["source", "split"]].to_parquet(path)
    with pytest.raises(InputError, match=r"text are missing; expected .*found source, split"):
        tables.read_table(path, "texts")
    pd.DataFrame({"text": [PROMPT], "source": ["a"], "split": ["train"]}).to_parquet(path)
    with pytest.raises(InputError, match="p.parquet: a column has the wrong type"):
        tables.read_table(path, "texts")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    tables.write_text("old", path)
    with pytest.raises(RuntimeError), tables.atomic_path(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old"
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_full_disk_is_named(tmp_path):
    path = tmp_path / "a.txt"
    with (
        pytest.raises(InputError, match="a.txt: no space left to write it"),
        tables.atomic_path(path),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"0")
    assert not list(tmp_path.iterdir())


def test_a_folder_is_replaced_whole(tmp_path):
    path = tmp_path / "model"
    for names in (["first"], ["first", "second"]):
        with tables.atomic_path(path) as temporary:
            temporary.mkdir()
            for name in names:
                (temporary / name).write_text(f"of {names}")
        assert {p.name: p.read_text() for p in path.iterdir()} == dict.fromkeys(
            names, f"of {names}"
        )
        (path / ".snakemake_timestamp").touch()  # it marks folders that are results
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def write_folder(path, *names):
    with tables.atomic_path(path) as temporary:
        temporary.mkdir()
        for name in names:
            (temporary / name).write_text("new")


@pytest.mark.parametrize("name", ["letters.txt", ".ssh", "photos"])
def test_a_folder_with_what_is_not_written_there_is_kept(tmp_path, name):
    """As somebody's home that was given as the place of a checkpoint."""
    home = tmp_path / "home"
    (home / name).mkdir(parents=True)
    (home / "model").write_text("old")
    with pytest.raises(InputError, match=f"home: found a folder with '{name}' in it, which are"):
        write_folder(home, "model")
    assert {path.name for path in home.iterdir()} == {name, "model"}
    assert (home / "model").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_file_replaces_no_folder_and_a_folder_no_file(tmp_path):
    (tmp_path / "config.yaml").mkdir()
    (tmp_path / "config.yaml" / "mine").write_text("mine")
    with pytest.raises(InputError, match="config.yaml: found a folder, expected a file"):
        tables.write_text("new", tmp_path / "config.yaml")
    assert (tmp_path / "config.yaml" / "mine").read_text() == "mine"
    (tmp_path / "model").write_text("old")
    with pytest.raises(InputError, match="model: found a file, expected a folder"):
        write_folder(tmp_path / "model")
    assert (tmp_path / "model").read_text() == "old"


def test_files_are_as_open_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        with tables.atomic_path(tmp_path / "model") as temporary:
            temporary.mkdir()
            save_file({"a": torch.zeros(2)}, temporary / "a.safetensors")
        with tables.atomic_path(tmp_path / "b.safetensors") as temporary:
            save_file({"b": torch.zeros(2)}, temporary)
    finally:
        os.umask(before)
    for file in ("model/a.safetensors", "b.safetensors"):
        assert (tmp_path / file).stat().st_mode & 0o777 == 0o640


def test_leftovers_of_a_killed_process_go(tmp_path):
    (tmp_path / ".a.txt.1.tmp").mkdir()
    (tmp_path / ".a.txt.2.tmp").write_text("half")
    (tmp_path / ".b.txt.1.tmp").write_text("another's")
    tables.write_text("whole", tmp_path / "a.txt")
    assert {p.name for p in tmp_path.iterdir()} == {"a.txt", ".b.txt.1.tmp"}


def test_digests_tell_contents_and_names(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * (3 << 20))
    expected = hashlib.sha256(b"x" * (3 << 20)).hexdigest()
    assert tables.file_digest(tmp_path / "a") == expected
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a").write_text("1")
    before = tables.file_digest(folder)
    (folder / ".snakemake_timestamp").touch()
    assert before == tables.file_digest(folder)
    (folder / "sub" / "a").rename(folder / "sub" / "b")
    renamed = tables.file_digest(folder)
    (folder / "sub" / "b").write_text("2")
    assert len({before, renamed, tables.file_digest(folder)}) == 3


def test_metadata_holds_settings_versions_and_input_digests(tmp_path):
    tables.write_text("x", tmp_path / "a")
    found = tables.metadata({"k": 1}, data=tmp_path / "a")
    assert found["settings"] == {"k": 1}
    assert found["inputs"] == {"data": hashlib.sha256(b"x").hexdigest()}
    assert found["versions"]["pandas"] == pd.__version__
    tables.write_json(found, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == found


# --- CSV ------------------------------------------------------------------------------------------


def log_table(**changes) -> pd.DataFrame:
    """A training log of three steps."""
    columns = schemas.CSV_SCHEMAS["training_log"]
    return pd.DataFrame({name: [0.5] * 3 for name in columns} | {"step": [0, 1, 2]} | changes)


def test_a_csv_table_comes_back_with_names_as_texts(tmp_path):
    path = tmp_path / "variance.csv"
    numbers = [
        name for name, kind in schemas.CSV_SCHEMAS["variance"].items() if kind != schemas.TEXT
    ]
    for name in ("NA", "nan", "null", "01", "true", "1e3", "None"):
        frame = pd.DataFrame({"section": name, "subset": name, "side": ["accepted", "difference"]})
        tables.write_csv(frame.assign(**dict.fromkeys(numbers, 1.0)), path)
        found = tables.read_csv(path, "variance")
        assert found.loc[0, ["section", "subset"]].tolist() == [name, name]


def test_what_may_be_missing_or_open_is(tmp_path, small_schema):
    path = tmp_path / "log.csv"
    tables.write_csv(log_table(sigma=[math.nan, 0.1, 0.2]), path)
    assert math.isnan(tables.read_csv(path, "training_log")["sigma"][0])
    path.write_text("quantity,value,low,high\na,,,\nb,1.0,-inf,inf\n")
    assert tables.read_csv(path, small_schema)["high"].tolist()[1] == math.inf


@pytest.fixture
def small_schema(monkeypatch):
    form = {"quantity": schemas.TEXT, **dict.fromkeys(("value", "low", "high"), schemas.BOUND)}
    monkeypatch.setitem(schemas.CSV_SCHEMAS, "small", form)
    monkeypatch.setitem(schemas.ROWS, "small", schemas.Rows(empty=True))
    return "small"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the file is empty, expected a line of column names"),
        ("\n\n", "No columns to parse from file"),
        (
            "quantity,value,low,high\na,1,0,2,5,6\n,",
            "line 2: found 6 cell(s), expected 4 as in the line",
        ),
        ("quantity;value;low;high\na;1;0;2\n", "column(s) quantity, value, low, high are missing"),
        ("quantity,value\na,1\n", "column(s) low, high are missing; found the columns quantity, v"),
        ("quantity,value,low,high\na,1,0,two\n", "row 1, column 'high': found two, expected a nu"),
        ("quantity,value,low,high\na,1,0,2\nb,1", "line 3: found 2 cell(s), expected 4 as in"),
        ('quantity,value,low,high\n"a,1,0,2\n', "not a readable csv file: line 2: unexpected end"),
        ("quantity,value,low,high,low\na,1,0,2,1\n", "found two columns 'low', expected each name"),
        ("quantity,value,low,high\na,True,0,2\n", "row 1, column 'value': found True, expected"),
        ("quantity,value,low,high\n\xff,1,0,2\n", "not a readable csv file"),
    ],
)
def test_a_csv_table_that_is_broken_is_refused(tmp_path, text, says, small_schema):
    path = tmp_path / "small.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError) as error:
        tables.read_csv(path, small_schema)
    assert str(error.value).startswith(f"{path}: ")
    assert says in str(error.value)


@pytest.mark.parametrize("value", ["x", "", "nan", "inf", "true"])
def test_a_number_of_a_log_is_one(tmp_path, value):
    path = tmp_path / "seed0.csv"
    tables.write_csv(log_table(kl=["0.1", value, "0.2"]), path)
    with pytest.raises(InputError, match="seed0.csv: row 2, column 'kl': found .*a number"):
        tables.read_csv(path, "training_log")


def test_a_missing_csv_table_is_refused(tmp_path):
    with pytest.raises(InputError, match="none.csv: not a readable csv file"):
        tables.read_csv(tmp_path / "none.csv", "diagnosis")


# --- Rows -----------------------------------------------------------------------------------------

# A change of the last row, and what is said of it; None removes the row, and {} repeats it.
WRONG_ROWS = {
    "texts": ({"split": "test"}, "row 2, column 'split': found test, expected one of train, valid"),
    "prompts": ({}, "row 3: found prompt 'b' a second time, expected it once"),
    "preferences": (
        {"probability": 7.0},
        "column 'probability': found 7.0, expected a number from 0",
    ),
    "benchmark": ({}, "found section 'b', subset 'a', id 'a' a second time"),
    "responses": (None, "found 1 row(s) of method 'b', seed 1, expected 2: each prompt once"),
    "judgements": (
        {"grammatical": "yes"},
        "column 'grammatical': found yes, expected a number from",
    ),
    "rewards": (None, "found 3 row(s) of method 'b', seed 1, expected 4: each prompt and each"),
    "reward_samples": ({"head": -1}, "column 'head': found -1, expected a number from 0 to inf"),
    "exact_samples": (
        {"log_probability": 0.5},
        "column 'log_probability': found 0.5, expected a number from -inf to 0",
    ),
    "exact_policies": (
        {},
        "row 3: found level 'b', method 'a', kl_target 0.5, replicate 1 a second time",
    ),
    "exact_frontier": ({"kl": -1.0}, "column 'kl': found -1.0, expected a number from 0 to inf"),
    "exact_summary": ({"p": 1.5}, "column 'p': found 1.5, expected a number from 0 to 1"),
    "exact_kinds": ({"p": 1.5}, "column 'p': found 1.5, expected a number from 0 to 1"),
    "regime_policies": (
        {"beta": -1.0},
        "column 'beta': found -1.0, expected a number from 0 to inf",
    ),
    "claims": ({"agrees": "maybe"}, "column 'agrees': found maybe, expected one of yes, no, not"),
    "paper": ({"agrees": "maybe"}, "column 'agrees': found maybe, expected one of yes, no, not"),
    "paper_rewardbench": ({"chat": 101.0}, "column 'chat': found 101.0, expected a number from 0"),
    "theory_curves": ({}, "found figure 'b', panel 'a', series 'a', x 0.5 a second time"),
    "regimes": ({"below_share": 1.5}, "column 'below_share': found 1.5, expected a number from 0"),
    "best_of": ({"n": -2.0}, "column 'n': found -2.0, expected a number from 0 to inf"),
    "scores": ({"side": "best"}, "column 'side': found best, expected one of chosen, rejected"),
    "training_log": (
        {"clip_fraction": 2.0},
        "column 'clip_fraction': found 2.0, expected a number",
    ),
    "losses": ({}, "row 3: found step 2, split 'train' a second time"),
    "head_losses": (
        {"accuracy": 7.0},
        "column 'accuracy': found 7.0, expected a number from 0 to 1",
    ),
    "member_losses": (
        {"split": "judge"},
        "column 'split': found judge, expected one of train, val",
    ),
    "policies": (None, "found 1 row(s) of method 'b', expected 2: each seed once"),
    "summary": (
        {"worse_share": -0.1},
        "column 'worse_share': found -0.1, expected a number from 0",
    ),
    "tests": (None, "found 8 row(s) of method 'b', baseline 'a', expected 9: each quantity once"),
    "components": ({"share": 1.5}, "column 'share': found 1.5, expected a number from 0 to 1"),
    "calibration": (
        None,
        "found 1 row(s) of method 'b', evaluation 0.5, expected 2: each pilot once",
    ),
    "plan": ({"fits": "maybe"}, "column 'fits': found maybe, expected one of yes, no"),
    "power": ({}, "row 3: found comparison 'b' a second time, expected it once"),
    "audit": ({"n": -1.0}, "column 'n': found -1.0, expected a number from 0 to inf"),
    "diagnosis": ({}, "row 3: found ensemble 'b', quantity 'a' a second time"),
    "kinds": (
        {"accuracy_mean": 1.5},
        "column 'accuracy_mean': found 1.5, expected a number from 0",
    ),
    "kinds_by_judge": (
        {"within_mean": 1.5},
        "column 'within_mean': found 1.5, expected a number from -1",
    ),
    "frequency": ({"n": -3.0}, "column 'n': found -3.0, expected a number from 0 to inf"),
    "accuracy": (
        {"level": "page"},
        "column 'level': found page, expected one of subset, section, o",
    ),
    "variance": (None, "found 3 row(s) of section 'b', subset 'a', expected 4: each side and each"),
}


@pytest.mark.parametrize("schema", schemas.ROWS)
def test_a_table_whose_rows_are_not_whole_is_neither_written_nor_read(tmp_path, schema):
    change, says = WRONG_ROWS[schema]
    rows, csv = whole_rows(schema), schema in schemas.CSV_SCHEMAS
    if schema == "judgements":
        rows = [row | {"grammatical": 1.0} for row in rows]
    path = tmp_path / f"{schema}.{'csv' if csv else 'parquet'}"
    write, read = (
        (tables.write_csv, tables.read_csv) if csv else (tables.write_parquet, tables.read_table)
    )
    others = {"others": True} if schema == "judgements" else {}
    write(pd.DataFrame(rows), path, schema, **others)
    assert len(read(path, schema, **others)) == len(rows)
    if change is None:
        rows.pop()
    elif change:
        rows[-1] = rows[-1] | change
    else:
        rows.append(rows[-1])
    frame = pd.DataFrame(rows)
    if change and "grammatical" in change:
        frame = frame.astype({"grammatical": str})
        says = "column 'grammatical': found"
    wrong = path.with_stem("wrong")
    with pytest.raises(InputError) as error:
        write(frame, wrong, schema, **others)
    assert says in str(error.value) and str(error.value).startswith(f"{wrong}: ")
    assert not wrong.exists()
    write(frame, wrong)
    with pytest.raises(InputError) as again:
        read(wrong, schema, **others)
    assert str(again.value) == str(error.value)


def test_unknown_scores_and_nulls_are_neither_written_nor_read(tmp_path):
    rows = pd.DataFrame(whole_rows("judgements"))
    for column, value in (("score", math.nan), ("score", math.inf), ("response", None)):
        bad = rows.assign(**{column: [value, *rows[column][1:]]})
        with pytest.raises(InputError, match=f"row 1, column '{column}': found"):
            tables.write_parquet(bad, tmp_path / "a.parquet", "judgements")
        tables.write_parquet(bad, tmp_path / "a.parquet")
        with pytest.raises(InputError, match=f"row 1, column '{column}': found"):
            tables.read_table(tmp_path / "a.parquet", "judgements")
