"""The benchmark: its sections, subsets and names."""

import pytest
from tiny_data import benchmark_of, pairs, texts_of, write_rows

from prudent.data.settings import TextSettings
from prudent.errors import InputError

pytestmark = pytest.mark.usefixtures("own_cache")


def benchmark_rows():
    rows = []
    for subset in ("alpacaeval-easy", "hep-python", "donotanswer"):
        rows += [{**row, "subset": subset, "id": i} for i, row in enumerate(pairs(4))]
    return rows


def test_the_benchmarks_sections_come_from_the_file_or_from_rewardbench(tmp_path):
    path = write_rows(benchmark_rows(), tmp_path / "a.parquet")
    frame, card = benchmark_of({"path": str(path)})
    assert frame["section"].tolist() == ["Chat"] * 4 + ["Reasoning"] * 4 + ["Safety"] * 4
    assert frame["id"].tolist() == ["0", "1", "2", "3"] * 3
    assert card["subsets"] == {"alpacaeval-easy": 4, "hep-python": 4, "donotanswer": 4}
    own = [{**row, "section": "Mine", "subset": "own"} for row in pairs(4)]
    path = write_rows([{**row, "id": str(i)} for i, row in enumerate(own)], tmp_path / "b.csv")
    frame, _ = benchmark_of({"path": str(path)})
    assert set(frame["section"]) == {"Mine"}


def test_benchmark_rows_that_cannot_be_named_are_refused(tmp_path):
    rows = benchmark_rows()
    path = write_rows([*rows, rows[5]], tmp_path / "a.parquet")
    with pytest.raises(InputError, match="the id '1' more than once in the subset 'hep-python'"):
        benchmark_of({"path": str(path)})
    rows[2]["subset"] = "alpaca-easy"
    path = write_rows(rows, tmp_path / "b.parquet")
    with pytest.raises(InputError, match="row 3, column 'subset': found 'alpaca-easy'"):
        benchmark_of({"path": str(path)})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"section": "Chat"}, "column 'section': found 'Chat', expected 'Reasoning', which is Rew"),
        ({"subset": "all", "section": "X"}, "column 'subset': found 'all', expected a name"),
        ({"subset": "", "section": "X"}, "column 'subset': found '', expected a name"),
        ({"subset": "own", "section": "NA"}, "column 'section': found 'NA', expected a name"),
        ({"subset": "own", "section": " "}, "column 'section': found ' ', expected a name"),
        ({"subset": "own", "section": "A\nB"}, "column 'section': found 'A.nB', expected a name"),
        ({"subset": "own ", "section": "A"}, "column 'subset': found 'own ', expected a name"),
        ({"subset": "\ud800", "section": "A"}, "column 'subset': found the half character"),
        ({"id": True}, "column 'id': found True .bool., expected a text or an integer"),
    ],
)
def test_names_that_tables_would_lose_are_bad_rows(tmp_path, changes, says):
    rows = [{**row, "section": None} for row in benchmark_rows()]
    rows[4] |= changes
    path = write_rows(rows, tmp_path / "a.jsonl")
    with pytest.raises(InputError, match=f"row 5, {says}"):
        benchmark_of({"path": str(path)})
    frame, _ = benchmark_of({"path": str(path)}, bad_rows="drop")
    assert len(frame) == len(rows) - 1


def test_a_subset_lies_in_one_section(tmp_path):
    rows = [{**row, "subset": "own", "section": "A", "id": i} for i, row in enumerate(pairs(4))]
    rows[2]["section"] = "B"
    path = write_rows(rows, tmp_path / "a.jsonl")
    with pytest.raises(InputError, match="the subset 'own' in the sections 'A' and 'B'"):
        benchmark_of({"path": str(path)})


def test_the_embedded_world_is_a_source():
    frame, card = texts_of(0.1, {"world": "reviews", "rows": 200})
    assert card["sources"][0]["read"] == 200
    again, _ = texts_of(0.1, {"world": "reviews", "rows": 200})
    assert frame.equals(again)
    assert len(set(frame["text"])) > 150
    # Zipf's law unless it is said otherwise; 0 is said, as anything else is.
    law, _ = texts_of(0.1, {"world": "reviews", "rows": 200, "zipf": 1})
    flat, _ = texts_of(0.1, {"world": "reviews", "rows": 200, "zipf": 0})
    assert frame.equals(law) and not frame.equals(flat)
    rows = {"world": "benchmark", "rows": 30}
    assert not benchmark_of(rows)[0].equals(benchmark_of(rows | {"zipf": 0})[0])
    source = {"world": "reviews", "rows": 3, "zipf": 0.0}
    assert TextSettings(sources=[source]).model_dump()["sources"] == [source]
    frame, card = benchmark_of({"world": "benchmark", "rows": 80})
    assert len(card["subsets"]) >= 4 and len(card["sections"]) >= 4
