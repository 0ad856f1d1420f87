"""The command ``prudent audit``, from a file to its page and numbers, and the rule beside it."""

import json
import sys

import audit_rewards
import numpy as np
import pandas as pd
import pytest
from html_pages import check, check_closed
from tiny_audit import make_scores, write_scores

from prudent.__main__ import main
from prudent.audit import command
from prudent.audit.measures import COLUMNS, audit_table
from prudent.audit.scores import read_scores
from prudent.errors import InputError
from prudent.schemas import CSV_SCHEMAS
from prudent.tables import file_digest, read_csv, write_parquet


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    scores = make_scores(60, members=3, parts=True)
    return write_scores(scores, tmp_path_factory.mktemp("scores") / "scores.parquet")


def reject(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_from_a_file_to_a_page_and_its_numbers(file, tmp_path, capsys):
    main(["audit", str(file), "--output", str(tmp_path / "a/b"), "--seed", "7"])
    told = capsys.readouterr()
    assert f"The page: {tmp_path / 'a/b/audit.html'}" in told.out and told.err == ""
    assert sorted(path.name for path in (tmp_path / "a/b").iterdir()) == [
        "audit.csv",
        "audit.html",
        "audit.json",
    ]
    html = (tmp_path / "a/b/audit.html").read_text(encoding="utf-8")
    check(html)
    check_closed(html)
    assert file_digest(file) in html
    numbers = json.loads((tmp_path / "a/b/audit.json").read_text(), parse_constant=reject)
    assert (numbers["pairs"], numbers["members"]) == (60, 3)
    assert numbers["settings"] == {"scores": "scores.parquet", "seed": 7}
    assert numbers["inputs"] == {"scores": file_digest(file)} and "python" in numbers["versions"]
    assert list(numbers["table"][0]) == sorted(COLUMNS)
    assert numbers["table"][0]["section"] == "all" and numbers["table"][0]["p"] is None
    assert all(sentence in told.out for sentence in numbers["summary"])
    table = read_csv(tmp_path / "a/b/audit.csv", "audit")
    assert list(table.columns) == COLUMNS == list(CSV_SCHEMAS["audit"])
    pd.testing.assert_frame_equal(table, audit_table(read_scores(file), 7))


def test_the_same_file_gives_the_same_bytes(file, tmp_path):
    for name in "ab":
        command.audit(file, tmp_path / name)
    for name in ("audit.csv", "audit.html", "audit.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_scores_that_point_the_wrong_way_are_json(tmp_path):
    scores = make_scores(8, members=1)
    scores.chosen_scores[:] = -1.0
    command.audit(write_scores(scores, tmp_path / "s.parquet"), tmp_path / "out")
    numbers = json.loads((tmp_path / "out/audit.json").read_text(), parse_constant=reject)
    assert "inf" in [row["value"] for row in numbers["table"]]
    assert np.inf in read_csv(tmp_path / "out/audit.csv", "audit")["value"].tolist()


def write_tables(scores, folder):
    """The same as ``write_scores``, as the tables of a scenario; another draw has other rewards."""
    keys = {"id": list(map(str, range(len(scores.prompts))))}
    keys |= {"subset": scores.subset, "section": scores.section}
    texts = {"prompt": scores.prompts, "chosen": scores.chosen, "rejected": scores.rejected}
    write_parquet(pd.DataFrame(keys | texts), folder / "benchmark.parquet", "benchmark")
    sides = {"chosen": scores.chosen_scores, "rejected": scores.rejected_scores}
    parts = [
        pd.DataFrame(keys).assign(side=side, ensemble=draw, head=head, reward=reward)
        for side, table in sides.items()
        for draw, head, reward in (
            *((0, k, table[:, k]) for k in range(table.shape[1])),
            *((draw, draw, table[:, 0] + table[::-1, 0]) for draw in (-1, 1)),
        )
    ]
    write_parquet(pd.concat(parts), folder / "scores.parquet", "scores")


@pytest.mark.parametrize(("pairs", "members"), [(60, 3), (30, 1), (2, 2), (1, 1)])
def test_the_rule_says_of_a_benchmark_what_the_command_says_of_a_file(tmp_path, pairs, members):
    scores = make_scores(pairs, members=members, parts=True)
    file = write_scores(scores, tmp_path / "file.parquet")
    command.audit(file, tmp_path / "file", seed=7)
    write_tables(scores, tmp_path)
    audit_rewards.main(
        audit_rewards.Args(
            scores=tmp_path / "scores.parquet",
            benchmark=tmp_path / "benchmark.parquet",
            page=tmp_path / "rule/audit.html",
            table=tmp_path / "rule/audit.csv",
            numbers=tmp_path / "rule/audit.json",
            scenario="small",
            ensemble="heads",
            seed=7,
        )
    )
    found, expected = (
        json.loads((tmp_path / name / "audit.json").read_text()) for name in ("rule", "file")
    )
    for name in ("table", "summary", "pairs", "members"):
        assert found[name] == expected[name]
    names = {"scores": "scores.parquet", "benchmark": "benchmark.parquet"}
    facts = {"scenario": "small", "ensemble": "heads, its first draw", "seed": 7}
    assert found["settings"] == names | facts
    assert found["inputs"] == {name: file_digest(tmp_path / of) for name, of in names.items()}
    pages = [(tmp_path / name / "audit.html").read_text() for name in ("rule", "file")]
    check(pages[0])
    check_closed(pages[0])
    bodies = [page.split('<h2 id="provenance">')[0] for page in pages]
    assert bodies[0] == bodies[1]
    text = " ".join(check(pages[0]).text.split())
    assert "scenario small ensemble heads, its first draw scores scores.parquet, SHA-256" in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "there is no such file"),
        ("prompt,chosen,rejected,chosen_0\na,b,c,1\n", "rejected"),
        (
            "prompt,chosen,rejected,chosen_0,rejected_0\na,b,c,1,2\nd,e,f,x,2\n",
            "row 2, column 'chosen_0': found 'x', expected a finite number",
        ),
    ],
)
def test_a_bad_file_is_one_line_and_status_1(tmp_path, capsys, text, says):
    path = tmp_path / "scores.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SystemExit) as ended:
        main(["audit", str(path), "--output", str(tmp_path / "out")])
    told = capsys.readouterr()
    assert ended.value.code == 1 and told.out == ""
    assert told.err.startswith(f"error: {path}: ") and says in told.err
    assert told.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_place_that_is_no_folder(file):
    with pytest.raises(InputError, match="not a folder to write to"):
        command.audit(file, file)


def test_without_matplotlib_it_says_what_to_install(file, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("prudent.audit.figures", "prudent.figures.style"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(InputError, match=r"pip install 'prudent\[figures\]'"):
        command.audit(file, tmp_path)


def test_the_help_tells_the_form_of_the_file(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["audit", "--help"])
    told = capsys.readouterr().out
    assert ended.value.code == 0
    for word in (
        "prompt",
        "chosen_0",
        "score_rejected",
        "subset",
        "audit.json",
        "--seed",
        "--model",
        "RewardBench 2",
    ):
        assert word in told
    assert max(map(len, told.splitlines())) <= 100
