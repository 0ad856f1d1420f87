"""Sources of data: files and datasets of every form give the same table, or are refused."""

import base64
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_data import (
    EXPECTED,
    content,
    pairs,
    read_source,
    said,
    settings,
    spoiled,
    texts_of,
    write_rows,
)

from prudent.data.files import read_file
from prudent.data.preferences import build_preferences
from prudent.errors import InputError
from prudent.tables import once

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "json", "csv"])
def test_files_of_every_ending_give_the_same_table(tmp_path, ending):
    path = write_rows(pairs(60), tmp_path / f"pairs.{ending}")
    frame, card = build_preferences(settings({"path": str(path)}), "refuse", 0)
    assert content(frame) == EXPECTED
    assert set(frame["source"]) == {"pairs"}
    assert frame["probability"].isna().all()
    assert card["sources"][0]["origin"] == str(path)


@pytest.mark.parametrize(
    "text",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
@pytest.mark.parametrize(
    "nested", [pa.list_, pa.large_list, pa.list_view], ids=lambda f: f.__name__
)
def test_every_type_of_text_in_parquet_gives_the_same_table(tmp_path, text, nested):
    """Polars and DataFusion write views."""
    messages = nested(pa.struct({"role": text, "content": text}))
    schema = pa.schema({"prompt": text, "chosen": messages, "rejected": messages})
    rows = [
        {side: row[side] if side == "prompt" else [said(row[side])] for side in row}
        for row in pairs(60)
    ]
    (tmp_path / "hub").mkdir()
    path = tmp_path / "hub" / "train.parquet"
    # Arrow reads a file as the types that it holds, but does not write each of them itself.
    table = pa.Table.from_pylist(rows)
    with pq.ParquetWriter(path, table.schema, store_schema=False) as writer:
        writer.write_table(table, row_group_size=50)
        types = base64.b64encode(schema.serialize().to_pybytes()).decode()
        writer.add_key_value_metadata({"ARROW:schema": types})
    assert pq.read_schema(path).field("prompt").type == text
    sources = [{"path": str(path)}, {"dataset": str(tmp_path / "hub")}]
    for source in sources[: 1 if nested is pa.list_view else 2]:  # which `datasets` does not know
        frame, _ = build_preferences(settings(source), "refuse", 0)
        assert content(frame) == EXPECTED


def test_rows_of_a_limit_are_found_in_every_batch_and_row_group(tmp_path):
    rows = [{"text": f"text {i}", "messages": [said(str(i))]} for i in range(1000)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=130)
    for chosen in ([], [0], [999], [63, 64, 129, 130, 131, 640], list(range(1000))):
        read = read_file(tmp_path / "a.parquet", ["messages", "text"], lambda n, c=chosen: c)
        assert read.available == 1000 and read.numbers == [index + 1 for index in chosen]
        for name in ("text", "messages"):
            assert read.values[name] == [rows[index][name] for index in chosen]


def test_bytes_are_no_text_whatever_their_type(tmp_path):
    path = tmp_path / "a.parquet"
    for kind in (pa.binary(), pa.binary_view()):
        pq.write_table(pa.table({"text": pa.array([b"x"], kind)}), path)
        with pytest.raises(InputError, match="row 1, column 'text': found b'x' .bytes., expected"):
            texts_of(0.1, {"path": str(path)})


def test_nested_texts_of_more_than_2_gib_in_a_row_group_are_read(tmp_path):
    """Small in the file, since they are equal; whole columns of them are not read by Arrow."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 2100, pa.int32()), ["x" * (1 << 20)])
    nested = pa.ListArray.from_arrays(pa.array(range(2101), pa.int32()), text)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": nested}), path, row_group_size=2100, store_schema=False)
    assert path.stat().st_size < 1 << 20 and pq.read_metadata(path).num_row_groups == 1
    read = read_file(path, ["text"], lambda count: [0, 70])
    assert [[len(part) for part in row] for row in read.values["text"]] == [[1 << 20]] * 2


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("more", [{}, {"version": "1.0"}])
def test_json_rows_may_lie_in_one_object(tmp_path, indent, more):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**more, "data": pairs(60)}, indent=indent))
    frame, _ = build_preferences(settings({"path": str(path)}), "refuse", 0)
    assert content(frame) == EXPECTED
    path.write_text(json.dumps(pairs(1)[0], indent=indent))  # or be one
    assert read_source({"path": path}, ["chosen"]).columns == {"chosen": ["Good 0."]}


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setenv("HOME", str(tmp_path))
    write_rows(pairs(60), tmp_path / "a.csv")
    datasets.Dataset.from_list(pairs(60)).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "hub").mkdir()
    write_rows(pairs(60), tmp_path / "hub" / "train.parquet")
    for source, name in (
        ({"path": "~/a.csv"}, "a"),
        ({"dataset": "~/saved"}, "saved"),
        ({"dataset": "~/hub"}, "hub"),
    ):
        frame, card = build_preferences(settings(source), "refuse", 0)
        assert content(frame) == EXPECTED and card["sources"][0]["name"] == name
    with pytest.raises(InputError, match="none.csv: there is no such file"):
        read_source({"path": "~/none.csv"}, ["text"])


def test_datasets_saved_in_every_way_give_the_same_table(tmp_path):
    import datasets

    saved = datasets.Dataset.from_list(pairs(60))
    saved.save_to_disk(str(tmp_path / "one"))
    both = datasets.DatasetDict(train=saved, other=saved.select(range(2)))
    both.save_to_disk(str(tmp_path / "dictionary"))
    (tmp_path / "hub").mkdir()
    write_rows(pairs(60), tmp_path / "hub" / "train-00000-of-00001.parquet")
    write_rows(pairs(2), tmp_path / "hub" / "test-00000-of-00001.parquet")
    for source in (
        {"dataset": str(tmp_path / "one")},
        {"dataset": str(tmp_path / "dictionary"), "split": "train"},
        {"dataset": str(tmp_path / "hub"), "split": "train"},
    ):
        frame, card = build_preferences(settings(source), "refuse", 0)
        assert content(frame) == EXPECTED
        assert card["sources"][0]["name"] == Path(source["dataset"]).name
    for name in ("dictionary", "hub"):
        with pytest.raises(InputError, match="expected `split:` to name one"):
            build_preferences(settings({"dataset": str(tmp_path / name)}), "refuse", 0)
    with pytest.raises(InputError, match="dataset .*hub, split missing: could not be loaded"):
        source = {"dataset": str(tmp_path / "hub"), "split": "missing"}
        build_preferences(settings(source), "refuse", 0)
    with pytest.raises(InputError, match="nowhere: could not be loaded"):
        build_preferences(settings({"dataset": str(tmp_path / "nowhere")}), "refuse", 0)


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl", "tsv"])
def test_a_folder_of_files_is_read_as_the_files_are(tmp_path, ending):
    """`datasets` would take "NA" for nothing, and number for text."""
    (tmp_path / "hub").mkdir()
    rows = [{**row, "rejected": f"NA {n}" if n else "NA"} for n, row in enumerate(pairs(60))]
    separator = "\t" if ending == "tsv" else ","
    for part, some in enumerate((rows[:40], rows[40:])):
        path = write_rows(some, tmp_path / "a.csv" if ending == "tsv" else tmp_path / f"a.{ending}")
        to = tmp_path / "hub" / f"train-{part:05}-of-00002.{ending}"
        path.rename(to)
        if ending == "tsv":
            to.write_text(to.read_text().replace(",", separator))
    source = read_source({"dataset": str(tmp_path / "hub")}, ["chosen", "rejected"])
    assert source.columns == {name: [row[name] for row in rows] for name in ("chosen", "rejected")}
    assert source.numbers == list(range(1, 61)) and source.available == 60
    some = read_source({"dataset": str(tmp_path / "hub"), "rows": 20}, ["chosen"])
    assert len(some.numbers) == 20 and some.available == 60
    with pytest.raises(InputError, match=r"found the splits train, expected `split:` to name one"):
        read_source({"dataset": str(tmp_path / "hub"), "split": "test"}, ["chosen"])


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "train.csv",
            "text,id\na,1\nb, c,2\n",
            r"train.csv: line 3: found 3 cell\(s\), expected 2",
        ),
        ("train.csv", "text,text\na,1\n", "train.csv: found two columns 'text'"),
        ("train.json", '{"text": "a", "text": "b"}\n', "row 1: found the key 'text' twice"),
        ("train-00001.csv", "id,words\n1,a\n", "train-00001.csv: found the columns id, words, exp"),
    ],
)
def test_a_dataset_folder_whose_file_would_lose_text_is_refused(tmp_path, name, text, says):
    (tmp_path / "hub").mkdir()
    if name == "train-00001.csv":
        (tmp_path / "hub" / "train-00000.csv").write_text("text,id\na,1\n")
    (tmp_path / "hub" / name).write_text(text)
    with pytest.raises(InputError, match=f"dataset {tmp_path}/hub: .*{says}"):
        read_source({"dataset": str(tmp_path / "hub")}, ["text"])


def test_a_limit_holds_for_datasets_too(tmp_path):
    import datasets

    datasets.Dataset.from_list(pairs(80)).save_to_disk(str(tmp_path / "saved"))
    spec = {"dataset": str(tmp_path / "saved"), "rows": 20}
    source = read_source(spec, ["chosen"], [], 0)
    assert len(source.numbers) == 20 and source.available == 80
    assert source.columns["chosen"] == [f"Good {number - 1}." for number in source.numbers]


def test_conversations_survive_parquet_jsonl_and_datasets(tmp_path):
    import datasets

    rows = [
        {
            "prompt": [{"role": "user", "content": r["prompt"]}],
            "chosen": [said(r["chosen"])],
            "rejected": [said(r["rejected"])],
        }
        for r in pairs(60)
    ]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    for source in (
        {"path": str(write_rows(rows, tmp_path / "a.parquet"))},
        {"path": str(write_rows(rows, tmp_path / "a.jsonl"))},
        {"dataset": str(tmp_path / "saved")},
    ):
        assert content(build_preferences(settings(source), "refuse", 0)[0]) == EXPECTED


def test_columns_map_our_names_to_theirs(tmp_path):
    rows = [{"q": r["prompt"], "yes": r["chosen"], "no": r["rejected"]} for r in pairs(60)]
    path = str(write_rows(rows, tmp_path / "a.csv"))
    columns = {"prompt": "q", "chosen": "yes", "rejected": "no"}
    frame, _ = build_preferences(
        settings({"path": path, "columns": columns, "name": "mine"}), "refuse", 0
    )
    assert content(frame) == EXPECTED
    assert set(frame["source"]) == {"mine"}
    with pytest.raises(InputError, match=r"a.csv: the column\(s\) chosen, rejected .*q, yes, no"):
        build_preferences(settings({"path": path}), "refuse", 0)
    with pytest.raises(InputError, match=r"the column\(s\) question are missing"):
        mapped = {"path": path, "columns": {**columns, "prompt": "question"}}
        build_preferences(settings(mapped), "refuse", 0)
    with pytest.raises(InputError, match="unknown name 'q' in `sources.0..columns`; expected one"):
        settings({"path": path, "columns": {"q": "prompt"}})
    with pytest.raises(InputError, match="columns.text` is not a column of `preferences`"):
        settings({"path": path, "columns": {"text": "prompt"}})


def test_csv_cells_that_look_like_nothing_are_texts(tmp_path):
    rows = [
        {**row, "rejected": word} for row, word in zip(pairs(3), ("None", "NA", "nan"), strict=True)
    ]
    path = write_rows(rows, tmp_path / "a.csv")
    source = read_source({"path": path}, ["rejected"], [], 0)
    assert source.columns["rejected"] == ["None", "NA", "nan"]


def test_every_cell_of_a_csv_stays_in_its_column(tmp_path):
    """A reader that takes a cell too many for an index, or pads, loses text without a word."""
    path = tmp_path / "a.CSV"
    long = "x" * 200_000
    path.write_text(f'\ufefftext,id\n"a, b",1\n"c\nd",2\n"say ""e""",3\n\n{long},4\n,5\n')
    source = read_source({"path": path}, ["text", "id"])
    assert source.columns["text"] == ["a, b", "c\nd", 'say "e"', long, ""]
    assert source.columns["id"] == list("12345") and source.numbers == [1, 2, 3, 4, 5]
    bad = path.read_text() + "f,g,6\n"
    path.write_text(bad)
    with pytest.raises(InputError, match="a.CSV: line 9: found 3 cell"):
        read_source({"path": path}, ["text"])


def test_a_row_of_very_many_keys_is_looked_through_once(tmp_path):
    """In the square of these numbers there would be no end."""
    keys = ", ".join(f'"k{i}": 0' for i in range(400_000))
    (tmp_path / "a.json").write_text(f'[{{{keys}, "k399999": 1}}]')
    with pytest.raises(InputError, match="found the key 'k399999' twice"):
        read_file(tmp_path / "a.json", ["k0"], lambda rows: [])
    names = [f"k{i}" for i in range(1_000_000)]
    once(names, "a.csv")
    with pytest.raises(InputError, match="found two columns 'k999999'"):
        once([*names, "k999999"], "a.csv")


def test_files_without_rows_or_with_columns_twice(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": pa.array([], pa.null())}), path)
    assert read_source({"path": path}, ["text"]).columns == {"text": []}
    with pytest.raises(InputError, match="found no row to keep, expected some"):
        texts_of(0.1, {"path": str(path)})
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(twice, path)
    with pytest.raises(InputError, match="a.parquet: found two columns 'text'"):
        read_source({"path": path}, ["text"])


def test_a_limit_draws_rows_in_order_the_same_every_time(tmp_path):
    path = write_rows(pairs(200), tmp_path / "a.parquet")
    read = [read_source({"path": path, "rows": 50}, ["chosen"], [], 1) for _ in range(2)]
    assert read[0] == read[1]
    assert len(read[0].numbers) == 50 and read[0].available == 200
    assert read[0].numbers == sorted(set(read[0].numbers))
    assert read[0].columns["chosen"] == [f"Good {n - 1}." for n in read[0].numbers]
    # Random, not the first 50: files are often sorted.
    assert max(read[0].numbers) > 150
    assert read_source({"path": path, "rows": 50}, ["chosen"], [], 2) != read[0]
    assert read_source({"path": path, "rows": 999}, ["chosen"], [], 1).numbers[-1] == 200


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "x", "found the ending '.txt', expected one of .parquet, .jsonl, .json, .csv"),
        ("a.parquet", "version https://git-lfs", "a.parquet: not a readable parquet file"),
        ("a.jsonl", '{"text": "x"}\n{"text": \n', "a.jsonl: row 2: not valid JSON"),
        ("a.jsonl", '{"text": "x"}\n[1]\n', r"row 2: found list, expected an object"),
        ("a.json", '[{"text": ', "a.json: not valid JSON"),
        ("a.json", '{\n "data": [\n', "not valid JSON: .*line 2 .*an object a line, or one object"),
        (
            "a.json",
            '{\n "text": "x"\n}\n{\n',
            "a.json: not valid JSON: Extra data: line 4",
        ),
        ("a.json", '{"data": []}', "a.json: the file has no rows"),
        ("a.json", '{"data": ["x"]}', "a.json: row 1: found str, expected an object of fields"),
        (
            "a.json",
            '{\n"data": {"text": "x"}}',
            "text are missing; found the columns data",
        ),
        ("a.json", "5", "a.json: row 1: found int, expected an object of fields"),
        ("a.json", "[1]\n[2]", "a.json: not valid JSON: Extra data"),
        ("a.jsonl", '{\n"text": "x"}', "row 1: not valid JSON: .*; expected an object a line"),
        ("a.csv", "", "a.csv: the file is empty"),
        (
            "a.csv",
            'text\n"x',
            "a.csv: not a readable csv file: line 2: unexpected end of data",
        ),
        ("a.csv", 'text\na\n"b\nc"\nd\n"e\nf\n', "not a readable csv file: line 6: unexpected end"),
        (
            "a.csv",
            'text,id\n"a\nb",1\n"She said \\"yes\\", twice.",2\n',
            "a.csv: not a readable csv file: line 4: .*; expected a text .*written twice",
        ),
        ("a.csv", "text,id\nGood film, really,1\n", "a.csv: line 2: found 3 cell.s., expected 2"),
        ("a.csv", 'text,id\nx,1\n\n"a\nb",2\ny\n', "a.csv: line 6: found 1 cell.s., expected 2"),
        ("a.csv", "id,text,id\n1,x,2\n", "a.csv: found two columns 'id'"),
        ("a.csv", 'text\n"x" y\n', "a.csv: not a readable csv file"),
        ("a.jsonl", "", "a.jsonl: the file has no rows"),
        ("a.jsonl", " \n\n", "a.jsonl: the file has no rows"),
        ("a.json", "[]", "a.json: the file has no rows"),
        ("a.jsonl", '{"text": "x", "text": "y"}', "row 1: found the key 'text' twice"),
        ("a.json", '[{"text": "x", "text": "y"}]', "a.json: found the key 'text' twice"),
        (
            "a.jsonl",
            '{"text": "x"}\n{"text": ' + "[" * 1500 + "]" * 1500 + "}",
            "row 2: .*too deep",
        ),
        ("a.jsonl", '{"text": ' + "9" * 10_000 + "}", "row 1: not valid JSON: Exceeds the limit"),
        ("a.json", '[{"text": ' + "9" * 10_000 + "}]", "a.json: not valid JSON: Exceeds"),
        ("a.csv.gz", "x", "found the ending '.gz', expected one of .parquet"),
    ],
)
def test_unreadable_files_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_source({"path": tmp_path / name}, ["text"], [], 0)


def test_unknown_sources_are_refused(tmp_path):
    with pytest.raises(InputError, match="nothing.csv: there is no such file"):
        read_source({"path": tmp_path / "nothing.csv"}, ["text"])
    for sources, says in (
        ([{"rows": 3}], "`sources.0.` has none of them; expected exactly one of sampled, path"),
        ([{"path": "x", "dataset": "y"}], "has path, dataset; expected exactly one"),
        ([{"world": "reviews", "rows": 2}], "has world; expected exactly one of sampled, path"),
        ([{"file": "x"}], "unknown key `sources.0..file`"),
        ([], "`sources` is an empty list"),
    ):
        with pytest.raises(InputError, match=says):
            settings(*sources)


def test_bad_rows_are_refused_in_one_message(tmp_path):
    path = spoiled(tmp_path)
    with pytest.raises(InputError) as caught:
        build_preferences(settings({"path": str(path)}), "refuse", 0)
    message = str(caught.value)
    assert message.startswith(f"{path}: row 7, column 'rejected': found the empty text ' '")
    assert "(4 bad row(s) in all; `bad_rows: drop`" in message
    with pytest.raises(InputError, match="bad_rows: found 'ignore', expected refuse or drop"):
        build_preferences(settings({"path": str(path)}), "ignore", 0)


def test_the_row_number_is_the_files_own_under_a_limit_too(tmp_path):
    rows = pairs(50)
    rows[41]["chosen"] = ""
    path = write_rows(rows, tmp_path / "a.csv")
    limited = [read_source({"path": path, "rows": 25}, ["chosen"], [], seed) for seed in range(9)]
    assert any(42 in source.numbers for source in limited)
    for source in limited:
        for number, row in source.numbered():
            assert row["chosen"] == rows[number - 1]["chosen"]
