"""Texts and the prompts cut from them."""

import time
import timeit
from functools import partial

import pytest
from tiny_data import REAL, real_data, reviews, texts_of, write_rows

from prudent.data.rows import clean, to_messages
from prudent.data.settings import PromptSettings, TextSettings
from prudent.data.table import save
from prudent.data.texts import build_prompts, build_texts
from prudent.errors import InputError

pytestmark = pytest.mark.usefixtures("own_cache")


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


def seconds(work) -> float:
    """A work's least time of three, without what other processes take of the cores."""
    return min(timeit.repeat(work, timer=time.process_time, number=1, repeat=3))


def test_cleaning_takes_time_that_grows_with_the_text():
    """Runs of blanks and breaks: an expression for both at once took the square of it."""
    for unit in (" ", "\n", "<br>", " <br /> ", "<br", "<br ", "<"):
        times = []
        for size in (20_000, 160_000):
            text = "a" + unit * size + "b"
            times.append(seconds(partial(clean, text)))
        # Eight times the text: a square would be 64 times, about a minute for blanks.
        assert times[1] < 24 * times[0] + 0.05, unit


def test_reading_turns_takes_time_that_grows_with_their_number():
    """Turns of one speaker become one message: added one by one, they took the square of it."""
    turn = "\n\nHuman: a few words of one turn"
    few, many = (seconds(partial(to_messages, turn * n)) for n in (20_000, 160_000))
    # Eight times the turns: a square would be 64 times, a minute and more.
    assert many < 24 * few + 0.05


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


@real_data
def test_real_reviews_become_texts_and_prompts(tokenizer):
    source = {"path": str(REAL / "imdb_train.parquet"), "rows": 2000}
    texts, _ = texts_of(0.05, source)
    assert not texts["text"].str.contains("<br", regex=False).any()
    chosen = prompt_settings("", sources=[source], min_tokens=2, max_tokens=8, min_characters=201)
    frame, _ = build_prompts(chosen, tokenizer, "refuse", 0)
    assert frame["tokens"].between(2, 8).all()
    assert frame["prompt"].is_unique
