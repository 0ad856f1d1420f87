"""LoRA adapters with a head each on one frozen backbone (2401.16635; UP-RLHF, 2401.00243).

Members are peft adapters, trained together with one Bradley-Terry loss each or with the loss of
their mean reward (UP-RLHF), and optionally with UP-RLHF's diversity. Each has its own head, and its
own copy of any other layer between backbone and reward, such as an encoder's pooling layer.
"""

from __future__ import annotations

import itertools
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from prudent.batches import collate
from prudent.checkpoint_files import read_json
from prudent.checkpoints import (
    load_tensors,
    require_finite,
    save_checkpoint,
    save_tensors,
    why,
)
from prudent.errors import InputError, quoted
from prudent.precision import decided
from prudent.rewards.ensemble import RewardEnsemble, finite_numbers, load_classifier
from prudent.rewards.features import BATCH_TOKENS, extract, extract_ids
from prudent.rewards.fitting import Record, loss_table
from prudent.rewards.interface import Rewards
from prudent.rewards.losses import bradley_terry
from prudent.rewards.material import Material
from prudent.rewards.models import HEAD, final_linear
from prudent.rewards.settings import AdapterSettings, RewardSettings
from prudent.rewards.text import Prompt, checked_texts, encode
from prudent.rewards.training import check_ends, start_reward_model, tokenized_pairs
from prudent.seeding import derive_seed, generator
from prudent.tables import atomic_path, write_json

try:
    from peft import (
        LoraConfig,
        PeftModel,
        get_peft_model,
        get_peft_model_state_dict,
        set_peft_model_state_dict,
    )
    from peft.tuners.lora import LoraLayer
    from peft.utils import (
        TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULT_TARGETS,
    )
except ImportError as error:
    raise InputError(
        f"ensembles of adapters need the package peft ({error}); install it with "
        "`pip install 'prudent[adapters]'`"
    ) from error

logger = logging.getLogger(__name__)


class AdapterEnsemble:
    """K adapters on one backbone: ``ensemble(prompts, responses) -> Rewards``."""

    def __init__(
        self,
        model: PreTrainedModel,
        adapted: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        offsets: Sequence[float] | Tensor,
        path: Path | None = None,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        """model: the backbone inside ``adapted``; path: the checkpoint, if there is one."""
        self.model, self.adapted, self.tokenizer = model, adapted, tokenizer
        self.offsets = torch.as_tensor(offsets, dtype=torch.float32)
        self.path, self.batch_tokens = path, batch_tokens

    @classmethod
    def load(cls, path: str | Path, batch_tokens: int = BATCH_TOKENS) -> AdapterEnsemble:
        """Loads a checkpoint of ``train``; ``InputError`` if a part is missing or does not fit."""
        path = Path(path)
        offsets = read_json(path / "config.json").get("reward_offsets")
        if not offsets or not finite_numbers(offsets):
            raise InputError(
                f"{path}: config.json: reward_offsets is {quoted(offsets)}; expected a list of "
                "finite numbers, one for each member"
            )
        model, tokenizer = load_classifier(path / "backbone")
        adapted = None
        for member in range(len(offsets)):
            folder = path / _name(member)
            read_json(folder / "adapter_config.json")
            try:
                config = LoraConfig.from_pretrained(folder)
                adapted = _with_adapter(model, adapted, config, member)
            except Exception as error:  # of many classes
                raise InputError(
                    f"{folder}: adapter_config.json: no adapter of the backbone: {why(error)}"
                ) from error
            wanted = _state(adapted, member)
            file = folder / "adapter_model.safetensors"
            found = load_tensors(file, {name: value.shape for name, value in wanted.items()})
            set_peft_model_state_dict(adapted, found, adapter_name=_name(member))
        adapted.requires_grad_(False)
        return cls(model, adapted.eval(), tokenizer, offsets, path, batch_tokens)

    @property
    def members(self) -> int:
        """The number of members K."""
        return len(self.offsets)

    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Rewards:
        """The members' rewards [B, K], float32 on the CPU."""
        prompts, responses = checked_texts(prompts, responses)
        return self.of_ids(encode(self.tokenizer, prompts, responses), responses)

    def of_ids(self, ids: Sequence[Sequence[int]], responses: Sequence[str]) -> Rewards:
        """The same for token ids."""
        columns = []
        for member in range(self.members):
            self.adapted.base_model.set_adapter(_name(member), inference_mode=True)
            layer = _final(self.model, member)
            features = extract_ids(
                self.model,
                ids,
                self.tokenizer.pad_token_id,
                responses,
                self.batch_tokens,
                layer=(f"of {_name(member)}", layer),
            )
            with torch.no_grad():
                columns.append(layer(features.to(layer.weight)).float().cpu())
        return Rewards(torch.cat(columns, dim=1) - self.offsets)

    def untrained(self, backbone: str | Path | None = None) -> RewardEnsemble | None:
        """The fresh heads on the plain backbone, which adapters do not change at first; None if
        they were not kept."""
        path = self.path / "untrained.safetensors" if self.path else None
        if path is None or not path.is_file():
            return None
        before = RewardEnsemble(*load_classifier(self.path / "backbone"), self.batch_tokens)
        shapes = {"weight": (self.members, before.weight.shape[1]), "offsets": (self.members,)}
        found = load_tensors(path, shapes)
        before.weight, before.bias = found["weight"], -found["offsets"]
        return before


def train(
    material: Material,
    settings: AdapterSettings,
    count: int,
    seed: int,
    draw: int,
    output: str | Path,
) -> pd.DataFrame:
    """Trains ensemble ``draw`` of ``count`` adapters, writes it, and returns the losses.

    The checkpoint holds the plain backbone with its tokenizer, a peft folder for each member, and
    the reward offsets in config.json.
    """
    output = Path(output)
    stream = derive_seed(seed, "adapters", draw, "training")
    start = material.backbone if settings.start == "backbone" else material.base_model()
    model, tokenizer = start_reward_model(start, material.reward, stream)
    texts = material.centring_texts(seed)
    mean = extract(model, tokenizer, *texts).mean(0)
    with atomic_path(output) as folder:
        save_checkpoint(model, tokenizer, folder / "backbone")
        adapted = add_adapters(model, settings, count, seed, draw)
        weight = torch.cat([_final(model, k).weight.detach().cpu().clone() for k in range(count)])
        ensemble = AdapterEnsemble(model, adapted, tokenizer, torch.zeros(count))
        pairs = material.labels(seed, draw, "adapters")
        losses = _fit(ensemble, pairs, settings, material.reward, seed, draw)
        offsets = ensemble(*texts).mean.mean(0)
        require_finite(adapted, str(output))
        untrained = {"weight": weight, "offsets": mean @ weight.T}
        save_tensors(untrained, folder / "untrained.safetensors")
        for member in range(count):
            place = folder / _name(member)
            place.mkdir()
            tensors = _state(adapted, member)
            save_tensors(tensors, place / "adapter_model.safetensors")
            config = adapted.peft_config[_name(member)].to_dict()
            sets = {key: sorted(value) for key, value in config.items() if isinstance(value, set)}
            own = {"base_model_name_or_path": "backbone", "inference_mode": True}
            write_json(config | sets | own, place / "adapter_config.json")
        config = {"reward_ensemble": "adapters", "reward_offsets": offsets.tolist()}
        write_json(config, folder / "config.json")
    return losses


def add_adapters(
    model: PreTrainedModel, settings: AdapterSettings, count: int, seed: int, draw: int
) -> PeftModel:
    """Puts ``count`` adapters into a reward model, each with a head of its own, all trainable.

    At first they do nothing (B = 0). Heads are drawn as Hugging Face draws them.
    """
    final_linear(model)  # fails if there is none
    found = (HEAD.search(name) for name, _ in model.named_parameters())
    heads = {match[0].strip(".").split(".")[-1] for match in found if match}
    targets = DEFAULT_TARGETS.get(model.config.model_type)
    if targets is None:
        raise InputError(
            f"{model.name_or_path}: peft knows no place for adapters in the architecture "
            f"{model.config.model_type}"
        )
    if settings.embeddings:
        words = model.get_input_embeddings()
        (name,) = (name for name, module in model.named_modules() if module is words)
        targets = [*targets, name.rpartition(".")[2]]
    adapted = None
    for member in range(count):
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            target_modules=targets,
            modules_to_save=sorted(heads),
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        )
        init = derive_seed(seed, "adapters", draw, "init", member)
        with torch.random.fork_rng():
            torch.manual_seed(init % 2**32)
            adapted = _with_adapter(model, adapted, config, member)
            layer = _final(model, member)
            nn.init.normal_(layer.weight, std=getattr(model.config, "initializer_range", 0.02))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return adapted


def diversity(stacked: Sequence[Tensor]) -> Tensor:
    """UP-RLHF's diversity of members (2401.00243, equation 12), to be maximised.

    The mean over the layers of ||A||_* / ||A||_F, where A stacks the members' A matrices
    [K rank, width]: 1 if all rows are multiples of one row, sqrt(K rank) if they are orthogonal and
    of equal length.
    """
    ratios = [torch.linalg.matrix_norm(A, "nuc") / torch.linalg.matrix_norm(A) for A in stacked]
    return torch.stack(ratios).mean()


def _fit(
    ensemble: AdapterEnsemble,
    pairs: pd.DataFrame,
    settings: AdapterSettings,
    reward: RewardSettings,
    seed: int,
    draw: int,
) -> pd.DataFrame:
    """Trains the adapters in place: AdamW, cosine schedule, on the training pairs."""
    adapted, tokenizer, model = ensemble.adapted, ensemble.tokenizer, ensemble.model
    count = ensemble.members
    texts = {
        split: tokenized_pairs(tokenizer, pairs[pairs["split"] == split])
        for split in ("train", "validation")
    }
    chosen, rejected = (texts["train"][f"{side}_ids"][:] for side in ("chosen", "rejected"))
    if not chosen:
        raise InputError("no pair of the preferences is in the split 'train': nothing to train on")
    check_ends(chosen, tokenizer, model.name_or_path)
    members = [_parameters(adapted, member) for member in range(count)]
    trained = [parameter for own in members for parameter in own]
    optimizer = torch.optim.AdamW(
        trained, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    steps = max(1, round(settings.epochs * len(chosen) / settings.batch_size))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = _Losses(draw, steps)
    bfloat16 = decided(reward, model.device.type).bfloat16

    def margins(member: int, rows: list[int]) -> Tensor:
        _activate(adapted, member, trained)
        ids = [chosen[row] for row in rows] + [rejected[row] for row in rows]
        batch = collate(ids, tokenizer.pad_token_id, model.device)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16):
            rewards = model(**batch).logits[:, :1].float()
        return rewards[: len(rows)] - rewards[len(rows) :]

    def validate(step: int) -> None:
        sides = [texts["validation"][f"{side}_ids"][:] for side in ("chosen", "rejected")]
        if sides[0]:
            one, other = (ensemble.of_ids(ids, [""] * len(ids)).mean for ids in sides)
            losses.record(step, "validation", one - other)

    own_order = settings.order == "own" and settings.loss == "members"
    batches = [
        _batches(settings.batch_size, len(chosen), steps, seed, draw, member if own_order else 0)
        for member in range(count)
    ]
    validate(0)
    model.train(reward.dropout > 0)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "adapters", draw, "dropout") % 2**32)
        for step, rows in enumerate(zip(*batches, strict=True), start=1):
            optimizer.zero_grad()
            found = []
            for member in range(count):
                found.append(margins(member, rows[member]))
                if settings.loss == "members":
                    bradley_terry(found[-1]).sum().backward()
                    found[-1] = found[-1].detach()
            together = torch.cat(found, dim=1)
            if settings.loss == "mean":
                bradley_terry(together.mean(1, keepdim=True)).sum().backward()
            if settings.diversity:
                (-settings.diversity * diversity(_stacked(adapted, count))).backward()
            for own in members:
                nn.utils.clip_grad_norm_(own, 1.0)  # as in Hugging Face's trainer
            optimizer.step()
            schedule.step()
            losses.record(step, "train", together)
    model.eval()
    validate(steps)
    return loss_table(losses.records, draw)


class _Losses:
    """The members' losses and accuracies during a training."""

    def __init__(self, draw: int, steps: int) -> None:
        self.draw, self.steps = draw, steps
        self.records: list[Record] = []

    def record(self, step: int, split: str, margins: Tensor) -> None:
        """Keeps those of margins [n, K]; ``InputError`` where a loss is not finite."""
        margins = margins.detach().cpu()
        losses = bradley_terry(margins)
        if not losses.isfinite().all():
            member = int((~losses.isfinite()).nonzero()[0])
            raise InputError(
                f"ensemble {self.draw}, step {step} of {self.steps}: the {split} loss of member "
                f"{member} is {losses[member]}, expected a finite one; a smaller "
                "adapters.learning_rate may help"
            )
        self.records.append((step, split, losses, (margins > 0).float().mean(0)))
        if split == "validation" or step % 50 == 0:
            logger.info(
                "ensemble %d, step %d of %d: mean %s loss %.4f",
                *(self.draw, step, self.steps, split, losses.mean()),
            )


def _parameters(adapted: PeftModel, member: int) -> list[nn.Parameter]:
    """A member's parameters."""
    named = adapted.named_parameters()
    return [parameter for name, parameter in named if _name(member) in name.split(".")]


def _stacked(adapted: PeftModel, count: int) -> list[Tensor]:
    """The members' A matrices of each layer, stacked; embeddings have none."""
    layers = (module for module in adapted.modules() if isinstance(module, LoraLayer))
    return [
        torch.cat([layer.lora_A[_name(member)].weight for member in range(count)])
        for layer in layers
        if layer.lora_A
    ]


def _batches(
    batch_size: int, pairs: int, steps: int, seed: int, draw: int, member: int
) -> Iterator[list[int]]:
    """The pairs of each step; every pass over the data has its own order."""
    done = 0
    for epoch in itertools.count():
        draws = generator(seed, "adapters", draw, "order", epoch, member)
        for rows in torch.randperm(pairs, generator=draws).split(batch_size):
            if done == steps:
                return
            yield rows.tolist()
            done += 1


def _activate(adapted: PeftModel, member: int, trained: Sequence[Tensor]) -> None:
    """Activates a member's adapter and keeps all parameters trainable: peft freezes the others',
    whose gradients would be lost where several members share one loss."""
    adapted.base_model.set_adapter(_name(member))
    for parameter in trained:
        parameter.requires_grad_(True)


def _with_adapter(
    model: PreTrainedModel, adapted: PeftModel | None, config: LoraConfig, member: int
) -> PeftModel:
    """``model`` with one more adapter."""
    config.base_model_name_or_path = None  # the folder it comes from
    # peft reads deprecated attributes of transformers.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        if adapted is None:
            return get_peft_model(model, config, adapter_name=_name(member))
        adapted.add_adapter(_name(member), config)
        return adapted


def _state(adapted: PeftModel, member: int) -> dict[str, Tensor]:
    """A member's weights, named as peft names them in files."""
    return get_peft_model_state_dict(
        adapted, adapter_name=_name(member), save_embedding_layers=False
    )


def _name(member: int) -> str:
    return f"member_{member}"


def _final(model: PreTrainedModel, member: int) -> nn.Linear:
    """A member's final linear layer."""
    for name in ("score", "classifier"):
        copies = getattr(getattr(model, name, None), "modules_to_save", {})
        if _name(member) in copies:
            layer = copies[_name(member)]
            return layer if isinstance(layer, nn.Linear) else layer.out_proj
    raise InputError(f"{model.name_or_path}: {_name(member)} has no final linear layer of its own")
