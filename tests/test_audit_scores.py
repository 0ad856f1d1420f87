"""The file of an audit: its forms, and what is said of bad ones."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_audit import best_of_four, write_lines

from prudent.audit.scores import NORM, UNTRAINED, read_scores, scores_of_draw
from prudent.errors import InputError

CHOSEN = [[1.0, 2.5], [0.25, -1.0], [3.0, 0.0]]
REJECTED = [[0.5, 3.0], [0.0, 0.0], [-1.0, 1.0]]


def rows(lists=False) -> list[dict]:
    """Three pairs with the scores of two members."""
    result = []
    for number, (chosen, rejected) in enumerate(zip(CHOSEN, REJECTED, strict=True)):
        row = {"prompt": f"ask {number}", "chosen": f"good {number}", "rejected": f"bad {number}"}
        if lists:
            row |= {"score_chosen": chosen, "score_rejected": rejected}
        else:
            row |= {f"chosen_{k}": score for k, score in enumerate(chosen)}
            row |= {f"rejected_{k}": score for k, score in enumerate(rejected)}
        result.append(row)
    return result


def write(records: list[dict], path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    elif path.suffix == ".csv":
        pd.DataFrame(records).to_csv(path, index=False)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_every_form_in_every_file(tmp_path, kind, lists):
    found = read_scores(write(rows(lists), tmp_path / f"scores.{kind}"))
    np.testing.assert_array_equal(found.chosen_scores, CHOSEN)
    np.testing.assert_array_equal(found.rejected_scores, REJECTED)
    np.testing.assert_array_equal(found.margins, np.subtract(CHOSEN, REJECTED))
    assert found.chosen_scores.dtype == np.float64
    assert found.prompts[1] == [{"role": "user", "content": "ask 1"}]
    assert (found.chosen[2], found.rejected[2]) == ("good 2", "bad 2")
    assert found.subset is None and found.section is None


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_one_reward_model(tmp_path, kind):
    records = [row | {"score_chosen": 2, "score_rejected": 1.5} for row in rows(lists=True)]
    found = read_scores(write(records, tmp_path / f"scores.{kind}"))
    np.testing.assert_array_equal(found.margins, [[0.5]] * 3)


def test_other_types_of_numbers_and_members_beyond_ten(tmp_path):
    records = [
        row | {f"{s}_{k}": float(k) for s in ("chosen", "rejected") for k in range(12)}
        for row in rows()
    ]
    table = pa.Table.from_pylist(records)
    for name, kind in (("chosen_10", pa.float16()), ("chosen_3", pa.decimal128(4, 2))):
        place = table.column_names.index(name)
        table = table.set_column(place, name, table[name].cast(kind))
    pq.write_table(table, tmp_path / "scores.parquet")
    found = read_scores(tmp_path / "scores.parquet")
    np.testing.assert_array_equal(found.chosen_scores, [np.arange(12.0)] * 3)


def test_messages_and_names(tmp_path):
    prompt = [{"role": "system", "content": "be"}, {"role": "user", "content": "ask"}]
    records = [
        row | {"prompt": prompt, "subset": "s", "section": "A", "id": index}
        for index, row in enumerate(rows())
    ]
    found = read_scores(write(records, tmp_path / "scores.parquet"))
    assert found.prompts == [prompt] * 3
    assert found.subset == ["s"] * 3 and found.section == ["A"] * 3


def test_subsets_of_rewardbench_have_its_sections(tmp_path):
    names = ["math-prm", "hep-go", "mt-bench-hard"]
    records = [row | {"subset": name} for row, name in zip(rows(), names, strict=True)]
    found = read_scores(write(records, tmp_path / "scores.jsonl"))
    assert found.section == ["Reasoning", "Reasoning", "Chat Hard"]
    records[0]["subset"] = "mine"
    assert read_scores(write(records, tmp_path / "scores.jsonl")).section is None


def test_ids_may_be_the_same_in_two_subsets(tmp_path):
    records = [row | {"subset": f"s{index}", "id": 7} for index, row in enumerate(rows())]
    assert read_scores(write(records, tmp_path / "scores.jsonl")).subset == ["s0", "s1", "s2"]


def changed(row: int, lists: bool = False, **values) -> list[dict]:
    records = rows(lists)
    records[row] |= values
    return records


def without(*names: str, lists: bool = False) -> list[dict]:
    return [{key: row[key] for key in row if key not in names} for row in rows(lists)]


def with_all(lists: bool = False, **values) -> list[dict]:
    return [
        row | {name: of[index] for name, of in values.items()}
        for index, row in enumerate(rows(lists))
    ]


BAD = {
    "no prompt": (without("prompt"), ["row 1", "'chosen'", "'good 0'", "no column named prompt"]),
    "no response": (without("rejected"), ["'rejected'", "missing"]),
    "no members": (
        without("chosen_0", "chosen_1", "rejected_0", "rejected_1"),
        ["no members", "chosen_0"],
    ),
    "no members in lists": (
        with_all(True, score_chosen=[[]] * 3, score_rejected=[[]] * 3),
        ["row 1", "'score_chosen'", "an empty list", "at least one"],
    ),
    "one side": (without("score_rejected", lists=True), ["'score_rejected'", "alone"]),
    "one side's columns": (without("rejected_0", "rejected_1"), ["2 column(s)", "0 for rejected"]),
    "a column less": (without("rejected_1"), ["1 for rejected", "'rejected_1'", "0 to 1"]),
    "a gap": (without("chosen_0", "rejected_0"), ["'chosen_0'"]),
    "two forms": (with_all(score_chosen=[1, 2, 3]), ["'score_chosen'", "one form"]),
    "other sides": (
        changed(1, True, score_rejected=[1.0]),
        ["row 2", "'score_rejected'", "found 1 member(s)", "expected 2 as in 'score_chosen'"],
    ),
    "ragged": (
        changed(2, True, score_chosen=[1.0], score_rejected=[1.0]),
        ["row 3", "'score_chosen'", "found 1 member(s)", "expected 2 as in row 1"],
    ),
    "no value": (changed(1, chosen_1=None), ["row 2", "'chosen_1'", "no value", "finite number"]),
    "not a number": (changed(1, rejected_0="high"), ["row 2", "'rejected_0'", "'high'"]),
    "a truth": (changed(0, rejected_0=True), ["row 1", "'rejected_0'", "True"]),
    "a text in a list": (
        changed(2, True, score_chosen=[1.0, "x"]),
        ["row 3", "'score_chosen'", "'x'"],
    ),
    "a list in a column": (changed(0, chosen_0=[1.0]), ["row 1", "'chosen_0'", "[1.0]"]),
    "nan": (changed(2, chosen_0=float("nan")), ["row 3", "'chosen_0'", "nan", "finite"]),
    "infinite": (changed(2, chosen_0=float("-inf")), ["row 3", "'chosen_0'", "-inf", "finite"]),
    "beyond floats": (changed(2, chosen_0=10**400), ["row 3", "'chosen_0'", "finite"]),
    "an empty response": (changed(1, rejected=" "), ["row 2", "'rejected'", "empty"]),
    "no text": (changed(1, chosen=5), ["row 2", "'chosen'", "5 (int)"]),
    "a bad prompt": (changed(0, prompt=[{"role": "boss", "content": "x"}]), ["row 1", "boss"]),
    "the same id": (with_all(id=["a", "b", "a"]), ["row 3", "'id'", "'a'", "row 1", "once"]),
    "the same id in a subset": (
        with_all(subset=["s", "t", "t"], id=[1, 2, 2]),
        ["row 3", "'id'", "2 (int)", "row 2"],
    ),
    "no id": (with_all(id=["a", None, "c"]), ["row 2", "'id'", "no value"]),
    "no subset": (with_all(subset=["a", "a", None]), ["row 3", "'subset'", "no value"]),
    "a reserved name": (with_all(subset=["a", "all", "b"]), ["row 2", "'subset'", "'all'"]),
    "a subset in two sections": (
        with_all(subset=["a", "b", "a"], section=["X", "X", "Y"]),
        ["row 3", "'section'", "'Y'", "expected 'X'", "'a'"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path, name):
    records, words = BAD[name]
    path = write(records, tmp_path / "scores.jsonl")
    with pytest.raises(InputError) as raised:
        read_scores(path)
    message = str(raised.value)
    assert message.startswith(str(path))
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("", "no value"),
        ("high", "'high'"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("[1, 2", "'[1, 2'"),
    ],
)
def test_bad_cells_of_csv(tmp_path, cell, words):
    path = tmp_path / "scores.csv"
    path.write_text(
        f"prompt,chosen,rejected,chosen_0,rejected_0\na,b,c,1,2\nd,e,f,2,{cell!r}\n".replace(
            "'", '"'
        )
    )
    with pytest.raises(InputError, match="row 2, column 'rejected_0'") as raised:
        read_scores(path)
    assert words in str(raised.value) and "expected a finite number" in str(raised.value)


def test_files_without_rows(tmp_path):
    table = pa.Table.from_pylist(rows()).slice(0, 0)
    pq.write_table(table, tmp_path / "scores.parquet")
    with pytest.raises(InputError, match="no rows"):
        read_scores(tmp_path / "scores.parquet")
    (tmp_path / "scores.csv").write_text("prompt,chosen,rejected,chosen_0,rejected_0\n")
    with pytest.raises(InputError, match="no rows"):
        read_scores(tmp_path / "scores.csv")


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_scores(tmp_path / "scores.parquet")
    (tmp_path / "scores.pkl").touch()
    with pytest.raises(InputError, match="ending"):
        read_scores(tmp_path / "scores.pkl")


# --- Lists of responses


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_each_chosen_response_makes_a_pair_with_each_rejected_one(tmp_path, kind):
    records, path = best_of_four(questions=1, ties=2), tmp_path / f"s.{kind}"
    known = [len(row["chosen"]) * len(row["rejected"]) for row in records]
    values = np.arange(1.0, sum(known) + 1)
    for row, part in zip(records, np.split(values, np.cumsum(known)[:-1]), strict=True):
        row |= {NORM: part.tolist(), UNTRAINED: (2 * part).tolist()}
    found = read_scores(write(records, path))
    expected = [
        (row["prompt"], a, b, number, row["subset"], *scores)
        for number, row in enumerate(records, 1)
        for i, a in enumerate(row["chosen"])
        for j, b in enumerate(row["rejected"])
        for scores in [[row[f"chosen_{k}"][i] - row[f"rejected_{k}"][j] for k in range(2)]]
    ]
    assert len(expected) == 2 * 3 + (2 + 3) * 2 + 2 * 2
    prompts = [prompt[0]["content"] for prompt in found.prompts]
    pairs = zip(prompts, found.chosen, found.rejected, found.numbers, found.subset, strict=True)
    assert list(pairs) == [row[:5] for row in expected]
    np.testing.assert_array_equal(found.margins, [row[5:] for row in expected])
    np.testing.assert_array_equal(found.norm, values)
    np.testing.assert_array_equal(found.untrained, 2 * values)
    assert [choice.pair for choice in found.choices] == [0, 3, 6, 10, 16, 18]
    ties = [None, None, ("tied", 0), ("tied", 1), ("ref", 0), ("ref", 1)]
    assert [choice.tie for choice in found.choices] == ties
    for choice, row in zip(found.choices, records, strict=True):
        np.testing.assert_array_equal(choice.chosen.T, [row["chosen_0"], row["chosen_1"]])
        np.testing.assert_array_equal(choice.rejected.T, [row["rejected_0"], row["rejected_1"]])


def changed_list(**values) -> list[dict]:
    """Rows of lists, the second of which has other values."""
    records = best_of_four(1, 0)
    records[1] |= values
    return records


BAD_LISTS = {
    "too few scores": (
        changed_list(rejected_1=[1.0, 2.0]),
        "row 2, column 'rejected_1': found a list of 2, expected 3, one for each response in 'rej",
    ),
    "too many": (changed_list(chosen_0=[1.0, 2.0]), "row 2, column 'chosen_0': found a list of 2"),
    "a number": (
        changed_list(chosen_1=1.0),
        "row 2, column 'chosen_1': found 1.0 (float), expected a list of 1 number(s)",
    ),
    "nan": (
        changed_list(rejected_0=[1.0, float("nan"), 2.0]),
        "row 2, column 'rejected_0': found nan (float), expected a finite number",
    ),
    "no value": (changed_list(chosen_0=None), "row 2, column 'chosen_0': found None"),
    "lists of members": (
        [
            {key: of for key, of in row.items() if key[-2:] not in ("_0", "_1")}
            | {"score_chosen": [1.0], "score_rejected": [1.0, 2.0, 3.0]}
            for row in best_of_four(1, 0)
        ],
        "found the column 'score_chosen' beside lists of responses, expected chosen_0",
    ),
    "norms of other pairs": (
        [row | {NORM: [1.0]} for row in best_of_four(1, 0)],
        "row 1, column 'feature_norm': found a list of 1, expected 3, one for each pair",
    ),
    "negative norms": (
        [row | {NORM: -1.0} for row in rows()],
        "row 1, column 'feature_norm': found -1.0 (float), expected a number of at least 0",
    ),
    "no spread": (
        [row | {UNTRAINED: None} for row in rows()],
        "row 1, column 'untrained_spread': found no value, expected a finite number",
    ),
}


@pytest.mark.parametrize("name", BAD_LISTS)
def test_bad_lists(tmp_path, name):
    records, words = BAD_LISTS[name]
    path = write_lines(records, tmp_path / "scores.jsonl")
    with pytest.raises(InputError) as raised:
        read_scores(path)
    assert str(raised.value).startswith(f"{path}: {words}")


def test_scores_of_judgebench_are_of_the_better_response_first(tmp_path):
    row = {"question": "ask", "response_A": "bad", "response_B": "good", "label": "B>A"}
    path = write_lines([row | {"chosen_0": 2.0, "rejected_0": 0.5}], tmp_path / "s.jsonl")
    found = read_scores(path)
    assert (found.chosen, found.rejected, found.margins) == (["good"], ["bad"], [[1.5]])


def test_a_file_without_scores_hints_at_models(tmp_path):
    path = write_lines(
        without("chosen_0", "chosen_1", "rejected_0", "rejected_1"), tmp_path / "s.jsonl"
    )
    with pytest.raises(InputError, match="--model"):
        read_scores(path)


def test_rows_are_numbered_as_in_the_file(tmp_path):
    lines = [json.dumps(row) for row in rows()]
    (tmp_path / "s.jsonl").write_text("\n\n".join(lines))
    assert read_scores(tmp_path / "s.jsonl").numbers == [1, 3, 5]


# --- The tables of a scenario


def benchmark(numbers=(0, 1, 2)):
    """Pairs that have one id in two subsets."""
    keys = [("s", "a", "x"), ("s", "b", "x"), ("t", "c", "y")]
    table = pd.DataFrame([keys[n] for n in numbers], columns=["section", "subset", "id"])
    prompts = [[{"role": "user", "content": f"ask {n}"}] for n in numbers]
    texts = {side: [f"{side} {n}" for n in numbers] for side in ("chosen", "rejected")}
    return table.assign(prompt=prompts, **texts)


def rewards(draws=(0, 1)):
    """Those of two members, and a hundred more in another draw; the base model says 99."""
    table = benchmark()[["id", "subset", "section"]]
    parts = []
    for side, scores in (("chosen", CHOSEN), ("rejected", REJECTED)):
        parts.append(table.assign(side=side, ensemble=-1, head=-1, reward=99.0))
        for draw in draws:
            for head in range(2):
                reward = [100 * draw + row[head] for row in scores]
                parts.append(table.assign(side=side, ensemble=draw, head=head, reward=reward))
    return pd.concat(parts, ignore_index=True)


def test_the_members_of_a_draw_on_a_benchmark_in_the_benchmarks_order():
    order = [2, 0, 1]
    shuffled = rewards().sample(frac=1, random_state=0)
    found = scores_of_draw(shuffled, benchmark(order))
    np.testing.assert_array_equal(found.chosen_scores, np.array(CHOSEN)[order])
    np.testing.assert_array_equal(found.rejected_scores, np.array(REJECTED)[order])
    assert (
        found.chosen == ["chosen 2", "chosen 0", "chosen 1"] and found.rejected[0] == "rejected 2"
    )
    assert found.prompts[0] == [{"role": "user", "content": "ask 2"}]
    assert (found.subset, found.section) == (["c", "a", "b"], ["t", "s", "s"])
    other = scores_of_draw(rewards(), benchmark(), draw=1)
    np.testing.assert_array_equal(other.chosen_scores, np.array(CHOSEN) + 100)


def test_tables_that_do_not_belong_together_are_refused():
    with pytest.raises(InputError, match="found rewards of 3 pairs, expected those of the benchm"):
        scores_of_draw(rewards(), benchmark([0, 1]))
    other = benchmark().replace({"id": {"y": "z"}})
    with pytest.raises(InputError, match="expected those of the benchmark's 3, known by section"):
        scores_of_draw(rewards(), other)
    with pytest.raises(InputError, match=r"found the draws \[-1, 1\], expected 0 among them"):
        scores_of_draw(rewards([1]), benchmark())
