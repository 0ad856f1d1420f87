"""The reference policy: a checkpoint, unchanged or fine-tuned, or a GPT-2 trained from scratch."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from prudent.batches import collate
from prudent.checkpoints import check_length, save_checkpoint
from prudent.errors import InputError
from prudent.policies.models import load_policy
from prudent.policies.settings import ReferenceSettings
from prudent.policies.text import end_tokens, text_ids
from prudent.resuming import Resuming, TrainingCheckpoints
from prudent.seeding import derive_seed
from prudent.training import LossRecorder, common_arguments

EOS, PAD = "<|endoftext|>", "<|pad|>"

PIECE = 20_000
"""Characters of a text that the tokenizer's training reads at once."""


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer like GPT-2's, with a separate padding token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # The trainer is quadratic in runs of one kind of character, so texts come in pieces.
    pieces = (text[at : at + PIECE] for text in texts for at in range(0, len(text), PIECE))
    tokenizer.train_from_iterator(pieces, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=EOS,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )


def new_policy(tokenizer: PreTrainedTokenizerBase, settings: ReferenceSettings) -> PreTrainedModel:
    """A small GPT-2 without dropout, initialised from torch's current seed."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=settings.context,
            n_embd=settings.width,
            n_layer=settings.layers,
            n_head=settings.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            # The same function as GPT-2's own gelu_new, computed in one kernel.
            activation_function="gelu_pytorch_tanh",
            attn_implementation="eager",
        )
    )


def make_reference(
    texts: pd.DataFrame | None,
    settings: ReferenceSettings,
    seed: int,
    output: str | Path,
    checkpoints: TrainingCheckpoints | None = None,
) -> pd.DataFrame:
    """Writes the reference policy's checkpoint and returns its losses: step, split, loss.

    ``texts``: columns text and split, needed if it trains. ``InputError`` where it is missing.
    After an interruption the training goes on from ``checkpoints``.
    """
    trains = settings.checkpoint is None or settings.train
    if trains and (texts is None or not (texts["split"] == "train").any()):
        raise InputError("the reference policy is to be trained, but there are no training texts")
    stream = derive_seed(seed, "reference", "training") % 2**32
    set_seed(stream)
    if settings.checkpoint is None:
        tokenizer = train_tokenizer(
            texts.loc[texts["split"] == "train", "text"].tolist(), settings.vocabulary
        )
        model = new_policy(tokenizer, settings)
    else:
        model, tokenizer = load_policy(settings.checkpoint, settings.revision)
        if trains:
            check_length(model, settings.context, "reference.context is")
    losses = pd.DataFrame({"step": [], "split": [], "loss": []})
    if trains:
        losses = _train(model, tokenizer, texts, settings, stream, checkpoints)
    save_checkpoint(model, tokenizer, output)
    return losses


def _train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: pd.DataFrame,
    settings: ReferenceSettings,
    stream: int,
    checkpoints: TrainingCheckpoints | None,
) -> pd.DataFrame:
    ends = end_tokens(model, tokenizer)
    end = ends[0] if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    splits = {
        split: _tokenized(tokenizer, texts, split, settings.context, end)
        for split in ("train", "validation")
    }
    recorder = LossRecorder()
    with tempfile.TemporaryDirectory() as folder:
        trainer = ResumingTrainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                num_train_epochs=settings.epochs,
                per_device_train_batch_size=settings.batch_size,
                per_device_eval_batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
                lr_scheduler_type="cosine",
                warmup_steps=20,
                train_sampling_strategy="group_by_length",
                logging_steps=20,
                eval_strategy="epoch" if len(splits["validation"]) else "no",
                **common_arguments(stream, torch.cuda.is_available()),
            ),
            train_dataset=splits["train"],
            eval_dataset=splits["validation"] if len(splits["validation"]) else None,
            data_collator=lambda rows: _batch(rows, tokenizer.pad_token_id),
            callbacks=[recorder],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train_on(recorder, checkpoints)
    model.eval()
    return recorder.frame()[["step", "split", "loss"]]


class ResumingTrainer(Resuming, Trainer):
    """A trainer that goes on after an interruption."""


def _tokenized(
    tokenizer: PreTrainedTokenizerBase, texts: pd.DataFrame, split: str, context: int, end: int
) -> Dataset:
    """Rows of token ids: a text as policies read it, followed by EOS, cut to the context."""
    selected = texts.loc[texts["split"] == split, "text"].tolist()
    if not selected:
        return Dataset.from_dict({"input_ids": [], "length": []})
    rows = [[*row, end][:context] for row in text_ids(tokenizer, selected)]
    return Dataset.from_dict({"input_ids": rows, "length": [len(row) for row in rows]})


def _batch(rows: list[dict[str, list[int]]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """A padded batch whose labels are its real tokens, with EOS even if it is also the padding.

    The first token is not a label: nothing predicts it, but the trainer, which divides by the
    number of labels, would count it.
    """
    batch = collate([row["input_ids"] for row in rows], pad_token_id, torch.device("cpu"))
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    labels[:, 0] = -100
    return {**batch, "labels": labels}
