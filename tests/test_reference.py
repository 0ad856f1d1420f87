"""The reference policy: its tokenizer, training from scratch, fine-tuning, and copying."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import EOS, tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel

from prudent.errors import InputError
from prudent.policies.reference import ReferenceSettings, make_reference, train_tokenizer
from prudent.tables import file_digest
from prudent.world.reviews import reviews

SETTINGS = ReferenceSettings(
    layers=1,
    width=16,
    heads=2,
    vocabulary=400,
    context=24,
    epochs=4,
    batch_size=8,
    learning_rate=1e-2,
)
UNICODE = [
    "the film is not very good.",
    "  two  spaces , a comma ,and n't 's\ttabs\r\n\n",
    "Zoë's naïve café — “quoted” … ½ ﬁ",
    "日本語の映画, кино, العربية, हिन्दी",
    "👩‍👩‍👧‍👦 🇫🇷 e\u0301 \u200b \ufeff \x00 \U0010ffff",
    "",
]


@pytest.fixture(scope="module")
def texts() -> pd.DataFrame:
    drawn = reviews(72, np.random.default_rng(0))
    texts = [" ".join(text.split()[: 4 + row % 8]) for row, text in enumerate(drawn)]
    return pd.DataFrame({"text": texts, "split": ["train"] * 64 + ["validation"] * 8})


@pytest.fixture(scope="module")
def made(texts, tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    path = tmp_path_factory.mktemp("made") / "reference"
    return path, make_reference(texts, SETTINGS, 0, path)


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """A policy on disk whose tokenizer has no padding token of its own."""
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "checkpoint")
    tiny_model(spread=1.0).save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def weights(path: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(path).state_dict()


def validation_loss(path: Path, texts: pd.DataFrame, context: int) -> float:
    """Mean loss of a token that another one precedes, text by text."""
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(path),
        AutoTokenizer.from_pretrained(path),
    )
    losses, tokens = 0.0, 0
    for text in texts.loc[texts["split"] == "validation", "text"]:
        ids = torch.tensor([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id][:context]])
        with torch.no_grad():
            loss = model(input_ids=ids, labels=ids).loss
        losses, tokens = losses + loss.item() * (ids.shape[1] - 1), tokens + ids.shape[1] - 1
    return losses / tokens


def random_unicode(seed: int) -> str:
    codes = np.random.default_rng(seed).integers(0, 0x110000, 200)
    return "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)


def test_the_tokenizer_gives_every_text_back(tmp_path):
    tokenizer = train_tokenizer(UNICODE[:3] * 5, 300)
    tokenizer.save_pretrained(tmp_path)
    for one in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        for text in [*UNICODE, *(random_unicode(seed) for seed in range(20))]:
            assert one.decode(one(text)["input_ids"]) == text


def test_the_tokenizer_ends_and_pads_with_different_tokens():
    tokenizer = train_tokenizer(["a film", "a plot"], 300)
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    assert tokenizer.bos_token_id == tokenizer.eos_token_id
    ids = tokenizer("a film<|endoftext|>")["input_ids"]
    assert ids[-1] == tokenizer.eos_token_id and tokenizer.eos_token_id not in ids[:-1]


def test_the_tokenizer_learns_the_words_of_its_texts():
    texts = ["the gripping plot"] * 50
    assert len(train_tokenizer(texts, 400)("the gripping plot")["input_ids"]) == 3
    assert len(train_tokenizer(texts, 260)("the gripping plot")["input_ids"]) > 6


@pytest.mark.parametrize("character", [" ", "é"])
def test_the_tokenizers_training_takes_time_that_grows_with_the_text(character):
    """A run of one character took the square of it: eight times the text 64 times as long."""
    times = []
    for size in (20_000, 160_000):
        start = time.perf_counter()
        train_tokenizer(["a film", f"a{character * size}b"], 300)
        times.append(time.perf_counter() - start)
    assert times[1] < 24 * times[0] + 0.2


def test_training_from_scratch_lowers_the_loss(made, texts):
    path, losses = made
    assert list(losses.columns) == ["step", "split", "loss"]
    validation = losses.loc[losses["split"] == "validation", "loss"].tolist()
    assert len(validation) == SETTINGS.epochs
    assert validation[-1] < validation[0] - 0.5
    assert set(losses["split"]) == {"train", "validation"}
    # The last loss is that of the model on disk, over all tokens of the held-out texts and no
    # others (they are one batch).
    found = validation_loss(path, texts, SETTINGS.context)
    assert found == pytest.approx(validation[-1], rel=1e-4)


def test_the_checkpoint_is_a_gpt2_of_the_asked_size(made):
    model, tokenizer = (
        kind.from_pretrained(made[0]) for kind in (AutoModelForCausalLM, AutoTokenizer)
    )
    assert isinstance(model, GPT2LMHeadModel)
    assert (model.config.n_layer, model.config.n_embd, model.config.n_head) == (1, 16, 2)
    assert model.config.n_positions == 24
    assert model.config.vocab_size == len(tokenizer) == 400
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert sorted(path.suffix for path in made[0].iterdir()) == [".json"] * 4 + [".safetensors"]


def test_training_repeats_bit_for_bit_and_hangs_on_the_seed(made, texts, tmp_path):
    torch.manual_seed(123)  # what happened before in the process changes nothing
    losses = make_reference(texts, SETTINGS, 0, tmp_path / "again")
    assert file_digest(tmp_path / "again") == file_digest(made[0])
    pd.testing.assert_frame_equal(losses, made[1])
    make_reference(texts, SETTINGS.replace(epochs=1), 0, tmp_path / "seed0")
    make_reference(texts, SETTINGS.replace(epochs=1), 1, tmp_path / "seed1")
    pair = weights(tmp_path / "seed0"), weights(tmp_path / "seed1")
    assert not torch.equal(*(state["transformer.wte.weight"] for state in pair))


def test_without_validation_texts_it_trains_all_the_same(texts, tmp_path):
    training = texts[texts["split"] == "train"]
    losses = make_reference(training, SETTINGS.replace(epochs=3), 0, tmp_path / "r")
    assert set(losses["split"]) == {"train"}


def test_a_checkpoint_that_is_not_trained_is_copied(checkpoint, tmp_path):
    settings = ReferenceSettings(checkpoint=str(checkpoint), train=False)
    losses = make_reference(None, settings, 0, tmp_path / "r")
    assert losses.empty and list(losses.columns) == ["step", "split", "loss"]
    expected, found = weights(checkpoint), weights(tmp_path / "r")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    text = "w3 w9 w4"
    tokenizers = [AutoTokenizer.from_pretrained(path) for path in (checkpoint, tmp_path / "r")]
    assert tokenizers[0](text)["input_ids"] == tokenizers[1](text)["input_ids"]


def test_fine_tuning_learns_the_texts_and_their_end(checkpoint, tmp_path):
    # The padding is EOS here, as GPT-2's: the end of a text must be learned all the same.
    texts = pd.DataFrame({"text": ["w3 w4 w5", "w3 w4 w5 w6 w7 w8"] * 20, "split": "train"})
    settings = SETTINGS.replace(checkpoint=str(checkpoint), epochs=16)
    make_reference(texts, settings, 0, tmp_path / "r")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "r").eval()
    with torch.no_grad():
        found = model(input_ids=torch.tensor([[3, 4, 5, 6, 7, 8]])).logits[0].softmax(-1)
        before = tiny_model(spread=1.0)(input_ids=torch.tensor([[3, 4, 5, 6, 7, 8]]))
    assert found[0, 4] > 0.9 and found[5, EOS] > 0.9
    assert found[2, EOS] == pytest.approx(0.5, abs=0.2) == found[2, 6].item()
    assert before.logits[0].softmax(-1)[5, EOS] < 0.2


@pytest.mark.parametrize("case", ["no table", "no training rows"])
def test_training_without_texts_is_refused(case, checkpoint, texts, tmp_path):
    given = None if case == "no table" else texts[texts["split"] == "validation"]
    for settings in (SETTINGS, SETTINGS.replace(checkpoint=str(checkpoint))):
        with pytest.raises(InputError, match="there are no training texts"):
            make_reference(given, settings, 0, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_missing_checkpoint_is_refused(texts, tmp_path):
    settings = ReferenceSettings(checkpoint=str(tmp_path / "nothing"), train=False)
    with pytest.raises(InputError, match="nothing"):
        make_reference(None, settings, 0, tmp_path / "r")


def test_a_training_that_diverges_is_an_error_and_leaves_nothing(texts, tmp_path):
    with pytest.raises(InputError, match="finite"):
        make_reference(texts, SETTINGS.replace(learning_rate=1e30), 0, tmp_path / "reference")
    assert not (tmp_path / "reference").exists()
