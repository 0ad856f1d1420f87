"""What the PPO trainer refuses, before it starts or at the step where it shows."""

import copy
import math
import re

import numpy as np
import pytest
import torch
from tiny_models import CONFIGS, tiny_model, tiny_tokenizer
from tiny_rewards import tiny_reward_model
from tiny_runs import PROMPTS, RUN_SEED, SEED, SETTINGS, constant, make, rewards
from transformers import AutoModelForCausalLM

from prudent.errors import InputError
from prudent.objectives.signal import Signal
from prudent.ppo.checks import NonFiniteError
from prudent.ppo.schedule import prompt_rows
from prudent.rewards.interface import Rewards


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 8, "minibatch_size": 3}, "`minibatch_size` is 3; expected a divisor of"),
        ({"minibatch_size": 8, "gradient_accumulation_steps": 3}, "a divisor of `minibatch_size`"),
        ({"epochs": 0}, "`epochs` is 0; expected a whole number >= 1"),
        ({"steps": 2.0}, "`steps` is 2.0; expected a whole number"),
        ({"temperature": 0.0}, "`temperature` is 0.0; expected a number > 0"),
        ({"temperature": float("inf")}, "`temperature` is inf"),
        ({"gamma": 2.0}, "`gamma` is 2.0; expected a number > 0 and <= 1"),
        ({"lam": -1.0}, "`lam` is -1.0; expected a number >= 0 and <= 1"),
        ({"clip_range": -0.1}, "`clip_range` is -0.1"),
        ({"value_clip_range": float("nan")}, "`value_clip_range` is nan"),
        ({"max_grad_norm": 0}, "`max_grad_norm` is 0; expected a number > 0 or null"),
        ({"learning_rate": "1e-5"}, "`learning_rate` is the text '1e-5'"),
        ({"schedule": "linea"}, "did you mean `linear`"),
        ({"batchsize": 8}, "unknown key `batchsize`, did you mean `batch_size`"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    """With the bounds of the configuration, which are these settings' own."""
    with pytest.raises(InputError, match=message):
        SETTINGS.replace(**options)


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="fewer than ppo.batch_size"):
        make().train(PROMPTS[:7])
    with pytest.raises(InputError, match="reads at most 64"):
        make(settings={"response_length": 60}).train(PROMPTS)
    with pytest.raises(InputError, match="has 3 heads"):
        make(head=3).train(PROMPTS)
    with pytest.raises(InputError, match="shape"):
        make(reward_fn=lambda p, r: torch.zeros(len(p))).train(PROMPTS)
    model = tiny_model()
    with pytest.raises(InputError, match="have to be two"):
        make(policy=model, reference=model)


def test_models_that_small_steps_would_not_change_or_that_draw_other_tokens_are_refused():
    for dtype in (torch.bfloat16, torch.float16):
        with pytest.raises(InputError, match=r"expected float32: load the policy with dtype=torch"):
            make(policy=tiny_model().to(dtype))
    adapted = tiny_model()
    adapted.peft_config = {}
    with pytest.raises(InputError, match="a model with adapters"):
        make(policy=adapted)
    wider = [copy.deepcopy(tiny_model(seed=seed)) for seed in (0, 1)]
    for model in wider:
        model.resize_token_embeddings(32, mean_resizing=False)
    with pytest.raises(InputError, match=r"call model.resize_token_embeddings\(23\)"):
        make(policy=wider[0], reference=wider[1])
    config = copy.deepcopy(CONFIGS["gpt2"])
    config.n_positions = 8
    short = AutoModelForCausalLM.from_config(config)
    with pytest.raises(InputError, match="reads at most 8"):
        make(reference=short, settings={"response_length": 8}).train(PROMPTS)


def test_what_is_not_finite_stops_the_run_with_step_and_term():
    def broken(prompts, responses):
        calls.append(prompts)
        values = rewards(prompts, responses)
        if len(calls) == 3:
            values[5, 0] = float("nan")
        return values

    calls: list[list[str]] = []
    with pytest.raises(NonFiniteError, match="step 2: the reward is not finite") as error:
        make(broken).train(PROMPTS)
    assert repr(calls[-1][5]) in str(error.value)
    with pytest.raises(NonFiniteError, match="step 0, epoch 0, minibatch 0: the policy loss is"):
        make(lambda p, r: torch.full((len(p), 2), 1e30)).train(PROMPTS)
    wild = make(settings={"learning_rate": 1e30})
    with pytest.raises(NonFiniteError, match="step 0, epoch 0, minibatch 1") as error:
        wild.train(PROMPTS)
    batch = prompt_rows(len(PROMPTS), 8, 0, SEED, RUN_SEED)[wild._order(0, 0)]
    assert all(repr(PROMPTS[row]) in str(error.value) for row in batch[4:7])
    assert "and 1 more" in str(error.value)
    # The last update of a step breaks the policy, and the next step's sampling meets it.
    wild = make(settings={"learning_rate": 1e30, "epochs": 1, "minibatch_size": 8})
    with pytest.raises(NonFiniteError, match="step 1: the policy's log-probability is not finite"):
        wild.train(PROMPTS)
    with pytest.raises(
        NonFiniteError, match="step 0: the objective .* returned a KL coef"
    ) as error:
        make(objective=lambda r, b: Signal(r.mean[:, 0], r.mean[:, 0] / 0)).train(PROMPTS)
    assert repr(PROMPTS[prompt_rows(len(PROMPTS), 8, 0, SEED, RUN_SEED)[0]]) in str(error.value)


def frozen():
    return tiny_model("gpt2", 0).requires_grad_(False)


def tied_to(reference):
    policy = tiny_model("gpt2", 0)
    policy.transformer.wpe = reference.transformer.wpe
    return policy


def judge():
    return tiny_reward_model("gpt2", tiny_tokenizer())


def of_vocabulary(size):
    config = copy.deepcopy(CONFIGS["gpt2"])
    config.vocab_size = size
    return AutoModelForCausalLM.from_config(config)


REFERENCE = tiny_model("gpt2", 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": frozen()}, "the policy is frozen: none of its parameters"),
        (
            {"policy": tied_to(REFERENCE), "reference": REFERENCE},
            "the policy shares transformer.wpe.weight with the reference",
        ),
        ({"policy": 5}, "policy: found int, expected a causal language model"),
        ({"policy": judge()}, "policy: found GPT2ForSequenceClassification, expected a causal"),
        ({"reference": judge()}, "reference: found GPT2ForSequenceClassification, expected a"),
        (
            {"reference": of_vocabulary(24)},
            "the policy's vocabulary has 23 tokens and the reference's 24; expected two models of",
        ),
        (
            {"policy": of_vocabulary(20), "reference": of_vocabulary(20)},
            "the tokenizer's tokens go up to 22, and the model has embeddings of 20",
        ),
        ({"tokenizer": None}, "tokenizer: found NoneType, expected the policy's"),
        ({"judge": 3}, "judge: found int, expected a function of prompts, responses"),
        ({"reward_fn": None}, "reward_fn: found NoneType, expected a function of prompts, resp"),
        (
            {"objective": None},
            "objective: found NoneType, expected a function of rewards, beta, an",
        ),
        (
            {"objective": lambda r: r},
            "found <lambda>, expected a function of rewards, beta, and keyword",
        ),
        ({"fingerprint": {"a": object()}}, "fingerprint: found no JSON values: Object of type"),
        ({"seed": 0.5}, "`seed` is 0.5; expected a whole number"),
        ({"run_seed": "3"}, "`run_seed` is the text '3'; expected a whole number"),
        ({"seed": True}, "`seed` is true; expected a whole number"),
        ({"head": 1.0}, "`head` is 1.0; expected a whole number >= 0"),
        ({"head": -1}, "`head` is -1; expected a whole number >= 0"),
        ({"beta": "0.1"}, "`beta` is the text '0.1'; expected a number"),
        ({"beta": float("inf")}, "`beta` is inf; expected a number >= 0"),
        ({"beta": -0.1}, "`beta` is -0.1; expected a number >= 0"),
        ({"settings": {"gamma": 2.0}}, "`gamma` is 2.0; expected a number > 0 and <= 1"),
        ({"settings": {"lam": -1.0}}, "`lam` is -1.0; expected a number >= 0 and <= 1"),
        ({"settings": {"clip_range": -0.2}}, "`clip_range` is -0.2; expected a number > 0"),
        ({"settings": {"max_grad_norm": 0.0}}, "`max_grad_norm` is 0.0; expected a number > 0"),
        ({"settings": {"temperature": math.inf}}, "`temperature` is inf; expected a number > 0"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_changed(options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        make(**options)
    model = options.get("reference", options.get("policy"))
    assert model is None or model is not REFERENCE or model.lm_head.weight.requires_grad


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("This film is", "prompts: found str, expected a list of texts"),
        ([*PROMPTS, 5], "prompts[30]: found int, expected a text"),
        ([*PROMPTS, None], "prompts[30]: found NoneType, expected a text"),
        ([*PROMPTS, "half \ud800"], "prompts[30]: found 'half \\ud800', expected Unicode text"),
        (PROMPTS[:7], "7 training prompts are fewer than ppo.batch_size, 8"),
    ],
)
def test_prompts_that_are_no_texts_are_refused(prompts, message):
    with pytest.raises(InputError, match=re.escape(message)):
        make().train(prompts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward_fn": lambda p, r: None}, "the reward function returned a NoneType"),
        ({"reward_fn": lambda p, r: [["a"]] * 8}, "the reward function returned a list"),
        (
            {"reward_fn": lambda p, r: [1.0] * 8},
            "shape (8,) for 8 responses; expected [8, members]",
        ),
        ({"reward_fn": lambda p, r: np.ones((8, 1))}, "the policy's head is 1, and the reward"),
        ({"reward_fn": lambda p, r: 1j * np.ones((8, 3))}, "a mean of torch.strided torch.complex"),
        (
            {"reward_fn": lambda p, r: torch.ones(8, 3).to_sparse()},
            "a mean of torch.sparse_coo torch.float32; expected a dense tensor of real numbers",
        ),
        ({"reward_fn": lambda p, r: Rewards([[1.0] * 3] * 8)}, "returned a mean of list; expected"),
        ({"objective": lambda r, b: (r.mean, b)}, "returned tuple; expected a Signal"),
        (
            {"objective": lambda r, b: constant(r, metrics={"kl": 1.0})},
            "has the metric 'kl', which is a column of every training log",
        ),
        (
            {"reward_fn": lambda p, r: Rewards(torch.ones(8, 3), std=torch.ones(8))},
            "standard deviations of shape (8,); expected [8, 3]",
        ),
        (
            {"reward_fn": lambda p, r: Rewards(torch.ones(8, 3), features=torch.ones(3, 8))},
            "features of shape (3, 8); expected [8, width]",
        ),
    ],
)
def test_rewards_and_objectives_of_other_forms_are_refused(options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        make(**options).train(PROMPTS)


def test_a_reference_that_is_not_finite_is_named():
    reference = tiny_model("gpt2", 1)
    reference.transformer.wpe.weight.data.fill_(math.nan)
    with pytest.raises(NonFiniteError, match="step 0: the reference's log-probability is not"):
        make(reference=reference).train(PROMPTS)
