"""The data stage: every form of source and row against the same table, and what is refused."""

import json
import os
import subprocess
import sys
import timeit
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prudent import tables
from prudent.data.benchmark import build_benchmark
from prudent.data.labels import draw_labels
from prudent.data.preferences import build_preferences, contradictions, prompt_key
from prudent.data.rows import BadRow, clean, to_messages, to_pair
from prudent.data.settings import (
    BenchmarkSettings,
    PreferenceSettings,
    PromptSettings,
    Source,
    TextSettings,
)
from prudent.data.sources import Rows
from prudent.data.sources import read_source as read
from prudent.data.table import save
from prudent.data.texts import build_prompts, build_texts
from prudent.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
REAL = Path(os.environ.get("PRUDENT_DATA", ROOT.parent / "shared" / "data"))
real_data = pytest.mark.skipif(
    not (REAL / "rewardbench.parquet").is_file(),
    reason=f"the real data files are not in {REAL} (PRUDENT_DATA names their folder)",
)

# One dialogue of three turns and its two answers, in every form that is read.
DIALOGUE = [
    {"role": "user", "content": "Which films are good?"},
    {"role": "assistant", "content": "Which ones do you like?\n\nOld ones?"},
    {"role": "user", "content": "New ones."},
]
CHOSEN, REJECTED = "Try a comedy.", "I do not know."
HH = (
    "\n\nHuman: Which films are good?\n\nAssistant: Which ones do you like?\n\nOld ones?"
    "\n\nHuman: New ones.\n\nAssistant:"
)
SHAREGPT = [
    {"from": "human", "value": DIALOGUE[0]["content"]},
    {"from": "gpt", "value": DIALOGUE[1]["content"]},
    {"from": "human", "value": DIALOGUE[2]["content"]},
]


def said(text):
    return {"role": "assistant", "content": text}


FORMS = {
    "messages, texts": (DIALOGUE, CHOSEN, REJECTED),
    "messages, messages": (DIALOGUE, [said(CHOSEN)], [said(REJECTED)]),
    "messages, whole": (DIALOGUE, [*DIALOGUE, said(CHOSEN)], [*DIALOGUE, said(REJECTED)]),
    "from/value": (SHAREGPT, CHOSEN, [{"from": "gpt", "value": REJECTED}]),
    "open turn": ([*DIALOGUE, said("")], CHOSEN, REJECTED),
    "null open turn": ([*DIALOGUE, said(None)], CHOSEN, REJECTED),
    "array": (np.array(DIALOGUE, dtype=object), CHOSEN, REJECTED),
    "HH, texts": (HH, f" {CHOSEN}", f"{REJECTED}\n"),
    "HH without its first breaks": (HH.lstrip(), CHOSEN, REJECTED),
    "HH, whole": (HH, f"{HH} {CHOSEN}", f"{HH} {REJECTED}"),
    "whole messages alone": (None, [*DIALOGUE, said(CHOSEN)], [*DIALOGUE, said(REJECTED)]),
    "whole HH alone": (None, f"{HH} {CHOSEN}", f"{HH} {REJECTED}"),
    "turn in two messages": (
        [
            DIALOGUE[0],
            said("Which ones do you like?"),
            said("Old ones?"),
            DIALOGUE[2],
        ],
        CHOSEN,
        REJECTED,
    ),
}


def row_of(form):
    prompt, chosen, rejected = FORMS[form]
    row = {"chosen": chosen, "rejected": rejected}
    return row if prompt is None else {"prompt": prompt, **row}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_dialogue_gives_the_same_messages(form):
    assert to_pair(row_of(form)) == (DIALOGUE, CHOSEN, REJECTED)


def test_a_bare_prompt_is_one_user_message_and_keeps_its_white_space():
    # RewardBench's code rows: indentation belongs to the response.
    row = {"prompt": "def f(x):\n", "chosen": "    return x\n", "rejected": "    pass\n"}
    prompt, chosen, rejected = to_pair(row)
    assert prompt == [{"role": "user", "content": "def f(x):\n"}]
    assert (chosen, rejected) == ("    return x\n", "    pass\n")


def test_words_like_turns_inside_bare_texts_are_text():
    prompt = "Explain this log.\n\nHuman: hi\n\nAssistant: hello"
    assert to_messages(prompt) == [{"role": "user", "content": prompt}]
    answer = "\n\nHuman: another question"
    row = {"prompt": "Say it.", "chosen": answer, "rejected": "No."}
    assert to_pair(row)[1] == answer


def test_a_system_message_stays_and_an_empty_turn_in_the_middle_is_no_error():
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    assert to_messages(messages) == messages
    text = "\n\nHuman: Hi\n\nAssistant: \n\nHuman: Hello?\n\nAssistant:"
    assert [m["content"] for m in to_messages(text)] == ["Hi", "", "Hello?"]


BAD = {
    "missing prompt": ({"prompt": None}, "missing", "prompt"),
    "missing response": ({"chosen": None}, "missing", "chosen"),
    "nan response": ({"rejected": float("nan")}, "missing", "rejected"),
    "number": ({"rejected": 3}, "not_text", "rejected"),
    "bytes": ({"prompt": b"x"}, "not_text", "prompt"),
    "empty response": ({"chosen": " \n"}, "empty_response", "chosen"),
    "empty message": ({"chosen": [said("")]}, "empty_response", "chosen"),
    "equal": ({"chosen": "A. ", "rejected": "A."}, "equal_responses", "rejected"),
    "empty prompt": ({"prompt": "  "}, "empty_prompt", "prompt"),
    "no messages": ({"prompt": []}, "empty_prompt", "prompt"),
    "last turn empty": ({"prompt": "\n\nHuman: \n\nAssistant:"}, "empty_prompt", "prompt"),
    "assistant last": ({"prompt": [*DIALOGUE[:2]]}, "not_users_turn", "prompt"),
    "HH answered": ({"prompt": HH + " Fine."}, "not_users_turn", "prompt"),
    "unknown role": ({"prompt": [{"role": "tool", "content": "x"}]}, "unknown_role", "prompt"),
    "no content": ({"prompt": [{"role": "user"}]}, "not_messages", "prompt"),
    "parts": ({"prompt": [{"role": "user", "content": ["x"]}]}, "not_text", "prompt"),
    "half a character": ({"prompt": "a \ud83d film"}, "not_unicode", "prompt"),
    "half in a response": ({"chosen": "\udc00"}, "not_unicode", "chosen"),
    "half in a message": (
        {"prompt": [{"role": "user", "content": "\ud800"}]},
        "not_unicode",
        "prompt",
    ),
    "other dialogue": (
        {"chosen": [{"role": "user", "content": "Other"}, said("A.")]},
        "different_prompts",
        "chosen",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_says_why_and_where(case):
    change, reason, column = BAD[case]
    good = {"prompt": "Q?", "chosen": "A.", "rejected": "B."}
    assert to_pair(good)
    with pytest.raises(BadRow) as caught:
        to_pair({**good, **change})
    assert caught.value.reason == reason
    assert f"column {column!r}: found " in str(caught.value)
    assert ", expected " in str(caught.value)


def test_whole_dialogues_have_to_share_their_prompt():
    other = [{"role": "user", "content": "Other?"}, said("B.")]
    with pytest.raises(BadRow) as caught:
        to_pair({"chosen": [*DIALOGUE, said("A.")], "rejected": other})
    assert caught.value.reason == "different_prompts"
    with pytest.raises(BadRow) as caught:
        to_pair({"chosen": "just an answer", "rejected": "another"})
    assert caught.value.reason == "not_a_dialogue"


# ------------------------------------------------------------------------------------- sources


def pairs(count, start=0):
    numbers = range(start, start + count)
    return [
        {"prompt": f"Question {i}?", "chosen": f"Good {i}.", "rejected": f"Bad {i}."}
        for i in numbers
    ]


def write_rows(rows, path):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def settings(*sources, **changes):
    given = {"sharpness": 1.0, "label_noise": 0.0, "validation": 0.2, "judge": 0.0, **changes}
    return PreferenceSettings(sources=list(sources), **given)


def texts_of(validation, *sources):
    return build_texts(TextSettings(sources=list(sources), validation=validation), "refuse", 0)


def benchmark_of(*sources, bad_rows="refuse"):
    return build_benchmark(BenchmarkSettings(sources=list(sources)), bad_rows, 0)


def read_source(spec, required, optional=(), seed=0) -> Rows:
    places = {key: str(spec[key]) for key in ("path", "dataset") if key in spec}
    return read(Source(**spec | places), required, optional, seed)


def content(frame):
    return [(p[-1]["content"], c, r) for p, c, r in frame[["prompt", "chosen", "rejected"]].values]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


EXPECTED = [(r["prompt"], r["chosen"], r["rejected"]) for r in pairs(60)]


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "json", "csv"])
def test_files_of_every_ending_give_the_same_table(tmp_path, ending):
    path = write_rows(pairs(60), tmp_path / f"pairs.{ending}")
    frame, card = build_preferences(settings({"path": str(path)}), "refuse", 0)
    assert content(frame) == EXPECTED
    assert set(frame["source"]) == {"pairs"}
    assert frame["probability"].isna().all()
    assert card["sources"][0]["origin"] == str(path)


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
    with pytest.raises(InputError, match="columns.text` is no column of `preferences`"):
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
        ("a.csv", "", "a.csv: the file is empty"),
        ("a.csv", 'text\n"x', "a.csv: not a readable csv file"),
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


# ------------------------------------------------------------------------------ bad rows, cards


def spoiled(tmp_path):
    rows = pairs(100)
    rows[6]["rejected"] = " "
    rows[9]["chosen"] = None
    rows[12]["rejected"] = rows[12]["chosen"]
    rows[13] = dict(rows[12])
    rows[20] = dict(rows[19])
    return write_rows(rows, tmp_path / "pairs.jsonl")


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


def test_dropped_rows_are_counted_in_the_card(tmp_path):
    frame, card = build_preferences(
        settings({"path": str(spoiled(tmp_path))}, {"path": str(spoiled(tmp_path))}), "drop", 0
    )
    first, second = card["sources"]
    assert first["dropped"] == {"empty_response": 1, "missing": 1, "equal_responses": 2}
    assert (first["read"], first["duplicates"], first["kept"]) == (100, 1, 95)
    # The second source repeats the first.
    assert (second["duplicates"], second["kept"]) == (96, 0)
    assert card["rows"] == len(frame) == 95 == sum(card["splits"].values())
    assert card["splits"] == frame["split"].value_counts().to_dict()


def test_saved_table_reads_back_and_the_card_holds_its_digest(tmp_path):
    path = write_rows(pairs(60), tmp_path / "a.parquet")
    frame, card = build_preferences(settings({"path": str(path)}), "refuse", 0)
    save(frame, card, "preferences", tmp_path / "p.parquet", tmp_path / "p.card.json")
    again = tables.read_table(tmp_path / "p.parquet", "preferences")
    assert content(again) == EXPECTED
    assert again["probability"].isna().all()
    assert pq.read_table(tmp_path / "p.parquet")["probability"].null_count == 60
    written = json.loads((tmp_path / "p.card.json").read_text())
    assert written["sha256"] == tables.file_digest(tmp_path / "p.parquet")
    assert written["sources"] == card["sources"]
    # Nothing but the data decides the bytes.
    save(frame, card, "preferences", tmp_path / "q.parquet", tmp_path / "q.card.json")
    assert (tmp_path / "q.parquet").read_bytes() == (tmp_path / "p.parquet").read_bytes()


def test_nothing_left_is_refused(tmp_path):
    path = write_rows([{"text": "  "}, {"text": "<br />"}], tmp_path / "a.jsonl")
    with pytest.raises(InputError, match="found no row to keep.*2 rows read.*'empty_text': 2"):
        build_texts(TextSettings(sources=[{"path": str(path)}]), "drop", 0)


# -------------------------------------------------------------------------------------- splits


def test_a_prompts_split_does_not_hang_on_other_rows_or_their_order(tmp_path):
    rows = [{**row, "chosen": f"Good {k}."} for k in range(3) for row in pairs(300)]
    shares = {"validation": 0.25, "judge": 0.4}
    path = str(write_rows(rows, tmp_path / "a.parquet"))
    frame, _ = build_preferences(settings({"path": path}, **shares), "refuse", 0)
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:500]]
    path = str(write_rows(shuffled, tmp_path / "b.parquet"))
    other, _ = build_preferences(settings({"path": path}, **shares), "refuse", 0)

    splits = frame.assign(key=frame["prompt"].map(prompt_key)).groupby("key")["split"]
    assert (splits.nunique() == 1).all()
    one = splits.first()
    keys = other["prompt"].map(prompt_key)
    assert (one[keys].to_numpy() == other["split"].to_numpy()).all()
    # Shares of 300 prompts, within four standard deviations of 0.4, 0.6 * 0.25 and the rest.
    for split, share in {"judge": 0.4, "validation": 0.15, "train": 0.45}.items():
        assert (one == split).mean() == pytest.approx(
            share, abs=4 * (share * (1 - share) / 300) ** 0.5
        )
    # Another share of the judge leaves the split of the rest as it was; another seed does not.
    path = str(write_rows(rows, tmp_path / "c.parquet"))
    without, _ = build_preferences(settings({"path": path}, validation=0.25), "refuse", 0)
    rest = frame["split"] != "judge"
    assert (without["split"][rest] == frame["split"][rest]).all()
    seeded, _ = build_preferences(settings({"path": path}, validation=0.25), "refuse", 1)
    assert (seeded["split"] != without["split"]).any()


def test_the_same_prompt_in_two_forms_lands_in_one_split(tmp_path):
    plain = [{"prompt": f"Question {i}?\n", "chosen": "A", "rejected": "B"} for i in range(80)]
    turns = [
        {"prompt": f"\n\nHuman: Question {i}?\n\nAssistant:", "chosen": "C", "rejected": "D"}
        for i in range(80)
    ]
    sources = [
        {"path": str(write_rows(plain, tmp_path / "plain.jsonl"))},
        {"path": str(write_rows(turns, tmp_path / "turns.csv"))},
    ]
    frame, _ = build_preferences(settings(*sources), "refuse", 0)
    by_source = frame.groupby("source")["split"].apply(list)
    assert by_source["plain"] == by_source["turns"]
    assert set(by_source["plain"]) == {"train", "validation"}


def test_an_empty_split_is_refused(tmp_path):
    path = str(write_rows(pairs(3), tmp_path / "a.jsonl"))
    with pytest.raises(InputError, match="found no row in the split judge of 3 rows"):
        build_preferences(settings({"path": path}, judge=1e-9), "refuse", 0)


# --------------------------------------------------------------------------- texts and prompts


def reviews(count):
    rng = np.random.default_rng(5)
    words = "the film was a bright and naïve story of one café owner's long quiet year".split()
    return [
        {"text": f"Film {i}: <br /><br />" + " ".join(rng.choice(words, 20))} for i in range(count)
    ]


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    texts = [row["text"] for row in reviews(100)]
    bpe.train_from_iterator(texts, vocab_size=330, special_tokens=["<end>"], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<end>")


def test_texts_that_are_no_unicode_are_bad_rows(tmp_path):
    """As JSON has them after a broken escape: no file and no tokenizer takes them."""
    rows = [*reviews(60), {"text": "half a \ud83d character"}]
    path = write_rows(rows, tmp_path / "a.jsonl")
    with pytest.raises(
        InputError, match=r"row 61, column 'text': found the half character '.ud83d"
    ):
        texts_of(0.1, {"path": str(path)})
    chosen = TextSettings(sources=[{"path": str(path)}], validation=0.1)
    frame, card = build_texts(chosen, "drop", 0)
    assert card["sources"][0]["dropped"] == {"not_unicode": 1}
    save(frame, card, "texts", tmp_path / "t.parquet", tmp_path / "t.card.json")


def test_cleaning_takes_time_that_grows_with_the_text():
    """Runs of blanks and breaks: an expression for both at once took the square of it."""
    for unit in (" ", "\n", "<br>", " <br /> ", "<br", "<br ", "<"):
        times = []
        for size in (20_000, 160_000):
            text = "a" + unit * size + "b"
            times.append(min(timeit.repeat(lambda text=text: clean(text), number=1, repeat=3)))
        # Eight times the text: a square would be 64 times, about a minute for blanks.
        assert times[1] < 24 * times[0] + 0.05, unit


def test_line_breaks_become_one_space():
    assert clean(" A.<br /><br />B. <BR/> C<br>D ") == "A. B. C D"
    assert clean("x < br and 2 > 1") == "x < br and 2 > 1"
    assert clean("<br><br>A. \n<br />\t<br/> \nB.  C") == "A. B.  C" and clean(" <br> ") == ""


def test_texts_are_cleaned_split_and_each_stands_once(tmp_path):
    rows = reviews(200)
    path = write_rows([*rows, rows[3]], tmp_path / "r.parquet")
    frame, card = texts_of(0.3, {"path": str(path)})
    assert frame["text"].tolist() == [clean(row["text"]) for row in rows]
    assert not frame["text"].str.contains("<br").any()
    assert card["sources"][0]["duplicates"] == 1
    assert 0.15 < (frame["split"] == "validation").mean() < 0.45
    assert "line breaks" in card["cleaning"]


def prompt_settings(path, **changes):
    given = {"min_tokens": 3, "max_tokens": 6, "min_characters": 0, "test": 40, **changes}
    return PromptSettings(**{"sources": [{"path": str(path)}], **given})


def test_prompts_are_the_first_tokens_of_texts(tmp_path, tokenizer):
    path = write_rows(reviews(400), tmp_path / "r.jsonl")
    frame, card = build_prompts(prompt_settings(path), tokenizer, "refuse", 0)
    texts = [clean(row["text"]) for row in reviews(400)]
    assert all(any(text.startswith(prompt) for text in texts) for prompt in frame["prompt"])
    lengths = [len(tokenizer(p)["input_ids"]) for p in frame["prompt"]]
    assert lengths == frame["tokens"].tolist()
    assert set(lengths) == {3, 4, 5, 6}  # both ends
    assert frame["prompt"].is_unique
    assert (frame["split"] == "test").sum() == 40 == card["splits"]["test"]
    source = card["sources"][0]
    assert source["kept"] + source["duplicates"] + sum(source["dropped"].values()) == 400


def test_prompts_do_not_hang_on_the_order_of_rows(tmp_path, tokenizer):
    rows = reviews(300)
    first, _ = build_prompts(
        prompt_settings(write_rows(rows, tmp_path / "a.jsonl")), tokenizer, "refuse", 0
    )
    second, _ = build_prompts(
        prompt_settings(write_rows(rows[::-1], tmp_path / "b.jsonl")), tokenizer, "refuse", 0
    )
    columns = ["prompt", "tokens", "split"]
    assert set(map(tuple, first[columns].values)) == set(map(tuple, second[columns].values))
    seeded, _ = build_prompts(prompt_settings(tmp_path / "a.jsonl"), tokenizer, "refuse", 1)
    assert set(seeded["prompt"]) != set(first["prompt"])


def test_the_number_of_tokens_is_uniform(tmp_path, tokenizer):
    rows = [{"text": f"{i} {row['text']}"} for i, row in enumerate(reviews(4000))]
    path = write_rows(rows, tmp_path / "a.parquet")
    chosen = prompt_settings(path, min_tokens=8, max_tokens=11)
    frame, _ = build_prompts(chosen, tokenizer, "refuse", 0)
    counts = frame["tokens"].value_counts(normalize=True)
    # Standard deviation of a share of 1/4 in about 4,000 is 0.007.
    assert counts.sub(0.25).abs().max() < 0.035


def test_a_prompt_is_never_cut_inside_a_character(tmp_path, tokenizer):
    # Each of these characters is several tokens of this tokenizer.
    rows = [{"text": f"{i} " + "日本映画館前" * 3} for i in range(100)]
    path = write_rows(rows, tmp_path / "a.jsonl")
    frame, card = build_prompts(
        prompt_settings(path, min_tokens=2, max_tokens=9, test=5), tokenizer, "refuse", 0
    )
    assert not frame["prompt"].str.contains("\ufffd").any()
    assert card["sources"][0]["dropped"]["cut_inside_a_character_or_word_piece"] > 0


def test_a_text_that_would_be_its_own_prompt_is_dropped(tmp_path, tokenizer):
    whole = "the film was"
    count = len(tokenizer(whole)["input_ids"])
    rows = [*reviews(20), {"text": whole}]
    path = write_rows(rows, tmp_path / "a.jsonl")
    chosen = prompt_settings(path, min_tokens=count, max_tokens=count, test=5)
    frame, card = build_prompts(chosen, tokenizer, "refuse", 0)
    assert whole not in set(frame["prompt"])
    assert card["sources"][0]["dropped"]["too_few_tokens"] == 1


def test_texts_that_are_all_too_short_are_counted(tmp_path, tokenizer):
    path = write_rows([{"text": f"a{i}"} for i in range(9)], tmp_path / "a.jsonl")
    with pytest.raises(InputError, match="found no row to keep.*'too_few_tokens': 9"):
        build_prompts(prompt_settings(path, test=5), tokenizer, "refuse", 0)


def test_prompt_filters_are_counted_and_impossible_settings_refused(tmp_path, tokenizer):
    rows = [*reviews(60), {"text": "a"}, {"text": "the film"}]
    path = write_rows(rows, tmp_path / "a.jsonl")
    chosen = prompt_settings(path, min_characters=2, min_tokens=6, test=5)
    _, card = build_prompts(chosen, tokenizer, "refuse", 0)
    assert card["sources"][0]["dropped"]["below_min_characters"] == 1
    assert card["sources"][0]["dropped"]["too_few_tokens"] == 1
    with pytest.raises(InputError, match="found test 60, expected less than the"):
        build_prompts(prompt_settings(path, test=60), tokenizer, "refuse", 0)
    with pytest.raises(InputError, match="`min_tokens` is 7; expected at most `max_tokens`, 6"):
        prompt_settings(path, min_tokens=7)


# -------------------------------------------------------------------------------------- labels


def test_labels_follow_bradley_terry_with_flips():
    rng = np.random.default_rng(0)
    n = 40_000
    gold_a, gold_b = np.full(n, 0.9), np.full(n, 0.4)
    a_is_chosen, probability = draw_labels(gold_a, gold_b, 3.0, 0.1, rng)
    clean_probability = 1 / (1 + np.exp(-3.0 * 0.5))
    expected = 0.9 * clean_probability + 0.1 * (1 - clean_probability)
    assert probability == pytest.approx(np.full(n, expected), abs=1e-12)
    # Standard error 0.0021.
    assert a_is_chosen.mean() == pytest.approx(expected, abs=0.01)


def test_labels_at_the_limits():
    rng = np.random.default_rng(0)
    gold_a, gold_b = np.array([1.0, 0.0, 5.0]), np.array([0.0, 1.0, 5.0])
    with np.errstate(over="raise"):
        a_is_chosen, probability = draw_labels(gold_a, gold_b, 1e6, 0.0, rng)
    assert probability.tolist() == [1.0, 0.0, 0.5]
    assert a_is_chosen[:2].tolist() == [True, False]
    _, swapped = draw_labels(gold_b, gold_a, 2.0, 0.2, rng)
    _, probability = draw_labels(gold_a, gold_b, 2.0, 0.2, rng)
    assert swapped == pytest.approx(1 - probability, abs=1e-15)
    assert draw_labels(gold_a, gold_b, 2.0, 0.5, rng)[1] == pytest.approx([0.5] * 3)


WORDS = ("fine", "great", "dull", "awful", "")


def sampler(prompts, part):
    """Responses drawn from few words, so that some pairs are equal and some responses empty."""
    rng = np.random.default_rng(part)
    return [str(word) for word in rng.choice(WORDS, len(prompts))]


def word_gold(messages, responses):
    assert all(prompt[-1]["role"] == "user" for prompt in messages)
    return np.array([-float(WORDS.index(response)) for response in responses])


def test_sampled_pairs_are_labelled_by_gold():
    prompts = [f"A film of {i}" for i in range(1000)]
    frame, card = build_preferences(
        settings({"sampled": 2500}, sharpness=0.7, label_noise=0.2),
        "refuse",
        0,
        prompts,
        sampler,
        word_gold,
    )
    source = card["sources"][0]
    assert source["read"] == 2500
    assert source["duplicates"] == 0
    # Both responses empty counts as empty: P = 1 - (4/5)^2 = 0.36, equal and not: 4/25.
    assert source["dropped"]["empty_response"] == pytest.approx(2500 * 0.36, abs=100)
    assert source["dropped"]["equal_responses"] == pytest.approx(2500 * 0.16, abs=80)
    assert source["kept"] == len(frame) == 2500 - sum(source["dropped"].values())
    assert (frame["chosen"] != frame["rejected"]).all()

    margin = 0.7 * (
        word_gold(frame["prompt"], frame["chosen"]) - word_gold(frame["prompt"], frame["rejected"])
    )
    sigmoid = 1 / (1 + np.exp(-margin))
    assert frame["probability"].to_numpy() == pytest.approx(0.8 * sigmoid + 0.2 * (1 - sigmoid))
    # Labels were drawn: the rare side wins at its rate, E[1 - p_max] (standard error about 0.014).
    expected = np.minimum(frame["probability"], 1 - frame["probability"]).mean()
    assert (margin < 0).mean() == pytest.approx(expected, abs=0.06)
    # Every prompt comes up before any comes a third time.
    seen = pd.Series([p[-1]["content"] for p in frame["prompt"]]).value_counts()
    assert seen.max() <= 3


def test_real_pairs_are_labelled_anew(tmp_path):
    rows = [{"prompt": f"Film {i}", "chosen": "awful", "rejected": "fine"} for i in range(200)]
    path = str(write_rows([*rows, rows[0]], tmp_path / "a.jsonl"))
    chosen = settings({"path": path, "relabel": True}, sharpness=1e3)
    frame, card = build_preferences(chosen, "refuse", 0, gold=word_gold)
    assert set(frame["chosen"]) == {"fine"} and set(frame["rejected"]) == {"awful"}
    assert frame["probability"].tolist() == [1.0] * 200
    assert card["sources"][0]["duplicates"] == 1
    given, _ = build_preferences(settings({"path": path}), "refuse", 0, gold=word_gold)
    assert set(given["chosen"]) == {"awful"} and given["probability"].isna().all()


def test_labelling_without_its_means_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected prompts and the reference policy"):
        build_preferences(settings({"sampled": 5}), "refuse", 0, gold=word_gold)
    path = str(write_rows(pairs(60), tmp_path / "a.jsonl"))
    with pytest.raises(InputError, match="expected `gold:` to name the scorer"):
        build_preferences(settings({"path": path, "relabel": True}), "refuse", 0)

    def broken(messages, responses):
        return np.full(len(responses), np.nan)

    with pytest.raises(InputError, match="gold gave nan to a response.*Question 0"):
        build_preferences(settings({"path": path, "relabel": True}), "refuse", 0, gold=broken)


def test_pairs_that_contradict_each_other_are_counted_and_dropped_on_demand(tmp_path):
    rows = pairs(60)
    rows[3] = {"prompt": " Question 2? ", "chosen": "Bad 2.", "rejected": "Good 2. "}
    rows[7] = {"prompt": "Question 8?", "chosen": "Bad 8.", "rejected": "Good 9."}
    path = {"path": str(write_rows(rows, tmp_path / "a.jsonl"))}
    frame, card = build_preferences(settings(path), "refuse", 0)
    assert card["contradictions"] == 2 and len(frame) == card["rows"] == 60
    assert frame.index[contradictions(frame)].tolist() == [2, 3]
    kept, card = build_preferences(settings(path, contradictions="drop"), "refuse", 0)
    assert card["contradictions"] == 2 and card["rows"] == len(kept) == 58
    assert kept["chosen"].tolist() == frame["chosen"].drop([2, 3]).tolist()
    assert sum(card["splits"].values()) == 58
    none = write_rows([rows[2], rows[3]], tmp_path / "b.jsonl")
    with pytest.raises(InputError, match="found 2 pairs that contradict each other and no others"):
        build_preferences(settings({"path": str(none)}, contradictions="drop"), "refuse", 0)


# ----------------------------------------------------------------------------------- benchmark


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
    frame, card = benchmark_of({"world": "benchmark", "rows": 80})
    assert len(card["subsets"]) >= 4 and len(card["sections"]) >= 4


# --------------------------------------------------------------------------- scripts, real files


def test_a_script_runs_by_hand_and_prints_one_message(tmp_path):
    path = write_rows(reviews(60), tmp_path / "r.jsonl")
    command = [
        sys.executable,
        str(ROOT / "workflow_scripts" / "prepare_texts.py"),
        f"--texts={tmp_path / 'out' / 'texts.parquet'}",
        f"--card={tmp_path / 'out' / 'texts.card.json'}",
        "--bad-rows=refuse",
        "--seed=0",
    ]
    given = json.dumps({"sources": [{"path": str(path)}], "validation": 0.2})
    subprocess.run([*command, f"--settings={given}"], check=True)
    assert len(tables.read_table(tmp_path / "out" / "texts.parquet", "texts")) == 60
    given = json.dumps({"sources": [{"path": str(tmp_path / "none.jsonl")}]})
    failed = subprocess.run([*command, f"--settings={given}"], capture_output=True, text=True)
    assert failed.returncode == 1
    assert "none.jsonl: there is no such file" in failed.stderr
    assert "Traceback" not in failed.stderr


@real_data
def test_real_preferences_and_benchmark_are_read_whole():
    sources = [
        {"path": str(REAL / "preferences_hh_helpful.parquet")},
        {"path": str(REAL / "preferences_alpaca_eval_direct.parquet"), "rows": 2000},
    ]
    frame, card = build_preferences(settings(*sources, judge=0.3), "refuse", 0)
    assert [source["kept"] for source in card["sources"]] == [6195, 2000]
    splits = frame.assign(key=frame["prompt"].map(prompt_key)).groupby("key")["split"]
    assert (splits.nunique() == 1).all()
    assert not frame["chosen"].str.contains("\n\nHuman:", regex=False).any()
    roles = {tuple(m["role"] for m in prompt) for prompt in frame["prompt"]}
    assert all(pair == ("user", "assistant") * (len(pair) // 2) + ("user",) for pair in roles)

    source = {"path": str(REAL / "rewardbench.parquet")}
    given, card = benchmark_of(source)
    assert card["sections"] == {"Chat": 358, "Chat Hard": 456, "Safety": 740, "Reasoning": 1431}
    original = pd.read_parquet(REAL / "rewardbench.parquet")
    assert given["chosen"].tolist() == original["chosen"].tolist()
    assert given["section"].tolist() == original["section"].tolist()


@real_data
def test_real_reviews_become_texts_and_prompts(tokenizer):
    source = {"path": str(REAL / "imdb_train.parquet"), "rows": 2000}
    texts, _ = texts_of(0.05, source)
    assert not texts["text"].str.contains("<br", regex=False).any()
    chosen = prompt_settings("", sources=[source], min_tokens=2, max_tokens=8, min_characters=201)
    frame, _ = build_prompts(chosen, tokenizer, "refuse", 0)
    assert frame["tokens"].between(2, 8).all()
    assert frame["prompt"].is_unique
