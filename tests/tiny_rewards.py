"""Tiny reward models in the form of the hub, decoders and encoders, and tokenizers for them."""

import copy
from pathlib import Path

import torch
from tiny_models import CONFIGS, VOCABULARY, tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from prudent.rewards.text import TEMPLATES

_ENCODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 70,
    "pad_token_id": 0,
}
REWARD_CONFIGS = CONFIGS | {"bert": BertConfig(**_ENCODER), "roberta": RobertaConfig(**_ENCODER)}
KINDS = ("gpt2", "llama", "bert", "roberta")


def _word_tokenizer(first: list[str], **special: str) -> tuple[Tokenizer, dict[str, str]]:
    words = first + [f"w{i}" for i in range(len(first), VOCABULARY)]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=words[-1]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer, special


def bert_tokenizer() -> PreTrainedTokenizerFast:
    """[CLS] in front of a text and [SEP] behind it; neither BOS nor EOS."""
    tokenizer, special = _word_tokenizer(
        ["[PAD]", "[CLS]", "[SEP]"], pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=60, **special)


def bos_tokenizer() -> PreTrainedTokenizerFast:
    """<s> in front of a text, as Llama's and Gemma's; </s> is EOS, and <pad> of its own."""
    tokenizer, special = _word_tokenizer(
        ["<pad>", "<s>", "</s>"], pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=60, **special)


def reward_tokenizer_of(kind: str, template: str = "continuation") -> PreTrainedTokenizerFast:
    """The tokenizer that goes with a tiny reward model, its template set."""
    makers = {"gpt2": tiny_tokenizer, "llama": bos_tokenizer}
    tokenizer = makers.get(kind, bert_tokenizer)()
    tokenizer.chat_template = TEMPLATES[template]
    tokenizer.model_max_length = 60
    return tokenizer


def tiny_reward_model(
    kind: str, tokenizer: PreTrainedTokenizerFast, labels: int = 1, seed: int = 0
):
    """A random reward model whose rewards differ widely between texts."""
    config = copy.deepcopy(REWARD_CONFIGS[kind])
    config.num_labels = labels
    config.pad_token_id = tokenizer.pad_token_id
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(
            config, attn_implementation="eager", dtype=torch.float32
        )
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(15.0)
    return model.eval()


def save_reward_model(
    path: Path, kind: str = "gpt2", labels: int = 1, seed: int = 0, template: str = "continuation"
) -> Path:
    """Writes a tiny reward model with its tokenizer."""
    tokenizer = reward_tokenizer_of(kind, template)
    tiny_reward_model(kind, tokenizer, labels, seed).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def random_texts(count: int, longest: int = 9, seed: int = 0) -> list[str]:
    """Texts of 1 to ``longest`` words that all tiny tokenizers know."""
    stream = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=stream).tolist()
    return [
        " ".join(f" w{i}" for i in torch.randint(3, VOCABULARY, (n,), generator=stream).tolist())
        for n in lengths
    ]
