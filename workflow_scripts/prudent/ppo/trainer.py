"""Proximal policy optimisation of a language model against an uncertain reward.

The semantics are those of TRL 0.11's ``PPOTrainer``, which the paper (2410.23726) used: everything
in evaluation mode, so no dropout; the KL penalty (k1, per token, with the sampling policy's
log-probabilities) inside the rewards; the score on the last token; advantages whitened over the
batch; clipped losses; a value head on the policy's last hidden states, or on a network of its own;
Adam. Where it differs:

- The old log-probabilities are taken from sampling instead of another forward pass over the same
  tokens.
- All randomness comes from streams derived from the seeds and the step, so a run is resumed without
  any generator's state, and runs with the same run seed see the same prompts and the same draws
  whatever their objective.
- ``max_grad_norm`` clips. Gradient accumulation changes only the memory: means are over the tokens
  of the whole minibatch, not over each part's.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import json
import logging
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prudent.checkpoints import check_length, require_finite
from prudent.errors import InputError, quoted
from prudent.objectives.signal import (
    NonFiniteSignal,
    Run,
    Signal,
    asks_for,
    evaluate,
    name_of,
)
from prudent.policies.sampling import Rollout, response_statistics, sample
from prudent.policies.text import decode_responses, encode_prompts, end_tokens, pad_token
from prudent.ppo import kl, losses
from prudent.ppo.checkpoint import CheckpointFolder, Termination
from prudent.ppo.checks import (
    NonFiniteError,
    check_models,
    checked_rewards,
    require_finite_rows,
    require_finite_updates,
    some,
)
from prudent.ppo.identity import digest_of
from prudent.ppo.minibatch import Experience, ValueFunction, minibatch_loss, value_head
from prudent.ppo.schedule import learning_rate, minibatch_order, prompt_rows
from prudent.ppo.settings import PPOSettings, RunSettings
from prudent.precision import decided
from prudent.rewards.interface import RewardFunction, Rewards
from prudent.rewards.last_layer import LastLayer
from prudent.rewards.settings import SpreadSettings
from prudent.seeding import generator
from prudent.texts import text_list

logger = logging.getLogger(__name__)

Objective = Callable[..., Signal]
Judge = Callable[[list[str], list[str]], Mapping[str, Any]]

REFERENCE_BATCHES = 8
"""Batches of the reference's responses that an objective gets if it asks for them."""

RATIO_THRESHOLD = 10.0
"""A minibatch whose mean probability ratio is above this gets no gradient (as in TRL 0.11)."""


class PPOTrainer:
    """Trains a causal LM to raise an objective's score at a price for leaving the reference.

    With any model, and your own reward, one row per response and one column per head::

        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from prudent.objectives.weighted import variance_aware
        from prudent.ppo.trainer import PPOSettings, PPOTrainer


        def rewards(prompts, responses):
            return torch.tensor([[len(r), 9.0 * r.count("good")] for r in responses])


        policy, reference = (
            AutoModelForCausalLM.from_pretrained("gpt2", dtype=torch.float32) for _ in range(2)
        )
        tokenizer = AutoTokenizer.from_pretrained("gpt2")
        settings = PPOSettings(steps=100, learning_rate=1e-5)
        trainer = PPOTrainer(
            policy, reference, tokenizer, rewards, variance_aware, beta=0.05, settings=settings
        )
        log = trainer.train(["This film is", "I went to see"] * 64)

    ``policy`` and ``reference`` are two Hugging Face causal LMs with one vocabulary; the policy is
    trained in place, on its current device. ``reward_fn`` maps prompts and responses, lists of B
    strings, to ``Rewards``, or to a table of the members' rewards [B, K] (a tensor, an array or a
    list of lists). ``objective`` (see ``prudent.objectives``) turns them into the ``Signal`` that
    PPO follows, given ``beta`` and, if it asks for it, the policy's own ``head``; bind parameters
    with ``functools.partial(objective, width=2.0)``. ``spread`` says how the spread for an
    objective is taken, and ``last_layer`` is a Bayesian last layer on the members' features.
    ``judge``, a function of prompts and responses that returns ``{"score": [B], ...}``, scores each
    step's responses for the log only. ``seed`` is the study's, ``run_seed`` the run's.

    With ``checkpoints``, a folder, a run that was stopped goes on from its last checkpoint, bit for
    bit as if it had not been stopped, provided that it is the same run: the same settings, prompts,
    objective and ``fingerprint``, a dictionary of JSON values for everything else that the outcome
    depends on (code, digests of inputs). The folder stays at the end; delete it when the outcome
    has been saved.

    Raises InputError for settings that do not fit together, models that cannot be trained this way,
    a checkpoint that cannot be used (see ``prudent.ppo.checkpoint``) or a folder that another
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
        spread: SpreadSettings = SpreadSettings(),  # noqa: B008, it is frozen
        last_layer: LastLayer | None = None,
        judge: Judge | None = None,
        checkpoints: str | Path | None = None,
        fingerprint: dict[str, Any] | None = None,
    ) -> None:
        if not isinstance(settings, PPOSettings):
            raise InputError(f"settings: found {type(settings).__name__}, expected PPOSettings")
        if not isinstance(spread, SpreadSettings):
            raise InputError(f"spread: found {type(spread).__name__}, expected SpreadSettings")
        check_models(policy, reference, tokenizer)
        if not callable(reward_fn):
            raise InputError(
                f"reward_fn: found {type(reward_fn).__name__}, expected a function of prompts, "
                "responses"
            )
        if judge is not None and not callable(judge):
            raise InputError(
                f"judge: found {type(judge).__name__}, expected a function of prompts, responses"
            )
        run = RunSettings(beta=beta, head=head, seed=seed, run_seed=run_seed)
        self.policy, self.reference, self.tokenizer = policy, reference, tokenizer
        self.ends = end_tokens(policy, tokenizer)
        self.reward_fn, self.objective, self.judge = reward_fn, objective, judge
        self.head, self.beta = run.head, run.beta
        self.settings = decided(settings, policy.device.type)
        self.seed, self.run_seed = run.seed, run.run_seed
        self.checkpoints = None if checkpoints is None else Path(checkpoints)
        self.fingerprint = fingerprint or {}

        self.run = Run(self.seed, self.run_seed, spread=spread, last_layer=last_layer)
        asks_for(objective)
        try:
            json.dumps(self.fingerprint)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"fingerprint: found no JSON values: {error}") from error

        policy.eval()
        reference.eval().requires_grad_(False)
        self.device = policy.device
        self.value = ValueFunction(
            value_head(policy, generator(seed, "policy", run_seed, "value_head")),
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
        """Trains for the settings' steps and returns the log, one row per step.

        ``prompts`` are texts: a list, an array or a column of a table.

        With a folder for checkpoints, the first SIGTERM ends the process with status 143, after the
        step in progress and another checkpoint (in the main thread; elsewhere at once).
        """
        settings, prompts = self.settings, text_list(prompts, "prompts")
        if len(prompts) < settings.batch_size:
            raise InputError(
                f"{len(prompts)} training prompts are fewer than ppo.batch_size, "
                f"{settings.batch_size}"
            )
        ids, mask = encode_prompts(self.tokenizer, prompts)
        tokens = ids.shape[1] + settings.response_length
        for model in (self.policy, self.reference):
            check_length(model, tokens, "the longest prompt and a response have")
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
        # A step's sampling finds what the previous step broke; the last step has no next one.
        require_finite(self.policy, f"the policy after step {settings.steps}")
        return log

    def step(self, step: int, prompts: list[str], ids: Tensor, mask: Tensor) -> dict[str, float]:
        """One step of PPO; ``ids`` and ``mask`` encode all prompts. Returns the log's row."""
        start = time.perf_counter()
        settings = self.settings

        # 1. The step's prompts, with no more padding than the longest of them needs.
        rows = prompt_rows(len(prompts), settings.batch_size, step, self.seed, self.run_seed)
        texts = [prompts[row] for row in rows]
        width = int(mask[rows].sum(dim=1).max())
        prompt_ids = ids[rows, -width:].to(self.device)
        prompt_mask = mask[rows, -width:].to(self.device)
        # 2. The policy answers.
        rollout = self._respond(step, texts, prompt_ids, prompt_mask)
        # 3. The members' rewards of the answers, and the objective's signal.
        responses = decode_responses(
            self.tokenizer, prompt_ids, prompt_mask, rollout.response_ids, rollout.mask
        )
        with torch.no_grad():
            rewards = self._rewards(step, rows, texts, responses).to(rollout.log_probs)
            self.run.sample_reference = lambda: self._reference_rewards(prompts, ids, mask)
            signal = self._signal(step, texts, rewards)
        # 4. Advantages and returns, and several epochs of updates on these.
        experience = self._experience(step, texts, prompt_ids, prompt_mask, rollout, signal)
        terms = self._update(step, texts, experience, signal.penalty)

        log_ratio = experience.log_probs - experience.reference_log_probs
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
        if self.judge is not None:
            row["judge_score"] = float(np.mean(self.judge(texts, responses)["score"]))
        if taken := row.keys() & signal.metrics.keys():
            raise InputError(
                f"the objective {name_of(self.objective)} has the metric {quoted(min(taken))}, "
                "which is a column of every training log; expected another name"
            )
        return row | signal.metrics

    def _respond(self, step: int, texts: list[str], ids: Tensor, mask: Tensor) -> Rollout:
        """The policy's responses to encoded prompts, with their log-probabilities."""
        rollout = self._sample(self.policy, ids, mask, "sampling", step)
        require_finite_rows(step, texts, "policy's log-probability", rollout.log_probs.sum(dim=1))
        return rollout

    def _sample(self, model: Any, ids: Tensor, mask: Tensor, purpose: str, number: int) -> Rollout:
        """A batch of a model's responses to encoded prompts, from one of the run's own streams."""
        uniforms = torch.rand(
            (self.settings.batch_size, self.settings.response_length),
            generator=generator(self.seed, "policy", self.run_seed, purpose, number),
        )
        with self._precision():
            return sample(
                model,
                ids,
                mask,
                uniforms.to(self.device),
                self.settings.temperature,
                self.ends,
                pad_token(self.tokenizer),
            )

    def _rewards(self, step: int, rows: Tensor, texts: list[str], responses: list[str]) -> Rewards:
        """The members' rewards of responses to the prompts in these rows."""
        found = checked_rewards(self.reward_fn(texts, responses), self.head, step, texts, responses)
        return dataclasses.replace(found, prompt=rows)

    @torch.no_grad()
    def _reference_rewards(self, prompts: list[str], ids: Tensor, mask: Tensor) -> Rewards:
        """The rewards of the reference's answers to the prompts of the run's first steps."""
        parts = []
        for batch in range(REFERENCE_BATCHES):
            rows = prompt_rows(
                len(prompts), self.settings.batch_size, batch, self.seed, self.run_seed
            )
            texts = [prompts[row] for row in rows]
            inputs = ids[rows].to(self.device), mask[rows].to(self.device)
            rollout = self._sample(self.reference, *inputs, "reference", batch)
            responses = decode_responses(
                self.tokenizer, *inputs, rollout.response_ids, rollout.mask
            )
            parts.append(self._rewards(self.run.step, rows, texts, responses).to(rollout.log_probs))
        return Rewards.joined(parts)

    def _signal(self, step: int, texts: list[str], rewards: Rewards) -> Signal:
        """The objective's signal for the rewards, checked."""
        self.run.step = step
        try:
            return evaluate(self.objective, rewards, self.beta, head=self.head, run=self.run)
        except NonFiniteSignal as error:
            prompts = some([texts[row] for row in error.rows])
            raise NonFiniteError(f"step {step}: {error}; the prompts were {prompts}") from error

    @torch.no_grad()
    def _experience(
        self,
        step: int,
        texts: list[str],
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        rollout: Rollout,
        signal: Signal,
    ) -> Experience:
        """The experience: the old and the reference's log-probabilities, and advantages."""
        settings = self.settings
        ids = torch.cat([prompt_ids, rollout.response_ids], dim=1)
        mask = torch.cat([prompt_mask, rollout.mask.to(prompt_mask.dtype)], dim=1)
        with self._precision():
            values = self.value(rollout.hidden_states, ids, mask)
            reference_log_probs, _ = response_statistics(
                self.reference, ids, mask, rollout.mask.shape[1], settings.temperature
            )
        reference_log_probs = reference_log_probs.masked_fill(~rollout.mask.bool(), 0.0)
        require_finite_rows(
            step, texts, "reference's log-probability", reference_log_probs.sum(dim=1)
        )
        token_rewards = losses.token_rewards(
            rollout.log_probs - reference_log_probs,
            rollout.mask,
            signal.score,
            signal.kl_coefficient,
        )
        advantages, returns = losses.gae(
            token_rewards, values, rollout.mask, settings.gamma, settings.lam
        )
        advantages = losses.masked_whiten(advantages, rollout.mask)
        if signal.weights is not None:
            advantages = advantages * signal.weights[:, None]
        coefficient = torch.zeros_like(values)
        if signal.penalty is not None:
            coefficient = coefficient + signal.penalty_coefficient[:, None]
        return Experience(
            *(ids, mask, rollout.mask, rollout.log_probs, values, advantages, returns),
            *(reference_log_probs, coefficient),
        )

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
        orders = [self._order(step, epoch) for epoch in range(settings.epochs)]
        for order in orders:
            for rows in order.to(self.device).split(settings.minibatch_size):
                minibatch = experience.rows(rows)
                self.optimizer.zero_grad()
                terms = self._gradients(minibatch, penalty)
                gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
                norm = nn.utils.get_total_norm(gradients)
                scale = (terms.pop("ratio") <= RATIO_THRESHOLD).to(norm.dtype)
                if settings.max_grad_norm is not None:
                    scale = scale * (settings.max_grad_norm / (norm + 1e-6)).clamp(max=1)
                # Reading it would wait for a GPU; on a CPU this saves a pass over memory.
                if scale.device.type != "cpu" or scale != 1:
                    torch._foreach_mul_(gradients, scale)
                self.optimizer.step()
                history.append({**terms, "gradient norm": norm})
        stacked = {name: torch.stack([terms[name] for terms in history]) for name in history[0]}
        require_finite_updates(step, orders, texts, stacked)
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
        return minibatch_order(self.settings.batch_size, step, epoch, self.seed, self.run_seed)

    def _fingerprint(self, prompts: list[str]) -> dict[str, Any]:
        """Everything that the run's outcome depends on, as far as the trainer knows."""
        return {
            "ppo": self.settings.model_dump(),
            "objective": {"name": name_of(self.objective), "digest": digest_of(self.objective)},
            "spread": self.run.spread.model_dump(),
            "judge": digest_of(self.judge),
            "last_layer": digest_of(self.run.last_layer and self.run.last_layer.gram),
            **{"head": self.head, "beta": self.beta, "seed": self.seed, "run_seed": self.run_seed},
            "prompts": hashlib.sha256(json.dumps(prompts).encode()).hexdigest(),
            "inputs": self.fingerprint,  # nested, so that it cannot hide the other keys
        }

    def _tensors(self) -> dict[str, Tensor]:
        """The tensors of a run's state, by name: parameters and Adam's moments.

        Streams have no state, and the learning rate is a function of the step, so these and the
        log, which gives the number of steps, are the whole state.
        """
        tensors = dict(self.parameters)
        for name, parameter in self.parameters.items():
            moments = self.optimizer.state[parameter]
            if not moments:  # as Adam initialises them at a parameter's first gradient
                moments["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                moments["exp_avg"] = torch.zeros_like(parameter)
                moments["exp_avg_sq"] = torch.zeros_like(parameter)
            tensors.update({f"adam.{name}.{moment}": value for moment, value in moments.items()})
        return tensors
