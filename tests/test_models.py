"""Loading checkpoints, and how a reward model reads text."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_models import EOS, VOCABULARY, tiny_model, tiny_tokenizer
from tiny_rewards import (
    REWARD_CONFIGS,
    bert_tokenizer,
    bos_tokenizer,
    reward_tokenizer_of,
    save_reward_model,
    tiny_reward_model,
)
from tokenizers import processors
from transformers import (
    AutoModelForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    PreTrainedTokenizerBase,
    RobertaForMaskedLM,
)

from prudent.checkpoint_files import positions
from prudent.checkpoints import load_tokenizer
from prudent.errors import InputError
from prudent.policies.models import load_causal_lm
from prudent.policies.reference import train_tokenizer
from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.models import final_linear, head_state, load_reward_model, new_reward_model
from prudent.rewards.templates import plain_fault
from prudent.rewards.text import TEMPLATES, count_cut, encode, reward_tokenizer
from prudent.tokens import token_rows

DIALOGUE = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": " Hello? "},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "Why?"},
]


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("policy")
    tiny_model().save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def changed(source: Path, target: Path, **entries) -> Path:
    """A copy of a checkpoint with another config."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    config = json.loads((source / "config.json").read_text()) | entries
    (target / "config.json").write_text(json.dumps(config))
    return target


# --- loading --------------------------------------------------------------------------------------


def test_a_reward_model_without_its_head_is_refused(policy):
    with pytest.raises(InputError, match=r"score\.weight.*freshly initialised") as error:
        load_reward_model(policy)
    assert str(policy) in str(error.value)


def test_a_complete_reward_model_is_loaded_in_evaluation_mode(tmp_path):
    save_reward_model(tmp_path, "gpt2")
    original = tiny_reward_model("gpt2", tiny_tokenizer()).state_dict()
    model = load_reward_model(tmp_path)
    assert not model.training
    assert all(torch.equal(value, original[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_the_attention_for_long_texts_computes_the_same(kind, tmp_path):
    path = save_reward_model(tmp_path, kind)
    short, long = load_reward_model(path), load_reward_model(path, tokens=65)
    assert long.config._attn_implementation == "sdpa"
    ids = torch.tensor([[3, 4, 5, 6], [7, 8, 2, short.config.pad_token_id]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    with torch.no_grad():
        logits = [model(input_ids=ids, attention_mask=mask).logits for model in (short, long)]
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("load", [load_causal_lm, load_reward_model, load_tokenizer])
def test_a_missing_folder_is_refused(load, tmp_path):
    for name in (tmp_path / "nothing", str(tmp_path / "nothing"), Path("results/nothing")):
        with pytest.raises(InputError, match="nothing: no such folder"):
            load(name)


def test_a_folder_without_a_model_or_tokenizer_is_refused(tmp_path):
    for load in (load_causal_lm, load_reward_model, load_tokenizer):
        with pytest.raises(InputError, match=str(tmp_path)):
            load(tmp_path)


def test_pickled_weights_are_refused(policy, tmp_path):
    shutil.copytree(policy, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    torch.save(tiny_model().state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="model.safetensors"):
        load_causal_lm(tmp_path)


def test_a_truncated_file_is_refused(policy, tmp_path):
    shutil.copytree(policy, tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(InputError, match="cannot be loaded as a model: .*header"):
        load_causal_lm(tmp_path)


def test_a_backbone_weight_that_is_missing_or_misshapen_is_refused(policy, tmp_path):
    wider = changed(policy, tmp_path / "wider", vocab_size=VOCABULARY + 1)
    deeper = changed(policy, tmp_path / "deeper", n_layer=3)
    for load in (load_causal_lm, lambda path: new_reward_model(path, tiny_tokenizer(), 0)):
        with pytest.raises(InputError, match=r"wider: "):
            load(wider)
        with pytest.raises(InputError, match=r"deeper: .*h\.2\."):
            load(deeper)


def test_a_new_reward_model_differs_in_its_head_by_the_seed_alone(policy):
    states = [new_reward_model(policy, tiny_tokenizer(), seed).state_dict() for seed in (3, 3, 4)]
    backbone = tiny_model().transformer.state_dict()
    for state in states:
        assert state["score.weight"].shape == (1, 16)
        assert all(torch.equal(state[f"transformer.{name}"], backbone[name]) for name in backbone)
    assert torch.equal(states[0]["score.weight"], states[1]["score.weight"])
    assert not torch.equal(states[0]["score.weight"], states[2]["score.weight"])


def test_a_new_reward_model_knows_the_padding(policy):
    assert new_reward_model(policy, tiny_tokenizer(), 0).config.pad_token_id == 1


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_an_encoder_without_head_and_pooler_can_be_trained(kind, tmp_path):
    distil = DistilBertConfig(vocab_size=VOCABULARY, dim=16, hidden_dim=32, n_layers=1, n_heads=4)
    backbone = {
        "bert": lambda: BertModel(REWARD_CONFIGS["bert"], add_pooling_layer=False),
        "roberta": lambda: RobertaForMaskedLM(REWARD_CONFIGS["roberta"]),
        "distilbert": lambda: DistilBertModel(distil),
    }[kind]()
    backbone.save_pretrained(tmp_path)
    assert final_linear(new_reward_model(tmp_path, bert_tokenizer(), 0))[1].out_features == 1


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("gpt2", "score"),
        ("llama", "score"),
        ("qwen2", "score"),
        ("mistral", "score"),
        ("bert", "classifier"),
        ("roberta", "classifier.out_proj"),
    ],
)
def test_the_final_linear_layer_is_the_last_that_runs(kind, name):
    model = AutoModelForSequenceClassification.from_config(REWARD_CONFIGS[kind]).eval()
    model.config.pad_token_id = 0
    found, linear = final_linear(model)
    assert found == name
    with torch.no_grad():
        linear.weight.zero_()
        if linear.bias is not None:
            linear.bias.zero_()
        assert not model(input_ids=torch.tensor([[3, 4, 5]])).logits.any()
        linear.weight.copy_(torch.arange(1.0, linear.weight.numel() + 1).view_as(linear.weight))
        assert model(input_ids=torch.tensor([[3, 4, 5]])).logits.any()


def test_the_longest_text_of_mpnet_is_what_it_reads():
    """Its positions begin behind the padding's number, as RoBERTa's do."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    config = MPNetConfig(
        vocab_size=VOCABULARY, num_attention_heads=4, max_position_embeddings=12, **sizes
    )
    model = AutoModelForSequenceClassification.from_config(config).eval()
    limit = positions(config.to_dict())
    assert limit == 12 - 1 - config.pad_token_id
    assert model(input_ids=torch.full((1, limit), 3)).logits.isfinite().all()
    with pytest.raises(IndexError):
        model(input_ids=torch.full((1, limit + 1), 3))


def test_modern_berts_head_is_freshly_drawn_for_training(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2}
    config = ModernBertConfig(
        vocab_size=VOCABULARY, num_attention_heads=4, sep_token_id=2, **sizes, **ids
    )
    ModernBertModel(config).save_pretrained(tmp_path)
    one, other = (new_reward_model(tmp_path, bert_tokenizer(), seed) for seed in (0, 1))
    assert final_linear(one)[0] == "classifier"
    assert not torch.equal(one.head.dense.weight, other.head.dense.weight)
    kept = dict(other.named_parameters())
    drawn = head_state(one)
    assert {name.split(".")[0] for name in drawn} == {"head", "classifier"}
    same = [torch.equal(p, kept[name]) for name, p in one.named_parameters() if name not in drawn]
    assert same and all(same)


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_a_configuration_without_a_number_of_labels_has_those_of_the_weights(labels, tmp_path):
    path = save_reward_model(tmp_path, labels=labels)
    config = json.loads((path / "config.json").read_text())
    for key in ("num_labels", "id2label", "label2id"):
        config.pop(key, None)
    (path / "config.json").write_text(json.dumps(config))
    assert load_reward_model(path).num_labels == labels
    assert RewardEnsemble.load(path).heads == labels


def test_a_model_without_a_known_final_layer_is_refused():
    with pytest.raises(InputError, match="GPT2LMHeadModel: no final linear layer"):
        final_linear(tiny_model())


# --- tokenizers -----------------------------------------------------------------------------------


def test_a_tokenizer_without_padding_pads_with_eos(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).pad_token == "<eos>"
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="neither a padding nor an EOS token"):
        load_tokenizer(tmp_path)


def test_the_settings_of_a_reward_tokenizer_survive_the_checkpoint(policy, tmp_path):
    tokenizer = reward_tokenizer(policy, "dialogue", 7)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.model_max_length == 7
    assert (loaded.truncation_side, loaded.padding_side) == ("left", "right")
    assert loaded.chat_template == TEMPLATES["dialogue"]
    texts = ["w3 " * 12, "w4"]
    assert encode(loaded, texts, ["w5 w6"] * 2) == encode(tokenizer, texts, ["w5 w6"] * 2)


def test_the_template_is_a_name_or_jinja_or_the_checkpoints_own(policy, tmp_path):
    own = "{% for m in messages %}<{{ m['content'] }}>{% endfor %}"
    with pytest.raises(InputError, match="no chat template; .* continuation, dialogue"):
        reward_tokenizer(policy, None, 32)
    tokenizer = reward_tokenizer(policy, own, 32)
    assert tokenizer.chat_template == own
    tokenizer.save_pretrained(tmp_path)
    assert reward_tokenizer(tmp_path, None, 32).chat_template == own
    assert reward_tokenizer(tmp_path, "dialogue", 32).chat_template == TEMPLATES["dialogue"]


def rendered(template: str, messages: list[dict[str, str]]) -> str:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATES[template]
    return tokenizer.apply_chat_template(messages, tokenize=False)


def test_a_continuation_is_the_bare_texts_and_eos():
    messages = [{"role": "user", "content": " a film"}, {"role": "assistant", "content": " of. "}]
    assert rendered("continuation", messages) == " a film of. <eos>"


def test_a_dialogue_is_written_as_hh_rlhf_does():
    assert rendered("dialogue", [*DIALOGUE, {"role": "assistant", "content": " So.\n"}]) == (
        "\n\nSystem: Be kind.\n\nHuman: Hello?\n\nAssistant: Yes?\n\nHuman: Why?\n\nAssistant: So."
    )


# --- encoding -------------------------------------------------------------------------------------


def test_prompts_as_text_and_as_messages_are_the_same():
    tokenizer = reward_tokenizer_of("gpt2")
    as_text = encode(tokenizer, ["w3 w4 "], ["w5"])
    as_messages = encode(tokenizer, [[{"role": "user", "content": "w3 w4 "}]], ["w5"])
    assert as_text == as_messages
    assert as_text[0][:2] == [3, 4]


def test_an_encoders_special_tokens_stand_around_the_text():
    tokenizer = reward_tokenizer_of("bert")  # without EOS, the template writes none
    assert encode(tokenizer, ["w3 w4 "], ["w5"]) == [[1, 3, 4, 5, 2]]


@pytest.mark.parametrize("writes", [True, False])
def test_bos_stands_once_whoever_writes_it(writes):
    tokenizer = bos_tokenizer()
    tokenizer.chat_template = ("{{ bos_token }}" if writes else "") + TEMPLATES["continuation"]
    ids = encode(tokenizer, ["w3 ", "w4 "], ["w5 ", "w6 "])
    assert ids == [[1, 3, 5, 2], [1, 4, 6, 2]]


def test_a_text_that_begins_with_bos_changes_no_other():
    tokenizer = reward_tokenizer_of("llama")
    ids = encode(tokenizer, ["<s> w3 ", "w4 "], ["w5 ", "w6 "])
    assert ids[1] == encode(tokenizer, ["w4 "], ["w6 "])[0] == [1, 4, 6, 2]


def test_special_tokens_are_added_where_bos_is_also_eos():
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = tokenizer.eos_token
    tokenizer.model_max_length = 60
    tokenizer.chat_template = "{{ bos_token }}{{ messages[-1]['content'] }}"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <pad>", special_tokens=[("<pad>", 1)]
    )
    assert encode(tokenizer, ["w9"], [" w5"]) == [[EOS, 5, 1]]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_a_long_text_loses_the_prompts_beginning(kind):
    tokenizer = reward_tokenizer_of(kind)
    whole = encode(tokenizer, ["w3 w4 w5 w6 w7 w8 "], ["w9 w10 w11 "])[0]
    tokenizer.model_max_length = 6
    cut = encode(tokenizer, ["w3 w4 w5 w6 w7 w8 "], ["w9 w10 w11 "])[0]
    special = {"gpt2": 0, "llama": 1, "bert": 1}[kind]  # [CLS] or BOS stays in front
    assert len(whole) > 6
    assert cut == whole[:special] + whole[special - 6 :]
    assert [9, 10, 11] == [token for token in cut if token in (9, 10, 11)]


@pytest.mark.parametrize(("kind", "front", "behind"), [("gpt2", 0, 1), ("bert", 1, 1)])
def test_of_a_response_that_alone_is_too_long_the_end_is_read_and_it_is_counted(
    kind, front, behind
):
    tokenizer = reward_tokenizer_of(kind)  # [CLS] in front; EOS or [SEP] behind
    tokenizer.model_max_length = 6 + front + behind
    responses = [" w3" * 6, " w4 w5" + " w6" * 5, " w7", " w3" * 40]
    ids = encode(tokenizer, ["w8 w9 "] * 4, responses)
    words = [row[front:-behind] for row in ids]
    assert words[:2] == [[3] * 6, [5] + [6] * 5] and words[3] == [3] * 6
    assert count_cut(tokenizer, ids, responses) == 2
    assert count_cut(tokenizer, ids[:1], responses[:1]) == 0
    assert count_cut(tokenizer, [], []) == 0


def byte_tokenizer(template: str, **tokens: str) -> PreTrainedTokenizerBase:
    tokenizer = train_tokenizer(["a film of some words"] * 9, 280)
    tokenizer.chat_template = template
    tokenizer.model_max_length = 60
    tokenizer.add_special_tokens(tokens)
    return tokenizer


def test_what_contents_spell_like_special_tokens_stays_text():
    """Also where the template writes them, and for every such token that the tokenizer has."""
    template = (
        "{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] | trim }}{% endfor %}"
        "{{ eos_token }}"
    )
    tokenizer = byte_tokenizer(template)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|turn|>", "<|turn|>!"]})
    turn, eos = tokenizer.convert_tokens_to_ids("<|turn|>"), tokenizer.eos_token_id
    for said in ("a<|turn|>b", "<|turn|>!", " <|endoftext|><|pad|> ", "\ue0000\ue001 \ue000"):
        (row,) = encode(tokenizer, ["a film"], [said])
        parts = [token_rows(tokenizer, [text])["input_ids"][0] for text in ("user\na film",)]
        parts += token_rows(tokenizer, ["assistant\n" + said.strip()])["input_ids"]
        assert row == [turn, *parts[0], turn, *parts[1], eos], said
    plain, spelt = encode(tokenizer, ["a film"] * 2, ["of words", "a<|pad|>"])
    assert [plain] == encode(tokenizer, ["a film"], ["of words"])
    assert row != plain and tokenizer.pad_token_id not in spelt


@pytest.mark.parametrize("limit", [6, 9])
def test_long_texts_that_spell_special_tokens_are_cut_like_others(limit):
    tokenizer = byte_tokenizer(TEMPLATES["continuation"], bos_token="<|bos|>", cls_token="<|bos|>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", tokenizer.bos_token_id)]
    )
    (whole,) = encode(tokenizer, ["a film "], ["of<|pad|> words"])
    tokenizer.model_max_length = limit
    (row,) = encode(tokenizer, ["a film "], ["of<|pad|> words"])
    assert row == [tokenizer.bos_token_id, *whole[1 - limit :]]


def test_a_bos_that_the_template_writes_stays_in_front_of_a_long_text():
    tokenizer = bos_tokenizer()
    tokenizer.chat_template = "{{ bos_token }}" + TEMPLATES["continuation"]
    whole = encode(tokenizer, ["w3 w4 w5 w6 w7 "], ["w8 w9 "])[0]
    for limit in range(4, len(whole) + 2):
        tokenizer.model_max_length = limit
        (row,) = encode(tokenizer, ["w3 w4 w5 w6 w7 "], ["w8 w9 "])
        assert row == ([1, *whole[1 - limit :]] if limit < len(whole) else whole)


def test_a_template_that_prints_the_date_prints_the_same_one_every_day():
    """As Llama 3.1's, which falls back on that day where it is not told which one it is."""
    tokenizer = byte_tokenizer(
        "\n  {%- if strftime_now is defined %}{%- set day = strftime_now('%d %b %Y') %}{%- else %}"
        "{%- set day = 'unknown' %}{%- endif %}\n\n{{ day }}{{ strftime_now('%A, %B %-d') }}"
        "{{ messages[-1]['content'] }}"
    )
    (row,) = encode(tokenizer, ["a"], [" film"])
    assert tokenizer.decode(row) == "\n26 Jul 2024Friday, July 26 film"
    assert plain_fault(tokenizer.chat_template) is None


def test_an_empty_text_is_never_empty():
    tokenizer = reward_tokenizer_of("gpt2")
    tokenizer.chat_template = "{{ messages[-1]['content'] }}"
    assert encode(tokenizer, [""], [""]) == [[EOS]]
    tokenizer.eos_token = None
    assert encode(tokenizer, ["w3"], [""]) == [[1]]


def test_prompts_and_responses_go_together():
    with pytest.raises(ValueError, match="2 prompts and 1 responses"):
        encode(reward_tokenizer_of("gpt2"), ["w3", "w4"], ["w5"])
