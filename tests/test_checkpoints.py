"""Checkpoints of others: what is wrong with one is one message, and its own code never runs."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cluster import HANG
from safetensors.torch import load_file, save_file
from tiny_models import CONFIGS, VOCABULARY, tiny_model, tiny_tokenizer
from tiny_rewards import REWARD_CONFIGS, save_reward_model
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    PreTrainedTokenizerFast,
)

from prudent.checkpoints import (
    check_length,
    load_tensors,
    load_tokenizer,
    require_finite,
    save_checkpoint,
)
from prudent.errors import InputError
from prudent.policies.models import load_causal_lm, load_policy
from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.loading import load_rewards
from prudent.rewards.models import load_reward_model, new_reward_model
from prudent.rewards.templates import TEMPLATES, plain_fault
from prudent.rewards.text import reward_tokenizer

# --- Code in a checkpoint -------------------------------------------------------------------------

CODE = """
from pathlib import Path
Path(__file__).resolve()
Path({marker!r}).write_text("it ran")
from transformers import *
class Config(PretrainedConfig):
    model_type = "strange"
class Model(GPT2LMHeadModel):
    config_class = Config
class Tokens(PreTrainedTokenizerFast):
    pass
"""
SCRIPT = """
import sys
from prudent.checkpoints import load_tokenizer
from prudent.errors import InputError
from prudent.policies.models import load_causal_lm, load_policy
from prudent.rewards.ensemble import RewardEnsemble
from prudent.rewards.models import load_reward_model
for load in (
    load_policy, load_causal_lm, load_tokenizer, load_reward_model, RewardEnsemble.load
):
    try:
        load(sys.argv[1])
    except InputError as error:
        print("refused:", error)
"""


def strange_checkpoint(folder: Path) -> tuple[Path, Path]:
    """A checkpoint of an unknown kind with code of its own; and the file that its code makes."""
    marker, path = folder / "marker", folder / "strange"
    save_reward_model(path, "gpt2")
    (path / "strange.py").write_text(CODE.format(marker=str(marker)))
    classes = {f"AutoModelFor{kind}": "strange.Model" for kind in ("CausalLM", "SequenceClassi")}
    config = json.loads((path / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "strange.Config", **classes}}
    config["auto_map"]["AutoModelForSequenceClassification"] = "strange.Model"
    (path / "config.json").write_text(json.dumps(config))
    config = json.loads((path / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "Tokens", "auto_map": {"AutoTokenizer": [None, "strange.Tokens"]}}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path, marker


@pytest.mark.parametrize("terminal", [False, True])
def test_a_checkpoints_own_code_never_runs(tmp_path, terminal):
    """Not even for who answers yes to every question, at a terminal or through a pipe."""
    path, marker = strange_checkpoint(tmp_path)
    command = [sys.executable, "-c", SCRIPT, str(path)]
    ours, theirs = pty.openpty() if terminal else os.pipe()
    answers = ours if terminal else theirs
    os.write(answers, b"y\n" * 50)
    output = subprocess.run(
        command,
        stdin=theirs if terminal else ours,
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"},
        timeout=HANG,
    )
    for end in (ours, theirs):
        os.close(end)
    assert output.returncode == 0, output.stderr
    lines = output.stdout.splitlines()
    assert len(lines) == 5
    for line in lines:
        assert line.startswith(f"refused: {path}: ") and "code of its own" in line
    assert not marker.exists() and "[y/N]" not in output.stdout + output.stderr


# --- What is wrong with a checkpoint ------------------------------------------------------------


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("policy")
    tiny_model().save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory) -> Path:
    return save_reward_model(tmp_path_factory.mktemp("ensemble"), "gpt2")


def entries(file: str, **values):
    """Spoils a file's JSON entries."""

    def spoil(path: Path) -> None:
        content = json.loads((path / file).read_text()) | values
        (path / file).write_text(json.dumps(content))

    return spoil


def content(file: str, text: str):
    return lambda path: (path / file).write_text(text)


def without(file: str):
    return lambda path: (path / file).unlink()


def weights(value: float | torch.dtype):
    """Spoils one number, or the type of several."""

    def spoil(path: Path) -> None:
        tensors = load_file(path / "model.safetensors")
        name = "transformer.wpe.weight"
        if isinstance(value, torch.dtype):
            tensors[name] = tensors[name].to(value)
        else:
            tensors[name][3, 2] = value
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})

    return spoil


def pickle(path: Path) -> None:
    """Puts the weights into a file of torch's own form, which an index of safetensors names."""
    tensors = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    torch.save(tensors, path / "pytorch_model.bin")
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "pytorch_model.bin")}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


def adapter(path: Path) -> None:
    (path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({"lora": torch.zeros(1)}, path / "adapter_model.safetensors")


def no_tokens(path: Path) -> None:
    empty = Tokenizer(models.WordLevel({}, unk_token="w2"))
    empty.save(str(path / "tokenizer.json"))
    for name in ("special_tokens_map.json", "added_tokens.json"):
        (path / name).unlink(missing_ok=True)
    (path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "{{ messages }}"}'
    )


def more_tokens(path: Path) -> None:
    words = {f"w{i}": i for i in range(VOCABULARY + 5)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w2")),
        eos_token="w0",
        pad_token="w1",
        chat_template="{{ messages }}",
        model_max_length=64,
    )
    tokenizer.save_pretrained(path)


COMMON = {
    "nan": (weights(float("nan")), "the weights transformer.wpe.weight hold 1 number(s)"),
    "inf": (weights(float("inf")), "the weights transformer.wpe.weight hold 1 number(s)"),
    "adapter": (adapter, "holds an adapter (adapter_config.json)"),
    "no config": (without("config.json"), "has no config.json; expected the folder of a"),
    "empty config": (content("config.json", ""), "be loaded"),
    "no object": (content("config.json", "[]"), "config.json: found list, expected an object"),
    "a number": (content("config.json", "5"), "config.json: found int, expected an object"),
    "digits": (content("config.json", '{"n_embd": ' + "9" * 5000 + "}"), "config.json: not a read"),
    "shape": (
        entries("config.json", n_positions=65),
        "the weights transformer.wpe.weight have the shape [64, 16]; expected [65, 16], as config",
    ),
    "type": (entries("config.json", n_embd="wide"), "be loaded"),
    "null": (entries("config.json", n_layer=None), "be loaded"),
    "negative": (entries("config.json", n_embd=-16), "cannot be loaded as a model"),
    "unknown kind": (entries("config.json", model_type="strange"), "cannot be loaded as a model"),
    "activation": (entries("config.json", activation_function="none"), "cannot be loaded as a mod"),
    "tokenizer": (content("tokenizer.json", '{"version": '), "no tokenizer can be loaded"),
    "tokenizer's kind": (
        content("tokenizer.json", '{"version": "1.0", "model": {"type": "Odd"}}'),
        "no tokenizer can be loaded",
    ),
    "no tokens": (no_tokens, "the tokenizer has no tokens"),
    "more tokens": (more_tokens, "the tokenizer's tokens go up to 27, and the model has"),
    "bytes": (weights(torch.int8), "transformer.wpe.weight: found numbers of type I8, expected"),
    "integers": (weights(torch.int64), "wpe.weight: found numbers of type I64, expected floats"),
    "truth": (weights(torch.bool), "wpe.weight: found numbers of type BOOL, expected floats"),
    "complex": (weights(torch.complex64), "wpe.weight: found numbers of type C64, expected floats"),
    "pickle": (pickle, "model.safetensors.index.json: found 'pytorch_model.bin', expected safet"),
    "no whole number": (
        entries("tokenizer_config.json", model_max_length=2.5),
        "the tokenizer's model_max_length is 2.5; expected a whole number >= 1",
    ),
    "weights": (content("model.safetensors", "0"), "cannot be loaded as a model"),
    "no weights": (without("model.safetensors"), "cannot be loaded as a model"),
    "index": (
        lambda path: (
            (path / "model.safetensors").rename(path / "part.safetensors"),
            content("model.safetensors.index.json", '{"weight_map": {"a": "b.safetensors"}}')(path),
        ),
        "cannot be loaded as a model",
    ),
}
OF_ENSEMBLES = {
    "offsets": (entries("config.json", reward_offsets=[0.5, 1]), "expected 1 finite numbers"),
    "offset": (entries("config.json", reward_offsets=["a"]), "expected 1 finite numbers"),
    "true": (entries("config.json", reward_offsets=[True]), "expected 1 finite numbers"),
    "large": (entries("config.json", reward_offsets=[1e39]), "expected 1 finite numbers"),
    "long": (entries("config.json", reward_offsets=[10**400]), "expected 1 finite numbers"),
    "no list": (entries("config.json", reward_offsets=0.5), "expected 1 finite numbers"),
    "template": (content("chat_template.jinja", "{% for m in"), "the chat template cannot be ren"),
    "no response": (
        content("chat_template.jinja", "{{ messages[0]['content'] }}"),
        "the chat template does not show the response",
    ),
    "longer": (
        entries("tokenizer_config.json", model_max_length=65),
        "the tokenizer's model_max_length is 65 tokens; the model reads at most 64",
    ),
}


@pytest.mark.parametrize("fault", COMMON)
def test_a_policy_that_is_not_right_is_refused(policy, tmp_path, fault):
    spoil, message = COMMON[fault]
    path = Path(shutil.copytree(policy, tmp_path / "policy"))
    spoil(path)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        load_policy(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("fault", COMMON | OF_ENSEMBLES)
def test_an_ensemble_that_is_not_right_is_refused(ensemble, tmp_path, fault):
    spoil, message = (COMMON | OF_ENSEMBLES)[fault]
    path = Path(shutil.copytree(ensemble, tmp_path / "ensemble"))
    spoil(path)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        RewardEnsemble.load(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "load", [load_policy, load_tokenizer, load_reward_model, load_rewards, RewardEnsemble.load]
)
def test_what_is_no_checkpoint_at_all(tmp_path, load):
    file = tmp_path / "file"
    file.touch()
    for path, says in (
        *((value, "checkpoint: found .*, expected a folder") for value in (None, 5, True, b"a")),
        *((name, "no such folder") for name in ("", "./no", "no/", "~/no", "a/b/c", "a b", "a\0b")),
        *((name, "no such folder") for name in ("a" * 97, "a" * 300 + "/b" * 3000)),
        (file, "file: found a file; expected a checkpoint's folder"),
    ):
        with pytest.raises(InputError, match=says) as error:
            load(path)
        assert "Repo id" not in str(error.value)


@pytest.mark.parametrize("named", [["GPT2ForSequenceClassification"], None])
def test_a_reward_model_is_no_policy(ensemble, tmp_path, named):
    """Also where the checkpoint does not say what it is: its head would be left out."""
    path = Path(shutil.copytree(ensemble, tmp_path / "ensemble"))
    entries("config.json", architectures=named)(path)
    with pytest.raises(InputError, match=r"the weights score\.weight have no place in the GPT2LMH"):
        load_causal_lm(path)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("v_head.summary.weight", (1, 16)), ("transformer.h.0.attn.masked_bias", ())],
)
def test_heads_of_other_tasks_and_old_buffers_may_be_left(policy, tmp_path, name, shape):
    path = Path(shutil.copytree(policy, tmp_path / "policy"))
    tensors = load_file(path / "model.safetensors") | {name: torch.ones(shape)}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    load_causal_lm(path)


@pytest.mark.parametrize("kind", REWARD_CONFIGS)
def test_a_reward_model_is_started_from_every_language_model(kind, tmp_path):
    """The language model's head is left, whatever its architecture calls it."""
    if kind in CONFIGS:
        tiny_model(kind).save_pretrained(tmp_path)
    else:
        AutoModelForMaskedLM.from_config(REWARD_CONFIGS[kind]).save_pretrained(tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 32
    new_reward_model(tmp_path, tokenizer, seed=0)


def test_models_of_other_tasks_are_no_policies(tmp_path):
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is a BertForMaskedLM, expected a causal language model"):
        load_causal_lm(tmp_path)
    # Also where the checkpoint does not say what it is.
    entries("config.json", architectures=None)(tmp_path)
    with pytest.raises(InputError, match="next-token probabilities change with later tokens"):
        load_causal_lm(tmp_path)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_every_causal_model_is_taken_for_one(architecture, tmp_path):
    tiny_model(architecture).save_pretrained(tmp_path)
    load_causal_lm(tmp_path)


def test_a_text_model_is_no_longer_than_its_positions():
    model = tiny_model()
    check_length(model, 64, "a text has")
    with pytest.raises(InputError, match="a text has 65 tokens; the model reads at most 64"):
        check_length(model, 65, "a text has")


def test_a_template_that_does_not_show_the_response_is_refused(policy):
    with pytest.raises(InputError, match="does not show the response"):
        reward_tokenizer(policy, "{{ messages[0]['content'] }}", 32)
    with pytest.raises(InputError, match="cannot be rendered: TemplateSyntaxError"):
        reward_tokenizer(policy, "{% for m in", 32)


@pytest.mark.parametrize(
    ("before", "says"),
    [
        (
            "{% for i in range(10000000000) %}{% endfor %}",
            "has the number 10000000000; expected at",
        ),
        ("{{ 'a' * 10_000_000_000 }}", "has the number 10000000000; expected at most 100000"),
        ("{{ 0x" + "f" * 5000 + " }}", "has the number 0xfff"),
        (
            "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
            "has loops with more than 100000 turns, inside each other",
        ),
    ],
)
def test_a_template_that_would_not_end_is_refused(policy, before, says):
    template = before + "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(InputError, match=says):
        reward_tokenizer(policy, template, 32)
    assert says in plain_fault(template)
    for fine in ("{% for i in range(9) %}{{ i }}{% endfor %}", "{{ 100000 }}"):
        assert plain_fault(fine + template.removeprefix(before)) is None


@pytest.mark.parametrize(
    ("template", "roles"),
    [
        ("{{ messages[0].content }}{{ messages[1].content }}", "user, assistant, user, assistant"),
        (
            "{% for m in messages[-2:] %}{% if messages[0].role == 'user' %}{{ m.content }}"
            "{% endif %}{% endfor %}",
            "system, user, assistant",
        ),
    ],
)
def test_a_template_shows_the_response_of_every_dialogue(policy, template, roles):
    expected = rf"does not show the response.*\(in a dialogue of {roles}\)"
    with pytest.raises(InputError, match=expected):
        reward_tokenizer(policy, template, 32)


def test_a_template_may_refuse_a_system_message(policy):
    """As Gemma's does: the data that has one is refused then."""
    refusing = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('none') }}{% endif %}"
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    for template in (refusing, *TEMPLATES.values()):
        reward_tokenizer(policy, template, 32)


@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_tensors_are_floats(tmp_path, kind):
    save_file({"offset": torch.ones(1).to(kind)}, tmp_path / "a.safetensors")
    with pytest.raises(
        InputError, match=r"a.safetensors: offset: found torch\..*, expected floats"
    ):
        load_tensors(tmp_path / "a.safetensors", {"offset": (1,)})


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_never_saved(tmp_path, value):
    model = tiny_model()
    require_finite(model, "policy")
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.bias[3:5] = value
    with pytest.raises(InputError, match=r"policy: the weights transformer\.h\.1\.mlp\.c_fc\.bias"):
        save_checkpoint(model, tiny_tokenizer(), tmp_path / "policy")
    assert not list(tmp_path.iterdir())


def test_a_reward_model_with_weights_that_are_not_finite_is_refused(ensemble, tmp_path):
    path = Path(shutil.copytree(ensemble, tmp_path / "ensemble"))
    weights(float("nan"))(path)
    with pytest.raises(InputError, match="that are not finite"):
        load_reward_model(path)
    assert len(load_tokenizer(path)) == VOCABULARY
