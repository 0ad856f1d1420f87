"""Proximal policy optimisation of a language model against an uncertain reward.

The semantics are those of TRL 0.11's ``PPOTrainer``, which the paper (2410.23726) used: everything
in evaluation mode, so no dropout; the KL penalty (k1, per token, with the sampling policy's
log-probabilities) inside the rewards; the score on the last token; advantages whitened over the
batch; clipped losses; a value head on the policy's last hidden states, or on a network of its own;
Adam. Where it differs:

- The old log-probabilities are taken from sampling instead of another forward pass over the same
  tokens.
- All randomness is in streams derived from the seeds and the step, so a run is resumed without any
  generator's state, and runs that share a run seed see the same prompts and the same draws whatever
  their objective is.
- ``max_grad_norm`` clips. Gradient accumulation changes nothing but memory: the means are over the
  whole minibatch's tokens, not over each part's.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import inspect
import json
import logging
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prudent.checkpoints import check_length
from prudent.errors import InputError
from prudent.objectives.signal import Run, Signal
from prudent.policies.sampling import response_loss, response_states, response_statistics, sample
from prudent.policies.text import decode_responses, encode_prompts, pad_token
from prudent.ppo import kl, losses
from prudent.ppo.checkpoint import CheckpointFolder, Termination
from prudent.ppo.identity import digest_of, name_of
from prudent.ppo.settings import PPOSettings, RunSettings
from prudent.rewards.interface import RewardFunction, Rewards, as_rewards
from prudent.seeding import generator
from prudent.texts import text_list

logger = logging.getLogger(__name__)

Objective = Callable[..., Signal]

RATIO_THRESHOLD = 10.0
"""A minibatch whose mean probability ratio is above this gets no gradient (as in TRL 0.11)."""


class NonFiniteError(InputError):
    """Training met an infinity or NaN; the message names the step and the term."""


@dataclass
class Experience:
    """A batch to learn from: B prompts of P tokens with left padding, responses of T tokens."""

    ids: Tensor
    """[B, P + T] prompts and responses."""
    attention_mask: Tensor
    """[B, P + T] 1 on what is real in them."""
    mask: Tensor
    """[B, T] 1 on the responses' tokens; all that follows is [B, T] too."""
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    reference_log_probs: Tensor
    penalty_coefficient: Tensor

    def rows(self, index: Tensor | slice) -> Experience:
        """The part with these rows."""
        return Experience(*(getattr(self, field.name)[index] for field in fields(self)))


def prompt_rows(prompts: int, batch_size: int, step: int, seed: int, run_seed: int) -> Tensor:
    """Which prompts a step uses, [batch_size]: a new permutation each epoch, its rest dropped."""
    epoch, place = divmod(step, prompts // batch_size)
    stream = generator(seed, "policy", run_seed, "prompts", epoch)
    return torch.randperm(prompts, generator=stream)[place * batch_size :][:batch_size]


def learning_rate(settings: PPOSettings, step: int) -> float:
    """The learning rate of a step, counted from 0; a schedule would reach 0 after the last one."""
    progress = step / settings.steps
    factor = {
        "constant": 1.0,
        "linear": 1 - progress,
        "cosine": (1 + math.cos(math.pi * progress)) / 2,
    }[settings.schedule]
    return settings.learning_rate * factor


class ValueFunction(nn.Module):
    """Values of the states in which tokens are chosen: a linear head, on a backbone or without."""

    def __init__(self, head: nn.Linear, backbone: Any = None) -> None:
        super().__init__()
        self.head, self.backbone = head, backbone

    def forward(self, states: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Values [B, T], in the head's precision.

        ``states`` [B, T, d] are the policy's; with a backbone of its own it reads ``ids`` and
        ``mask`` [B, P + T] instead.
        """
        if self.backbone is not None:
            states = response_states(self.backbone, ids, mask, states.shape[1])
        with torch.autocast(states.device.type, enabled=False):
            return self.head(states.to(self.head.weight.dtype)).squeeze(-1)


def minibatch_loss(
    policy: Any,
    value: ValueFunction,
    batch: Experience,
    settings: PPOSettings,
    tokens: Tensor,
    penalty: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """What a part of a minibatch adds to its loss, a scalar with gradient, and to its terms.

    ``tokens`` is the number of tokens of the whole minibatch, over which all means are taken; so
    the parts of a minibatch add up to it, however it is cut. ``penalty`` is a ``Signal``'s.
    """
    old_log_probs, advantages, mask, reference_log_probs, coefficients = (
        part.flatten()
        for part in (
            *(batch.log_probs, batch.advantages, batch.mask),
            *(batch.reference_log_probs, batch.penalty_coefficient),
        )
    )
    clipped = torch.zeros_like(old_log_probs)

    def surrogate(log_probs: Tensor, rows: slice) -> Tensor:
        loss, clipped[rows] = losses.policy_loss(
            log_probs, old_log_probs[rows], advantages[rows], settings.clip_range
        )
        if penalty is not None:
            # What stands outside the mask means nothing, and a penalty may make it infinite.
            log_ratio = (log_probs - reference_log_probs[rows]).masked_fill(mask[rows] == 0, 0.0)
            loss = loss + coefficients[rows] * penalty(log_ratio)
        return (loss * mask[rows]).sum() / tokens

    policy_loss, log_probs, states = response_loss(
        policy,
        batch.ids,
        batch.attention_mask,
        batch.mask.shape[1],
        settings.temperature,
        surrogate,
    )
    values = value(states, batch.ids, batch.attention_mask)
    value_loss = losses.value_loss(values, batch.values, batch.returns, settings.value_clip_range)
    value_loss = (value_loss * batch.mask).sum() / tokens
    ratio = torch.exp(log_probs - batch.log_probs)
    terms = {
        "policy_loss": policy_loss.detach(),
        "value_loss": value_loss.detach(),
        "clip_fraction": (clipped * mask).sum() / tokens,
        "ratio": (ratio * batch.mask).sum() / tokens,
    }
    return policy_loss + settings.value_coefficient * value_loss, terms


class PPOTrainer:
    """Trains a causal LM to raise an objective's score at a price for leaving the reference.

    With any model, and a reward of one's own, a row a response and a column a head::

        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from prudent.objectives.weighted import variance_aware
        from prudent.ppo.trainer import PPOSettings, PPOTrainer


        def rewards(prompts, responses):
            return torch.tensor([[len(r), 9.0 * r.count("good")] for r in responses])


        policy, reference = (AutoModelForCausalLM.from_pretrained("gpt2") for _ in range(2))
        tokenizer = AutoTokenizer.from_pretrained("gpt2")
        settings = PPOSettings(steps=100, learning_rate=1e-5)
        trainer = PPOTrainer(
            policy, reference, tokenizer, rewards, variance_aware, beta=0.05, settings=settings
        )
        log = trainer.train(["This film is", "I went to see"] * 64)

    ``policy`` and ``reference`` are two Hugging Face causal LMs of one vocabulary; the policy is
    trained in place, on the device where it is. ``reward_fn`` maps prompts and responses, lists of
    B strings, to ``Rewards``, or to a table of the members' rewards [B, K] (a tensor, an array or a
    list of lists); ``objective`` (see ``prudent.objectives``) makes the ``Signal`` that PPO follows
    of these, given the policy's own ``head`` and ``beta``; one with parameters is given as
    ``functools.partial(objective, width=2.0)``. ``seed`` is the study's, ``run_seed`` the run's.

    With ``checkpoints``, a folder, a run that was stopped goes on from its last checkpoint, bit for
    bit as if it had not been, provided that it is the same run: the same settings, prompts,
    objective and ``fingerprint``, a dictionary of JSON values for all else that the outcome depends
    on (code, digests of inputs). The folder is not deleted at the end; that is to be done when the
    outcome has been saved.

    Raises InputError for settings that do not fit each other, models that cannot be trained so, a
    checkpoint that cannot be taken (see ``prudent.ppo.checkpoint``) or a folder that another
    process uses, and NonFiniteError while training; the last checkpoint stays in any case.
    """

    def __init__(
        self,
        policy: Any,
        reference: Any,
        tokenizer: Any,
        reward_fn: RewardFunction,
        objective: Objective,
        *,
        beta: float,
        head: int = 0,
        settings: PPOSettings = PPOSettings(),  # noqa: B008, it is frozen
        seed: int = 0,
        run_seed: int = 0,
        checkpoints: str | Path | None = None,
        fingerprint: dict[str, Any] | None = None,
    ) -> None:
        _check_models(policy, reference)
        run = RunSettings(beta=beta, head=head, seed=seed, run_seed=run_seed)
        self.policy, self.reference, self.tokenizer = policy, reference, tokenizer
        self.reward_fn, self.objective = reward_fn, objective
        self.head, self.beta, self.settings = run.head, run.beta, settings
        self.seed, self.run_seed = run.seed, run.run_seed
        self.checkpoints = None if checkpoints is None else Path(checkpoints)
        self.fingerprint = fingerprint or {}

        self.run = Run(self.seed, self.run_seed)
        self.remembers = "run" in inspect.signature(objective).parameters

        policy.eval()
        reference.eval().requires_grad_(False)
        self.device = policy.device
        self.value = ValueFunction(
            _value_head(policy, generator(seed, "policy", run_seed, "value_head")),
            copy.deepcopy(policy.base_model) if settings.value_network == "separate" else None,
        )
        self.parameters = {
            **{f"policy.{name}": p for name, p in policy.named_parameters()},
            **{f"value.{name}": p for name, p in self.value.named_parameters()},
        }
        self.optimizer = torch.optim.Adam(
            self.parameters.values(), lr=settings.learning_rate, fused=True
        )

    def train(self, prompts: Iterable[str]) -> list[dict[str, float]]:
        """Trains for the settings' steps and returns the log, one row a step.

        ``prompts`` are texts: a list, an array or a column of a table.

        With a folder for checkpoints, the first SIGTERM ends the process, with status 143, after
        the step in progress and another checkpoint (in the main thread; elsewhere at once).
        """
        settings, prompts = self.settings, text_list(prompts, "prompts")
        if len(prompts) < settings.batch_size:
            raise InputError(
                f"{len(prompts)} training prompts are fewer than ppo.batch_size, "
                f"{settings.batch_size}"
            )
        ids, mask = encode_prompts(self.tokenizer, prompts)
        tokens = ids.shape[1] + settings.response_length
        check_length(self.policy, tokens, "the longest prompt and a response have")
        with contextlib.ExitStack() as stack:
            log, folder = [], None
            if self.checkpoints:
                folder = CheckpointFolder(self.checkpoints, self._fingerprint(prompts))
                log = stack.enter_context(folder).load(self._tensors(), self.run.state)
                termination = stack.enter_context(Termination())
            for step in range(len(log), settings.steps):
                log.append(self.step(step, prompts, ids, mask))
                done = step + 1
                if done % 10 == 0 or done == settings.steps:
                    logger.info(
                        "step %d of %d: KL %.3f, proxy reward %.3f, sigma %.3f, %.2f s",
                        *(done, settings.steps, log[-1]["kl"], log[-1]["proxy_reward"]),
                        *(log[-1]["sigma"], log[-1]["seconds"]),
                    )
                if folder is None or done == settings.steps:
                    continue
                if done % settings.checkpoint_every == 0 or termination.asked:
                    folder.save(self._tensors(), log, self.run.state)
                    if termination.asked:
                        logger.info("SIGTERM: checkpoint written after step %d", done)
                        raise SystemExit(128 + signal.SIGTERM)
        return log

    def step(self, step: int, prompts: list[str], ids: Tensor, mask: Tensor) -> dict[str, float]:
        """One step of PPO; ``ids`` and ``mask`` are all prompts, encoded. Returns the log's row."""
        start = time.perf_counter()
        settings = self.settings

        # 1. The step's prompts, with no more padding than the longest of them needs.
        rows = prompt_rows(len(prompts), settings.batch_size, step, self.seed, self.run_seed)
        texts = [prompts[row] for row in rows]
        width = int(mask[rows].sum(dim=1).max())
        prompt_ids = ids[rows, -width:].to(self.device)
        prompt_mask = mask[rows, -width:].to(self.device)
        # 2. The policy answers; log-probabilities and values of what it did are the old ones.
        uniforms = torch.rand(
            (settings.batch_size, settings.response_length),
            generator=generator(self.seed, "policy", self.run_seed, "sampling", step),
        )
        with self._precision():
            rollout = sample(
                self.policy,
                prompt_ids,
                prompt_mask,
                uniforms.to(self.device),
                settings.temperature,
                self.tokenizer.eos_token_id,
                pad_token(self.tokenizer),
            )
        _require_finite(step, texts, "policy's log-probability", rollout.log_probs.sum(dim=1))
        all_ids = torch.cat([prompt_ids, rollout.response_ids], dim=1)
        all_mask = torch.cat([prompt_mask, rollout.mask.to(prompt_mask.dtype)], dim=1)

        with torch.no_grad():
            # 3. The values, and the reference's log-probabilities of the same tokens.
            with self._precision():
                values = self.value(rollout.hidden_states, all_ids, all_mask)
                reference_log_probs, _ = response_statistics(
                    self.reference, all_ids, all_mask, rollout.mask.shape[1], settings.temperature
                )
            reference_log_probs = reference_log_probs.masked_fill(~rollout.mask.bool(), 0.0)
            _require_finite(
                *(step, texts, "reference's log-probability"), reference_log_probs.sum(dim=1)
            )
            log_ratio = rollout.log_probs - reference_log_probs

            # 4. The heads' rewards, and what the objective makes of them.
            responses = decode_responses(
                self.tokenizer, prompt_ids, prompt_mask, rollout.response_ids, rollout.mask
            )
            rewards = self._rewards(step, texts, responses).to(rollout.log_probs)
            signal = self._signal(step, rewards)
            _require_finite(step, texts, "objective's score", signal.score)
            _require_finite(step, texts, "objective's KL coefficient", signal.kl_coefficient)

            # 5. Token rewards, advantages and returns.
            token_rewards = losses.token_rewards(
                log_ratio, rollout.mask, signal.score, signal.kl_coefficient
            )
            advantages, returns = losses.gae(
                token_rewards, values, rollout.mask, settings.gamma, settings.lam
            )
            advantages = losses.masked_whiten(advantages, rollout.mask)
            if signal.weights is not None:
                _require_finite(step, texts, "objective's weight", signal.weights)
                advantages = advantages * signal.weights[:, None]
            coefficient = torch.zeros_like(values)
            if signal.penalty is not None:
                _require_finite(
                    *(step, texts, "objective's penalty coefficient"), signal.penalty_coefficient
                )
                coefficient = coefficient + signal.penalty_coefficient[:, None]
        experience = Experience(
            *(all_ids, all_mask, rollout.mask, rollout.log_probs, values, advantages, returns),
            *(reference_log_probs, coefficient),
        )

        # 6. Several epochs of updates on these responses.
        terms = self._update(step, texts, experience, signal.penalty)

        row = {
            "step": step,
            "kl": kl.k1(log_ratio, rollout.mask).mean().item(),
            "kl_k3": kl.k3(log_ratio, rollout.mask).mean().item(),
            "proxy_reward": rewards.mean[:, self.head].mean().item(),
            "ensemble_reward": rewards.mean.mean().item(),
            "sigma": rewards.spread().mean().item() if rewards.members > 1 else float("nan"),
            "kl_coefficient": signal.kl_coefficient.mean().item(),
            "score": signal.score.mean().item(),
            "entropy": losses.masked_mean(rollout.entropies, rollout.mask).item(),
            "clip_fraction": terms["clip_fraction"],
            "policy_loss": terms["policy_loss"],
            "value_loss": terms["value_loss"],
            "learning_rate": learning_rate(settings, step),
            "tokens": int(rollout.mask.sum()),
            "seconds": time.perf_counter() - start,
        }
        if taken := row.keys() & signal.metrics.keys():
            raise InputError(
                f"the objective {name_of(self.objective)} has the metric {min(taken)!r}, which is "
                "a column of every training log; expected another name"
            )
        return row | signal.metrics

    def _update(
        self,
        step: int,
        texts: list[str],
        experience: Experience,
        penalty: Callable[[Tensor], Tensor] | None = None,
    ) -> dict[str, float]:
        """The epochs of minibatches; returns the terms' means over all of them."""
        settings = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(settings, step)
        history: list[dict[str, Tensor]] = []
        for epoch in range(settings.epochs):
            order = self._order(step, epoch).to(self.device)
            for rows in order.split(settings.minibatch_size):
                minibatch = experience.rows(rows)
                self.optimizer.zero_grad()
                terms = self._gradients(minibatch, penalty)
                gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
                norm = nn.utils.get_total_norm(gradients)
                scale = (terms.pop("ratio") <= RATIO_THRESHOLD).to(norm.dtype)
                if settings.max_grad_norm is not None:
                    scale = scale * (settings.max_grad_norm / (norm + 1e-6)).clamp(max=1)
                # To look at it would be to wait for a GPU; on a CPU it saves a pass over memory.
                if scale.device.type != "cpu" or scale != 1:
                    torch._foreach_mul_(gradients, scale)
                self.optimizer.step()
                history.append({**terms, "gradient norm": norm})
        stacked = {name: torch.stack([terms[name] for terms in history]) for name in history[0]}
        self._require_finite_updates(step, texts, stacked)
        return {name: values.mean().item() for name, values in stacked.items()}

    def _gradients(
        self, minibatch: Experience, penalty: Callable[[Tensor], Tensor] | None
    ) -> dict[str, Tensor]:
        """Computes a minibatch's gradients, part by part, and returns its terms."""
        tokens = minibatch.mask.sum()
        size = len(minibatch.mask) // self.settings.gradient_accumulation_steps
        terms: list[dict[str, Tensor]] = []
        for start in range(0, len(minibatch.mask), size):
            part = minibatch.rows(slice(start, start + size))
            with self._precision():
                loss, part_terms = minibatch_loss(
                    self.policy, self.value, part, self.settings, tokens, penalty
                )
                loss.backward()
            terms.append(part_terms)
        return {name: sum(part[name] for part in terms) for name in terms[0]}

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        """Computes in the settings' precision."""
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(self.settings.matmul_precision)
        try:
            with torch.autocast(
                self.device.type, dtype=torch.bfloat16, enabled=self.settings.bfloat16
            ):
                yield
        finally:
            torch.set_float32_matmul_precision(before)

    def _order(self, step: int, epoch: int) -> Tensor:
        """The order in which an epoch of a step goes through its responses, [batch_size]."""
        stream = generator(self.seed, "policy", self.run_seed, "minibatches", step, epoch)
        return torch.randperm(self.settings.batch_size, generator=stream)

    def _require_finite_updates(
        self, step: int, texts: list[str], terms: dict[str, Tensor]
    ) -> None:
        """Checks a step's terms, [epochs * minibatches per epoch] each in order, all at once."""
        # One look at the device a step; where it went wrong is worked out only if it did.
        if torch.cat(list(terms.values())).isfinite().all():
            return
        bad = {name: (~values.isfinite()).tolist() for name, values in terms.items()}
        first = {name: flags.index(True) / len(flags) for name, flags in bad.items() if any(flags)}
        name = min(first, key=first.__getitem__)
        per_epoch = len(bad[name]) // self.settings.epochs
        epoch, place = divmod(bad[name].index(True), per_epoch)
        rows = self._order(step, epoch).chunk(per_epoch)[place].tolist()
        raise NonFiniteError(
            f"step {step}, epoch {epoch}, minibatch {place}: the {name.replace('_', ' ')} is not "
            f"finite; a smaller learning rate or a larger KL coefficient may help; the prompts "
            f"were {_some([texts[row] for row in rows])}"
        )

    def _rewards(self, step: int, prompts: list[str], responses: list[str]) -> Rewards:
        """The members' rewards, checked."""
        rewards = as_rewards(self.reward_fn(prompts, responses), len(prompts))
        if not 0 <= self.head < rewards.members:
            raise InputError(
                f"the policy's head is {self.head}, and the reward function has {rewards.members} "
                "heads, counted from 0"
            )
        bad = (~rewards.mean.isfinite()).any(dim=1).nonzero().flatten().tolist()
        if bad:
            raise NonFiniteError(
                f"step {step}: the reward is not finite for {len(bad)} of {len(prompts)} "
                f"responses; the prompts were {_some([prompts[row] for row in bad])}; the first "
                f"response was {responses[bad[0]]!r}"
            )
        return rewards

    def _signal(self, step: int, rewards: Rewards) -> Signal:
        """What the objective makes of the rewards, its form checked."""
        self.run.step = step
        more = {"run": self.run} if self.remembers else {}
        signal = self.objective(rewards, self.head, self.beta, **more)
        name = f"the objective {name_of(self.objective)}"
        if not isinstance(signal, Signal):
            raise InputError(f"{name} returned {type(signal).__name__}; expected a Signal")
        vectors = {"score": signal.score, "KL coefficient": signal.kl_coefficient}
        vectors |= {} if signal.weights is None else {"weight": signal.weights}
        if signal.penalty is not None:
            vectors["penalty coefficient"] = signal.penalty_coefficient
        for part, values in vectors.items():
            shape = tuple(values.shape) if isinstance(values, Tensor) else None
            if shape != rewards.mean.shape[:1]:
                found = type(values).__name__ if shape is None else f"shape {shape}"
                raise InputError(
                    f"{name} returned a {part} of {found}; expected a tensor "
                    f"[{len(rewards.mean)}], one number a response"
                )
        return signal

    def _fingerprint(self, prompts: list[str]) -> dict[str, Any]:
        """All that the run's outcome depends on, as far as the trainer knows it."""
        return {
            "ppo": self.settings.model_dump(),
            "objective": {"name": name_of(self.objective), "digest": digest_of(self.objective)},
            **{"head": self.head, "beta": self.beta, "seed": self.seed, "run_seed": self.run_seed},
            "prompts": hashlib.sha256(json.dumps(prompts).encode()).hexdigest(),
            **self.fingerprint,
        }

    def _tensors(self) -> dict[str, Tensor]:
        """The tensors, by name, that what follows depends on: parameters and Adam's moments.

        Streams have no state and the learning rate is a function of the step, so with the log,
        which says how many steps there were, that is all of a run's state.
        """
        tensors = dict(self.parameters)
        for name, parameter in self.parameters.items():
            moments = self.optimizer.state[parameter]
            if not moments:  # as Adam itself begins, at a parameter's first gradient
                moments["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                moments["exp_avg"] = torch.zeros_like(parameter)
                moments["exp_avg_sq"] = torch.zeros_like(parameter)
            tensors.update({f"adam.{name}.{moment}": value for moment, value in moments.items()})
        return tensors


def _check_models(policy: Any, reference: Any) -> None:
    """``InputError`` where the policy cannot be trained, or the reference would be with it."""
    if policy is reference:
        raise InputError("the policy and the reference are one object; they have to be two")
    if not any(parameter.requires_grad for parameter in policy.parameters()):
        raise InputError(
            "the policy is frozen: none of its parameters requires a gradient; expected one that "
            "can be trained"
        )
    theirs = {id(parameter) for parameter in reference.parameters()}
    theirs |= {parameter.data_ptr() for parameter in reference.parameters()}
    for name, parameter in policy.named_parameters():
        if id(parameter) in theirs or parameter.data_ptr() in theirs:
            raise InputError(
                f"the policy shares {name} with the reference, which would be trained with it; "
                "load the model twice, or copy it with copy.deepcopy"
            )


def _value_head(policy: Any, stream: torch.Generator) -> nn.Linear:
    """A linear head in float32 at least, with nn.Linear's own initialisation, from a stream."""
    width = policy.get_output_embeddings().weight.shape[1]
    dtype = torch.promote_types(policy.dtype, torch.float32)
    head = nn.utils.skip_init(nn.Linear, width, 1, device=policy.device, dtype=dtype)
    with torch.no_grad():
        for parameter in head.parameters():
            draws = torch.rand(parameter.shape, generator=stream, dtype=dtype)
            parameter.copy_((2 * draws - 1) / width**0.5)
    return head


def _require_finite(step: int, prompts: list[str], name: str, values: Tensor) -> None:
    """Checks one number a response; ``values`` and ``prompts`` are a step's, [B]."""
    if not values.isfinite().all():
        rows = (~values.isfinite()).nonzero().flatten().tolist()
        raise NonFiniteError(
            f"step {step}: the {name} is not finite for {len(rows)} of {len(prompts)} responses; "
            f"the prompts were {_some([prompts[row] for row in rows])}"
        )


def _some(prompts: list[str], limit: int = 3) -> str:
    """The first few prompts, and how many there are besides."""
    rest = f" and {len(prompts) - limit} more" if len(prompts) > limit else ""
    return ", ".join(repr(prompt) for prompt in prompts[:limit]) + rest
