"""Proximal policy optimisation of a language model against an uncertain reward.

The semantics are those of TRL 0.11's ``PPOTrainer``, which the paper (2410.23726) used: one model
with a value head on its last hidden states; everything in evaluation mode, so no dropout; the KL
penalty (k1, per token, with the sampling policy's log-probabilities) inside the rewards; the score
on the last token; advantages whitened over the batch; clipped losses; Adam at a constant rate.

Two things differ. The old log-probabilities and values are taken from sampling instead of another
forward pass over the same tokens, and all randomness is in streams derived from the seeds and the
step, so a run is resumed without any generator's state, and runs that share a run seed see the same
prompts and the same draws whatever their objective is.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from prudent import kl, losses
from prudent.errors import InputError
from prudent.sampling import (
    decode_responses,
    encode_prompts,
    pad_token,
    response_statistics,
    sample,
)
from prudent.seeding import generator
from prudent.tables import atomic_path, remove

logger = logging.getLogger(__name__)

RewardFunction = Callable[[list[str], list[str]], Tensor]
Objective = Callable[[Tensor, int, float], tuple[Tensor, Tensor]]

RATIO_THRESHOLD = 10.0
"""A minibatch whose mean probability ratio is above this gets no gradient (as in TRL 0.11)."""


class NonFiniteError(InputError):
    """Training met an infinity or NaN; the message names the step and the term."""


@dataclass(frozen=True)
class PPOSettings:
    """Settings of a run; the defaults are the paper's (Table 6) and TRL 0.11's."""

    batch_size: int = 128
    minibatch_size: int = 128
    epochs: int = 4
    steps: int = 192
    learning_rate: float = 1.414e-5
    clip_range: float = 0.2
    value_clip_range: float = 0.2
    value_coefficient: float = 0.1
    gamma: float = 1.0
    lam: float = 0.95
    max_grad_norm: float | None = None
    checkpoint_every: int = 50
    response_length: int = 10
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name in ("batch_size", "minibatch_size", "epochs", "steps", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InputError(f"ppo.{name}: {getattr(self, name)}; it has to be at least 1")
        if self.batch_size % self.minibatch_size:
            raise InputError(
                f"ppo.minibatch_size: {self.minibatch_size} does not divide ppo.batch_size, "
                f"{self.batch_size}"
            )
        if self.response_length < 1 or self.temperature <= 0:
            raise InputError(
                f"sampling: response_length {self.response_length}, temperature "
                f"{self.temperature}; expected at least 1 token and a temperature above 0"
            )


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

    def rows(self, index: Tensor) -> Experience:
        """The part with these rows."""
        return Experience(*(getattr(self, field.name)[index] for field in fields(self)))


def prompt_rows(prompts: int, batch_size: int, step: int, seed: int, run_seed: int) -> Tensor:
    """Which prompts a step uses, [batch_size]: a new permutation each epoch, its rest dropped."""
    epoch, place = divmod(step, prompts // batch_size)
    stream = generator(seed, "policy", run_seed, "prompts", epoch)
    return torch.randperm(prompts, generator=stream)[place * batch_size :][:batch_size]


def minibatch_loss(
    policy: Any, value_head: nn.Linear, batch: Experience, settings: PPOSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's loss of a minibatch, a scalar with gradient, and its terms without."""
    log_probs, hidden_states = response_statistics(
        policy, batch.ids, batch.attention_mask, batch.mask.shape[1], settings.temperature
    )
    values = state_values(value_head, hidden_states)
    policy_loss, clip_fraction = losses.policy_loss(
        log_probs, batch.log_probs, batch.advantages, batch.mask, settings.clip_range
    )
    value_loss, _ = losses.value_loss(
        values, batch.values, batch.returns, batch.mask, settings.value_clip_range
    )
    ratio = losses.masked_mean(torch.exp(log_probs.detach() - batch.log_probs), batch.mask)
    keep = (ratio <= RATIO_THRESHOLD).to(ratio.dtype)
    loss = keep * (policy_loss + settings.value_coefficient * value_loss)
    terms = {
        "policy_loss": policy_loss.detach(),
        "value_loss": value_loss.detach(),
        "clip_fraction": clip_fraction,
    }
    return loss, terms


def state_values(value_head: nn.Linear, hidden_states: Tensor) -> Tensor:
    """Values of states, [B, T] from [B, T, d], in the head's precision."""
    return value_head(hidden_states.to(value_head.weight.dtype)).squeeze(-1)


class PPOTrainer:
    """Trains a causal LM to raise an objective's score at a price for leaving the reference.

    ``policy`` and ``reference`` are two Hugging Face causal LMs of one vocabulary; the policy is
    trained in place, on the device where it is. ``reward_fn`` maps prompts and responses, lists of
    B strings, to the heads' rewards [B, K]; ``objective`` (see ``prudent.objectives``) turns these
    into the score and KL coefficient of each response, given the policy's own ``head`` and
    ``beta``. ``seed`` is the study's, ``run_seed`` the run's. With ``checkpoints``, a folder, a run
    that was stopped goes on from its last checkpoint, provided that it is the same run: the same
    settings, prompts and ``fingerprint``, a string for all else that the outcome depends on (code,
    digests of inputs).

    Raises InputError for settings that do not fit each other, and NonFiniteError while training.
    """

    def __init__(
        self,
        policy: Any,
        reference: Any,
        tokenizer: Any,
        reward_fn: RewardFunction,
        objective: Objective,
        head: int,
        beta: float,
        settings: PPOSettings,
        seed: int,
        run_seed: int,
        checkpoints: Path | None = None,
        fingerprint: str = "",
    ) -> None:
        if policy is reference:
            raise InputError("the policy and the reference are one object; they have to be two")
        self.policy, self.reference, self.tokenizer = policy, reference, tokenizer
        self.reward_fn, self.objective = reward_fn, objective
        self.head, self.beta, self.settings = head, beta, settings
        self.seed, self.run_seed = seed, run_seed
        self.checkpoints = checkpoints
        self.fingerprint = fingerprint

        policy.eval()
        reference.eval().requires_grad_(False)
        self.device = policy.device
        self.value_head = _value_head(policy, generator(seed, "policy", run_seed, "value_head"))
        self.parameters = {
            **{f"policy.{name}": p for name, p in policy.named_parameters()},
            **{f"value_head.{name}": p for name, p in self.value_head.named_parameters()},
        }
        self.optimizer = torch.optim.Adam(
            self.parameters.values(), lr=settings.learning_rate, fused=True
        )

    def train(self, prompts: list[str]) -> list[dict[str, float]]:
        """Trains for the settings' steps and returns the log, one row a step."""
        settings = self.settings
        if len(prompts) < settings.batch_size:
            raise InputError(
                f"{len(prompts)} training prompts are fewer than ppo.batch_size, "
                f"{settings.batch_size}"
            )
        ids, mask = encode_prompts(self.tokenizer, prompts)
        limit = getattr(self.policy.config, "max_position_embeddings", None)
        if limit is not None and ids.shape[1] + settings.response_length > limit:
            raise InputError(
                f"the longest prompt has {ids.shape[1]} tokens and responses have "
                f"{settings.response_length}; the policy reads at most {limit}"
            )
        fingerprint = self._fingerprint(prompts)
        log = self._resume(fingerprint)
        for step in range(len(log), settings.steps):
            log.append(self.step(step, prompts, ids, mask))
            done = step + 1
            if done % 10 == 0 or done == settings.steps:
                logger.info(
                    "step %d of %d: KL %.3f, proxy reward %.3f, sigma %.3f, %.2f s",
                    *(done, settings.steps, log[-1]["kl"], log[-1]["proxy_reward"]),
                    *(log[-1]["sigma"], log[-1]["seconds"]),
                )
            if self.checkpoints and done % settings.checkpoint_every == 0 and done < settings.steps:
                self._save(log, fingerprint)
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
        rollout = sample(
            self.policy,
            prompt_ids,
            prompt_mask,
            uniforms.to(self.device),
            settings.temperature,
            self.tokenizer.eos_token_id,
            pad_token(self.tokenizer),
        )
        all_ids = torch.cat([prompt_ids, rollout.response_ids], dim=1)
        all_mask = torch.cat([prompt_mask, rollout.mask.to(prompt_mask.dtype)], dim=1)

        with torch.no_grad():
            values = state_values(self.value_head, rollout.hidden_states)

            # 3. The reference's log-probabilities of the same tokens.
            reference_log_probs, _ = response_statistics(
                self.reference, all_ids, all_mask, rollout.mask.shape[1], settings.temperature
            )
            log_ratio = (rollout.log_probs - reference_log_probs) * rollout.mask

            # 4. The heads' rewards, and what the objective makes of them.
            responses = decode_responses(
                self.tokenizer, prompt_ids, prompt_mask, rollout.response_ids, rollout.mask
            )
            scores = self._scores(step, texts, responses).to(rollout.log_probs)
            score, kl_coefficient = self.objective(scores, self.head, self.beta)
            _require_finite(
                step, {"objective's score": score, "objective's KL coefficient": kl_coefficient}
            )

            # 5. Token rewards, advantages and returns.
            rewards = losses.token_rewards(log_ratio, rollout.mask, score, kl_coefficient)
            advantages, returns = losses.gae(
                rewards, values, rollout.mask, settings.gamma, settings.lam
            )
            advantages = losses.masked_whiten(advantages, rollout.mask)
        experience = Experience(
            all_ids, all_mask, rollout.mask, rollout.log_probs, values, advantages, returns
        )

        # 6. Several epochs of updates on these responses.
        terms = self._update(step, experience)

        return {
            "step": step,
            "kl": kl.k1(log_ratio, rollout.mask).mean().item(),
            "kl_k3": kl.k3(log_ratio, rollout.mask).mean().item(),
            "proxy_reward": scores[:, self.head].mean().item(),
            "ensemble_reward": scores.mean().item(),
            "sigma": scores.std(dim=1).mean().item() if scores.shape[1] > 1 else float("nan"),
            "kl_coefficient": kl_coefficient.mean().item(),
            "score": score.mean().item(),
            "entropy": losses.masked_mean(rollout.entropies, rollout.mask).item(),
            "clip_fraction": terms["clip_fraction"],
            "policy_loss": terms["policy_loss"],
            "value_loss": terms["value_loss"],
            "learning_rate": settings.learning_rate,
            "tokens": int(rollout.mask.sum()),
            "seconds": time.perf_counter() - start,
        }

    def _update(self, step: int, experience: Experience) -> dict[str, float]:
        """The epochs of minibatches; returns the terms' means over all of them."""
        settings = self.settings
        history: list[dict[str, Tensor]] = []
        for epoch in range(settings.epochs):
            stream = generator(self.seed, "policy", self.run_seed, "minibatches", step, epoch)
            order = torch.randperm(settings.batch_size, generator=stream).to(self.device)
            for rows in order.split(settings.minibatch_size):
                loss, terms = minibatch_loss(
                    self.policy, self.value_head, experience.rows(rows), settings
                )
                self.optimizer.zero_grad()
                loss.backward()
                gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
                norm = nn.utils.get_total_norm(gradients)
                if settings.max_grad_norm is not None:
                    nn.utils.clip_grads_with_norm_(
                        self.parameters.values(), settings.max_grad_norm, norm
                    )
                self.optimizer.step()
                history.append({**terms, "gradient norm": norm})
        means = {name: torch.stack([terms[name] for terms in history]) for name in history[0]}
        _require_finite(step, means)
        return {name: values.mean().item() for name, values in means.items()}

    def _scores(self, step: int, prompts: list[str], responses: list[str]) -> Tensor:
        """The heads' rewards [B, K], checked."""
        scores = self.reward_fn(prompts, responses)
        if scores.ndim != 2 or scores.shape[0] != len(prompts):
            raise InputError(
                f"the reward function returned a tensor of shape {tuple(scores.shape)} for "
                f"{len(prompts)} responses; expected [{len(prompts)}, heads]"
            )
        if not 0 <= self.head < scores.shape[1]:
            raise InputError(
                f"the policy's head is {self.head}, and the reward function has {scores.shape[1]} "
                "heads, counted from 0"
            )
        bad = (~scores.isfinite()).any(dim=1).nonzero().flatten().tolist()
        if bad:
            raise NonFiniteError(
                f"step {step}: the reward is not finite for {len(bad)} of {len(prompts)} "
                f"responses, the first: prompt {prompts[bad[0]]!r}, response {responses[bad[0]]!r}"
            )
        return scores

    # Checkpoints: parameters, Adam's moments and the log in one file. Streams have no state.

    def _fingerprint(self, prompts: list[str]) -> str:
        """A digest of all that the run's outcome depends on, as far as the trainer knows it."""
        parts = (
            *(asdict(self.settings), self.objective.__name__, self.head, self.beta),
            *(self.seed, self.run_seed, prompts, self.fingerprint),
        )
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _save(self, log: list[dict[str, float]], fingerprint: str) -> None:
        tensors = {name: p.detach() for name, p in self.parameters.items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            tensors.update({f"adam.{i}.{name}": value for name, value in moments.items()})
        with atomic_path(self.checkpoints / "checkpoint.safetensors") as temporary:
            metadata = {"fingerprint": fingerprint, "log": json.dumps(log)}
            save_file(
                {name: tensor.contiguous() for name, tensor in tensors.items()},
                temporary,
                metadata=metadata,
            )

    def _resume(self, fingerprint: str) -> list[dict[str, float]]:
        """Restores the last checkpoint, if it is this run's, and returns its log."""
        path = self.checkpoints / "checkpoint.safetensors" if self.checkpoints else None
        if path is None or not path.exists():
            return []
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, OSError) as error:
            logger.warning("%s: not a readable checkpoint (%s); starting afresh", path, error)
            return []
        if metadata is None or metadata.get("fingerprint") != fingerprint:
            logger.warning(
                "%s: the checkpoint is of other settings, code or inputs; starting afresh", path
            )
            return []
        state: dict[int, dict[str, Tensor]] = {}
        with torch.no_grad():
            for name, tensor in tensors.items():
                if name.startswith("adam."):
                    _, index, moment = name.split(".")
                    state.setdefault(int(index), {})[moment] = tensor
                else:
                    self.parameters[name].copy_(tensor)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        log = json.loads(metadata["log"])
        logger.info("%s: going on after step %d", path, len(log))
        return log

    def remove_checkpoints(self) -> None:
        """Deletes the checkpoints; to be called when the outcome has been saved."""
        if self.checkpoints:
            remove(self.checkpoints)


def _value_head(policy: Any, stream: torch.Generator) -> nn.Linear:
    """A linear head in float32 at least, with nn.Linear's own initialisation, from a stream."""
    width = policy.config.hidden_size
    dtype = torch.promote_types(policy.dtype, torch.float32)
    head = nn.utils.skip_init(nn.Linear, width, 1, device=policy.device, dtype=dtype)
    with torch.no_grad():
        for parameter in head.parameters():
            draws = torch.rand(parameter.shape, generator=stream, dtype=dtype)
            parameter.copy_((2 * draws - 1) / width**0.5)
    return head


def _require_finite(step: int, terms: dict[str, Tensor]) -> None:
    for name, values in terms.items():
        if not values.isfinite().all():
            raise NonFiniteError(
                f"step {step}: the {name.replace('_', ' ')} is not finite; a smaller learning rate "
                "or a larger KL coefficient may help"
            )
