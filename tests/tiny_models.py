"""Tiny language models of several architectures, from config alone, and tokenizers for them."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

VOCABULARY = 23
EOS = 0
PAD = 1

_BLOCKS = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": EOS,
    "eos_token_id": EOS,
    "pad_token_id": None,
}
CONFIGS = {
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=16,
        n_layer=2,
        n_head=4,
        n_positions=64,
        bos_token_id=EOS,
        eos_token_id=EOS,
    ),
    "llama": LlamaConfig(**_BLOCKS),
    "qwen2": Qwen2Config(**_BLOCKS),
    "mistral": MistralConfig(**_BLOCKS, sliding_window=64),
    # A token sees itself and the two in front of it.
    "mistral_window": MistralConfig(**_BLOCKS, sliding_window=3),
    # Its logits are bent, so they are no linear layer of the hidden states.
    "gemma2": Gemma2Config(
        **_BLOCKS,
        head_dim=4,
        query_pre_attn_scalar=4,
        sliding_window=3,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=2.0,
    ),
    "gpt_neox": GPTNeoXConfig(**{k: v for k, v in _BLOCKS.items() if k != "num_key_value_heads"}),
    "opt": OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        ffn_dim=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        word_embed_proj_dim=16,
        bos_token_id=EOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    ),
}
# Gemma 2 has eager attention alone, and in that the mask's value for float64 overflows.
EXACT = [name for name in CONFIGS if name != "gemma2"]


def tiny_model(architecture: str = "gpt2", seed: int = 0, spread: float = 6.0):
    """A random model whose next-token distributions are not uniform."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(
            CONFIGS[architecture], attn_implementation="eager", dtype=torch.float32
        )
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(spread)
    return model.eval()


def exact_model(architecture: str = "gpt2", seed: int = 0):
    """A tiny model in float64, of one of ``EXACT``, that is surer of its tokens."""
    model = tiny_model(architecture, seed, spread=15.0).double()
    model.set_attn_implementation("sdpa")
    return model


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Words w2, w3, ... between spaces; token 0 is EOS and token 1 is the padding."""
    vocabulary = {"<eos>": EOS, "<pad>": PAD}
    vocabulary.update({f"w{i}": i for i in range(2, VOCABULARY)})
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w2"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")


def metaspace_tokenizer() -> PreTrainedTokenizerFast:
    """A sentencepiece-like one, whose decoder drops the space in front of a text."""
    words = ["<eos>", "<pad>", "▁good", "▁bad", "▁film", "s", "!"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="!"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")


def tiny_prompts(count: int, seed: int = 0) -> list[str]:
    """Prompts of 1 to 6 words."""
    stream = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 7, (count,), generator=stream).tolist()
    return [
        " ".join(f"w{i}" for i in torch.randint(2, VOCABULARY, (n,), generator=stream).tolist())
        for n in lengths
    ]
