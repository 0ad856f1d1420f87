"""One step of TRL 1.12.0's PPOTrainer and of Prudent's, on the same weights, prompts and responses.

Where the two define a quantity alike they have to agree to float32 rounding. TRL samples; Prudent
is given the same tokens. Responses that all run to the full length show that everything else is
alike: log-probabilities, values, KL, rewards, advantages, returns, losses and gradients. With
responses that end early, TRL pays the score one token behind the last one, and learns a value
there; what comes before that, and the rows that do not end, still has to agree.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import Work
from prudent_worker import prudent_trainer
from torch import Tensor, nn
from transformers import GPT2ForSequenceClassification, TrainerCallback
from trl_worker import trl_trainer

from prudent.policies import sampling
from prudent.policies.text import encode_prompts
from prudent.ppo import losses
from prudent.ppo import trainer as trainer_module
from prudent.ppo.schedule import prompt_rows

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_models import CONFIGS, EOS, PAD, tiny_model, tiny_prompts, tiny_tokenizer  # noqa: E402

WORK = Work(batch=64, learning_rate=1e-3, beta=0.3)
TOLERANCE = 1e-5
"""Of differences, relative to a tensor's largest number."""


def language_model(ends: bool, noise: float) -> Any:
    """The policy, or with noise the reference, that never pads and ends often or never."""
    model = tiny_model("gpt2", seed=1, spread=4.0)
    stream = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += noise * torch.randn(parameter.shape, generator=stream)
        # All states share a part, which the embeddings of these two tokens answer.
        shared = torch.ones(model.config.n_embd)
        model.transformer.ln_f.bias += shared
        model.lm_head.weight[PAD] = -10 * shared
        model.lm_head.weight[EOS] = (0.1 if ends else -10) * shared
    return model


def value_network() -> GPT2ForSequenceClassification:
    config = copy.deepcopy(CONFIGS["gpt2"])
    config.num_labels, config.pad_token_id = 1, PAD
    torch.manual_seed(3)
    return GPT2ForSequenceClassification(config).eval()


class LookInside(TrainerCallback):
    """Takes the step's variables out of TRL's train() as it ends its step."""

    def on_step_end(self, *_: Any, **__: Any) -> None:
        frame = sys._getframe()
        while frame.f_code.co_name != "train":
            frame = frame.f_back
        names = "responses padding_mask logprobs ref_logprobs values scores kl rewards advantages"
        names += " returns pg_loss_stats vf_loss_stats pg_clipfrac_stats mean_kl"
        self.seen = {name: frame.f_locals[name].clone() for name in names.split()}


def gradients_of(optimizer: Any, modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    """Fills the result with the gradients of the optimizer's first step, when that happens."""
    first: dict[str, Tensor] = {}
    step = optimizer.step

    def wrapper(*arguments: Any, **options: Any) -> Any:
        if not first:
            for module in modules:
                for name, parameter in modules[module].named_parameters():
                    if parameter.grad is not None:
                        first[f"{module}.{name}"] = parameter.grad.clone()
        return step(*arguments, **options)

    optimizer.step = wrapper
    return first


def trl_step(ends: bool, queries: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What stood in the variables of TRL's step, and its first gradients."""
    inside, policy, value = LookInside(), language_model(ends, 0), value_network()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        models = policy, language_model(ends, 0.05), value
        trainer = trl_trainer(
            *(WORK, models, tiny_tokenizer(), [{"input_ids": queries}], folder),
            stop=EOS if ends else None,
            steps=1,
            callbacks=[inside],
        )
        modules = {"policy": policy, "value.backbone": value.transformer, "value.head": value.score}
        gradients = gradients_of(trainer.optimizer, modules)
        trainer.train()
    return inside.seen, gradients


def recorded(module: Any, name: str) -> list[tuple[tuple, Any]]:
    """Fills the result with the arguments and results of the function's calls."""
    calls: list[tuple[tuple, Any]] = []
    function = getattr(module, name)

    def wrapper(*arguments: Any) -> Any:
        calls.append((arguments, function(*arguments)))
        return calls[-1][1]

    setattr(module, name, wrapper)
    return calls


def prudent_step(
    ends: bool, prompts: list[str], responses: Tensor, scores: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The same for Prudent's step, which is given TRL's responses and scores."""
    models = language_model(ends, 0), language_model(ends, 0.05)
    trainer = prudent_trainer(WORK, models, tiny_tokenizer(), lambda *_: scores[:, None])
    network = value_network()
    trainer.value.backbone.load_state_dict(network.transformer.state_dict())
    with torch.no_grad():
        trainer.value.head.weight.copy_(network.score.weight)
        trainer.value.head.bias.zero_().requires_grad_(False)  # TRL's head has none
    columns = iter(responses.T)
    sampling.inverse_cdf = lambda *_: next(columns)
    modules = {"policy": trainer.policy, "value": trainer.value}
    gradients = gradients_of(trainer.optimizer, modules)
    references = recorded(trainer_module, "response_statistics")
    penalties, advantages = recorded(losses, "token_rewards"), recorded(losses, "gae")
    whitened, minibatches = (
        recorded(losses, "masked_whiten"),
        recorded(trainer_module, "minibatch_loss"),
    )
    ids, mask = encode_prompts(trainer.tokenizer, prompts)
    row = trainer.step(0, prompts, ids, mask)

    experience = minibatches[0][0][2]
    terms = [terms for _, (_, terms) in minibatches]
    # The first minibatch has the rows in its own order.
    back = trainer._order(0, 0).argsort()
    return {
        "mask": experience.mask[back].bool(),
        "logprobs": experience.log_probs[back],
        "ref_logprobs": references[0][1][0],
        "values": experience.values[back],
        "kl": penalties[0][0][0],
        "rewards": penalties[0][1],
        "returns": advantages[0][1][1],
        "advantages": whitened[0][1],
        "mean_kl": torch.tensor(row["kl"]),
        "pg_loss_stats": torch.stack([term["policy_loss"] for term in terms]),
        "vf_loss_stats": torch.stack([term["value_loss"] for term in terms]),
        "pg_clipfrac_stats": torch.stack([term["clip_fraction"] for term in terms]),
    }, gradients


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    scale = theirs.abs().max().item()
    return (ours - theirs).abs().max().item() / (scale or 1.0)


def compare(ends: bool) -> bool:
    """Prints the differences of a step and says whether all are within the tolerance."""
    prompts = tiny_prompts(WORK.batch)
    ids, mask = encode_prompts(tiny_tokenizer(), prompts)
    # TRL gets the prompts in the order in which Prudent's first step takes them.
    rows = prompt_rows(WORK.batch, WORK.batch, 0, 0, 0)
    theirs, their_gradients = trl_step(ends, ids[rows])
    ours, our_gradients = prudent_step(ends, prompts, theirs["responses"], theirs["scores"])

    real = ~theirs.pop("padding_mask")
    full = real.all(dim=1)
    assert torch.equal(ours.pop("mask"), real) and full.all() != ends and full.any()
    print(f"\n{int((~full).sum())} of {WORK.batch} responses end early; relative differences:")
    for name in ("logprobs", "ref_logprobs", "values", "kl"):
        ours[name], theirs[name] = ours[name] * real, theirs[name] * real
    for name in ("rewards", "returns"):
        ours[name], theirs[name] = ours[name][full], theirs[name][full]
    found = {}
    for name in ours:
        if ends and name in ("advantages", "pg_loss_stats", "vf_loss_stats", "pg_clipfrac_stats"):
            continue  # means over rows of which some differ
        found[name] = difference(ours[name], theirs[name].flatten().view(ours[name].shape))
    if not ends:
        assert our_gradients.keys() == their_gradients.keys()
        # All gradients are parts of one vector: a part near 0 is compared at its scale.
        order = sorted(our_gradients)
        for module in ("policy", "value"):
            ours_, theirs_ = (
                torch.cat([g[name].flatten() for name in order if name.startswith(module)])
                for g in (our_gradients, their_gradients)
            )
            found[f"gradients of the {module}"] = difference(ours_, theirs_)
    for name, value in found.items():
        print(f"  {name:24} {value:.1e}{'' if value <= TOLERANCE else '   TOO MUCH'}")
    return max(found.values()) <= TOLERANCE


if __name__ == "__main__":
    agreed = [compare(ends=False), compare(ends=True)]
    sys.exit(0 if all(agreed) else "TRL and Prudent differ")
