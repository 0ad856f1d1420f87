"""The base reward model: a sequence classifier with one label, trained with TRL's RewardTrainer.

Pairs are tokenized before they reach the trainer, by the same template and with the same
truncation as at scoring time. Two defaults of RewardTrainer are switched off: activation
checkpointing, which costs one more forward pass, and bfloat16, which is a setting here.

Several processes (see ``training.launch``) share each batch, so the losses equal those of one
process within rounding. But if the last batch of an epoch, or of the validation pairs, is not full,
they fill it with pairs of the first.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from datasets import Dataset
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
)
from trl import RewardConfig, RewardTrainer

from prudent.checkpoints import save_checkpoint
from prudent.errors import InputError, quoted
from prudent.precision import decided
from prudent.resuming import Resuming, TrainingCheckpoints
from prudent.rewards.models import new_reward_model
from prudent.rewards.settings import RewardSettings
from prudent.rewards.text import count_cut, encode_pairs, reward_tokenizer
from prudent.seeding import derive_seed
from prudent.training import LossRecorder, common_arguments, is_first

logger = logging.getLogger(__name__)


def check_processes(settings: RewardSettings, processes: int) -> None:
    """Raises InputError unless this many processes can share a batch."""
    at_once = settings.batch_size // settings.gradient_accumulation_steps
    if at_once % processes:
        raise InputError(
            f"reward.batch_size: {at_once} pairs at once cannot be shared by {processes} "
            "processes, one for each GPU; expected a multiple"
        )


def train_reward_model(
    preferences: pd.DataFrame,
    split: str,
    backbone: str | Path,
    settings: RewardSettings,
    seed: int,
    output: str | Path,
    checkpoints: TrainingCheckpoints | None = None,
) -> pd.DataFrame:
    """Trains on the pairs of ``split`` and writes a checkpoint whose tokenizer holds the template.
    It goes on from ``checkpoints`` after an interruption.

    Returns the losses: step, loss, accuracy, split (train or validation).
    """
    stream = derive_seed(seed, "reward", split, "training")
    model, tokenizer = start_reward_model(backbone, settings, stream)
    losses = fit_reward_model(
        *(model, tokenizer, preferences, split, settings, stream), checkpoints=checkpoints
    )
    if is_first():
        save_checkpoint(model, tokenizer, output)
    return losses


def start_reward_model(
    backbone: str | Path, settings: RewardSettings, stream: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """An untrained reward model, with a head drawn from ``stream``, and its tokenizer."""
    tokenizer = reward_tokenizer(
        backbone, settings.template, settings.max_length, settings.revision
    )
    model = new_reward_model(backbone, tokenizer, stream, settings.revision, settings.dropout)
    return model, tokenizer


def fit_reward_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    preferences: pd.DataFrame,
    split: str,
    settings: RewardSettings,
    stream: int,
    evaluations: int = 4,
    checkpoints: TrainingCheckpoints | None = None,
) -> pd.DataFrame:
    """Trains a started model in place on the pairs of ``split``; ``stream`` decides their order and
    the dropout. The model is evaluated ``evaluations`` times, the last time at the end. After an
    interruption it goes on from ``checkpoints``.

    Returns the losses: step, loss, accuracy, split (train or validation).
    """
    stream %= 2**32
    settings = decided(settings)
    if not (preferences["split"] == split).any():
        raise InputError(
            f"no pair of the preferences is in the split {quoted(split)}: nothing to train on"
        )
    train, validation = (
        tokenized_pairs(tokenizer, preferences[preferences["split"] == name])
        for name in (split, "validation")
    )
    check_ends(train["chosen_ids"], tokenizer, model.name_or_path)
    if settings.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise InputError(
            f"{model.name_or_path}: its architecture, {type(model).__name__}, computes no "
            "activations again; expected reward.gradient_checkpointing: false"
        )
    recorder = LossRecorder()
    steps = settings.epochs * math.ceil(len(train) / settings.batch_size)
    at_once = settings.batch_size // settings.gradient_accumulation_steps
    with tempfile.TemporaryDirectory() as folder:
        trainer = ResumingRewardTrainer(
            model=model,
            args=RewardConfig(
                output_dir=folder,
                num_train_epochs=settings.epochs,
                per_device_train_batch_size=at_once,
                gradient_accumulation_steps=settings.gradient_accumulation_steps,
                gradient_checkpointing=settings.gradient_checkpointing,
                per_device_eval_batch_size=at_once,
                learning_rate=settings.learning_rate,
                weight_decay=settings.weight_decay,
                lr_scheduler_type="cosine",
                max_length=None,
                activation_checkpointing=False,
                disable_dropout=settings.dropout == 0,
                train_sampling_strategy="group_by_length",
                remove_unused_columns=False,  # the sampler reads "length"
                accelerator_config={"split_batches": True},
                logging_steps=5,
                eval_strategy="steps" if len(validation) else "no",
                eval_steps=math.ceil(steps / evaluations),
                **common_arguments(stream, settings.bfloat16),
            ),
            train_dataset=train,
            eval_dataset=validation if len(validation) else None,
            processing_class=tokenizer,
            callbacks=[recorder, StopAtLoss(settings.stop_loss, recorder)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train_on(recorder, checkpoints)
        if len(validation) and recorder.last("validation") < trainer.state.global_step:
            trainer.evaluate()  # the training stopped early
        # Else the model would go on to compute in bfloat16 where that was its training's precision.
        trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_disable()
    model.eval()
    return recorder.frame()[["step", "loss", "accuracy", "split"]]


class ResumingRewardTrainer(Resuming, RewardTrainer):
    """TRL's trainer, which goes on after an interruption."""


def tokenized_pairs(tokenizer: PreTrainedTokenizerBase, pairs: pd.DataFrame) -> Dataset:
    """Pairs in RewardTrainer's tokenized form: chosen_ids, rejected_ids; and their length.

    Warns of responses that are too long by themselves, and lose their beginning; ``InputError`` as
    in ``encode_pairs``.
    """
    sides = encode_pairs(tokenizer, pairs)
    cut = sum(count_cut(tokenizer, ids, pairs[side].tolist()) for side, ids in sides.items())
    if cut:
        logger.warning(
            "%d of %d responses alone are longer than max_length, %d tokens: of them only the end "
            "is read",
            *(cut, 2 * len(pairs), tokenizer.model_max_length),
        )
    chosen, rejected = sides["chosen"], sides["rejected"]
    return Dataset.from_dict(
        {
            "chosen_ids": chosen,
            "rejected_ids": rejected,
            "length": [max(len(a), len(b)) for a, b in zip(chosen, rejected, strict=True)],
        }
    )


def check_ends(ids: Iterable[Sequence[int]], tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """``InputError`` where a text ends in the padding token, which the model would skip."""
    if any(row[-1] == tokenizer.pad_token_id for row in ids):
        raise InputError(
            f"{name}: texts end in the token {quoted(tokenizer.pad_token)}, which is also the "
            "padding, so the model would not read it; expected a padding token of its own, or "
            "another template"
        )


class StopAtLoss(TrainerCallback):
    """Ends the training when the mean of the last four logged losses is below a level.

    ``recorder`` comes before it among the trainer's callbacks.
    """

    def __init__(self, level: float, recorder: LossRecorder) -> None:
        self.level, self.recorder = level, recorder

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        if "loss" in (logs or {}):
            losses = [row["loss"] for row in self.recorder.rows if row["split"] == "train"]
            if len(losses) >= 4 and sum(losses[-4:]) / 4 < self.level:
                if is_first():
                    logger.info(
                        "training loss below %g at step %d: stop", self.level, state.global_step
                    )
                control.should_training_stop = True
