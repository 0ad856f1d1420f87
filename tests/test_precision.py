"""Where bfloat16 is computed in, and what becomes of it elsewhere."""

import importlib
import json
import logging

import pytest
import torch
import train_policy
import train_reward_base
from test_reward_training import PAIRS, SETTINGS
from test_train_policy import script_args
from tiny_material import REWARD, save_backbone, tiny_pairs
from tiny_models import tiny_model, tiny_tokenizer
from tiny_runs import SETTINGS as PPO
from tiny_runs import make

from prudent import precision
from prudent.errors import InputError
from prudent.ppo.settings import PPOSettings
from prudent.precision import decided, native
from prudent.rewards.kinds.members import train_member
from prudent.rewards.loading import load_rewards
from prudent.rewards.material import Material
from prudent.rewards.settings import KINDS, RewardSettings
from prudent.tables import file_digest, write_parquet
from prudent.workflow.config import Config
from prudent.workflow.configfiles import typed


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_f": False, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx2": True, "avx512_f": True, "avx512_vnni": True, "avx512_bf16": False}, False),
        ({"avx512_f": True, "avx512_bf16": True}, True),
        ({"amx_tile": True, "amx_bf16": True}, True),
        ({"architecture": "aarch64", "neon": True, "bf16": False}, False),
        ({"architecture": "aarch64", "neon": True, "bf16": True}, True),
    ],
)
def test_a_processor_is_asked_for_its_instructions(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert native("cpu") is expected


def test_what_cannot_be_asked_has_none(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not native("cpu")


@pytest.mark.parametrize("able", [True, False])
def test_a_gpu_that_emulates_it_has_none(monkeypatch, able):
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or able

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert native("cuda") is able


@pytest.mark.parametrize("settings", [RewardSettings(epochs=2), PPOSettings(steps=7)])
@pytest.mark.parametrize(
    ("asked", "able", "found", "said"),
    [
        (False, True, False, None),
        (False, False, False, None),
        (True, True, True, None),
        ("auto", True, True, None),
        (True, False, False, (logging.WARNING, "bfloat16: true, and this machine's processor")),
        ("auto", False, False, (logging.INFO, "bfloat16: auto, and this machine's processor")),
    ],
)
def test_the_machine_decides(monkeypatch, caplog, settings, asked, able, found, said):
    monkeypatch.setattr(precision, "native", lambda device: able)
    with caplog.at_level(logging.INFO, "prudent"):
        once = decided(settings.replace(bfloat16=asked), "cpu")
        assert decided(once, "cpu") == once == settings.replace(bfloat16=found)
        monkeypatch.setenv("RANK", "1")  # of the processes of a training the first one reports
        decided(settings.replace(bfloat16=asked), "cpu")
    assert len(caplog.records) == (said is not None)
    for record in caplog.records:
        assert record.levelno == said[0] and record.getMessage().startswith(said[1])


@pytest.mark.parametrize("value", ["automatic", 1, 0, 1.0, "true", None])
def test_other_values_are_refused(value):
    with pytest.raises(InputError, match="`bfloat16` is .*; expected one of false, true, auto"):
        RewardSettings(bfloat16=value)


def test_it_is_a_value_of_a_configuration_and_of_the_command_line():
    given = {"ppo": {"bfloat16": "auto"}, "judge": {"reward": {"bfloat16": "false"}}}
    found = typed(given, Config)
    assert found == {"ppo": {"bfloat16": "auto"}, "judge": {"reward": {"bfloat16": False}}}
    with pytest.raises(InputError, match="is the text 'atuo'.*did you mean `auto`"):
        RewardSettings(bfloat16="atuo")


def test_a_reward_model_elsewhere_is_that_of_float32(tmp_path, monkeypatch, caplog):
    tiny_model(spread=3.0).save_pretrained(tmp_path / "backbone")
    tiny_tokenizer().save_pretrained(tmp_path / "backbone")
    pairs = PAIRS.assign(
        id=[str(row) for row in range(len(PAIRS))], source="toy", probability=float("nan")
    )
    write_parquet(pairs, tmp_path / "preferences.parquet", "preferences")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    digests = {}
    for asked, able in ((False, False), ("auto", False), ("auto", True)):
        monkeypatch.setattr(precision, "native", lambda device, able=able: able)
        path = tmp_path / f"{asked}-{able}"
        caplog.clear()
        with caplog.at_level(logging.INFO, "prudent"):
            train_reward_base.main(
                train_reward_base.Args(
                    preferences=tmp_path / "preferences.parquet",
                    checkpoint=path,
                    digest=tmp_path / "digest",
                    loss=tmp_path / "loss.csv",
                    settings=SETTINGS.replace(epochs=0.5, bfloat16=asked),
                    split="train",
                    checkpoints=tmp_path / "checkpoints",
                    seed=0,
                    backbone=tmp_path / "backbone",
                )
            )
        assert caplog.text.count("computing in float32") == (asked == "auto" and not able)
        recorded = json.loads((path / "metadata.json").read_text())["settings"]
        assert recorded["bfloat16"] is able and recorded["batch_size"] == SETTINGS.batch_size
        digests[asked, able] = file_digest(path)
    assert digests["auto", False] == digests[False, False] != digests["auto", True]


@pytest.mark.parametrize("kind", ["members", "dropout", "adapters"])
def test_ensembles_of_backbones_compute_in_float32_once_they_are_trained(
    tmp_path, monkeypatch, kind
):
    """They are centred where they were trained, and read anew: the rewards' means are 0."""
    monkeypatch.setattr(precision, "native", lambda device: True)
    reward = REWARD.replace(bfloat16=True)
    given = Material(tiny_pairs(), save_backbone(tmp_path / "backbone", "bert"), reward)
    path = tmp_path / "ensemble"
    if kind == "members":
        train_member(given, KINDS[kind](), 5, 0, path)
    else:
        importlib.import_module(f"prudent.rewards.kinds.{kind}").train(
            given, KINDS[kind](), 2, 5, 0, path
        )
    means = load_rewards(path)(*given.centring_texts(5)).mean.mean(0)
    torch.testing.assert_close(means, torch.zeros_like(means), atol=1e-4, rtol=0)


def test_a_policy_elsewhere_is_that_of_float32(tmp_path, monkeypatch):
    digests = {}
    for asked, able in ((False, False), ("auto", False), ("auto", True)):
        monkeypatch.setattr(precision, "native", lambda device, able=able: able)
        folder = tmp_path / f"{asked}-{able}"
        args = script_args(folder, bfloat16=asked)
        train_policy.main(args)
        recorded = json.loads((args.policy / "metadata.json").read_text())["settings"]
        assert recorded["bfloat16"] is able
        digests[asked, able] = file_digest(args.policy)
    assert digests["auto", False] == digests[False, False] != digests["auto", True]


def test_the_trainers_checkpoints_know_what_was_decided(monkeypatch):
    """A run that goes on where it is decided otherwise would mix the two."""
    for able in (True, False):
        monkeypatch.setattr(precision, "native", lambda device, able=able: able)
        trainer = make(settings=PPO.model_dump() | {"bfloat16": "auto"})
        assert trainer.settings.bfloat16 is able
        assert trainer._fingerprint([])["ppo"]["bfloat16"] is able
