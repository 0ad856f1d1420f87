"""What a policy reads and where it stops, with tokenizers and models of several forms."""

import pandas as pd
import pytest
import torch
from tiny_models import tiny_model, tiny_tokenizer
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BartConfig,
    BartForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
    PreTrainedTokenizerFast,
)

from prudent import checkpoint_files
from prudent.errors import InputError
from prudent.policies.models import load_policy
from prudent.policies.reference import _tokenized, train_tokenizer
from prudent.policies.respond import sample_responses
from prudent.policies.text import decode_responses, encode_prompts, end_tokens, text_ids

WORDS = ["<s>", "</s>", "<|turn|>", "<pad>", *(f"w{i}" for i in range(4, 20)), "?"]
BOS, EOS, TURN = 0, 1, 2


def make_tokenizer(form: str = "<s> $A", **tokens) -> PreTrainedTokenizerFast:
    """Words between spaces, letters of what is none of them as "?"; ``form`` of a whole text."""
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = [AddedToken(word, special=True, normalized=False) for word in WORDS[:4]]
    words.add_special_tokens(special)
    if form != "$A":
        words.post_processor = processors.TemplateProcessing(
            single=form, special_tokens=[("<s>", BOS), ("</s>", EOS)]
        )
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"} | tokens
    return PreTrainedTokenizerFast(tokenizer_object=words, **tokens)


def make_model(rows: int = len(WORDS), **ends) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32}
    ends = {"bos_token_id": BOS, "eos_token_id": EOS} | ends
    return LlamaForCausalLM(LlamaConfig(vocab_size=rows, **sizes, **ends)).eval()


def saved(path, model=None, tokenizer=None):
    (model or make_model()).save_pretrained(path)
    (tokenizer or make_tokenizer()).save_pretrained(path)
    return path


@pytest.mark.parametrize(
    ("form", "before"),
    [
        ("$A", []),
        ("<s> $A", [BOS]),
        ("<s> $A </s>", [BOS]),
        ("$A </s>", []),
        ("<s> <s> $A", [0, 0]),
    ],
)
def test_training_sampling_and_checks_read_the_same_beginning(tmp_path, form, before):
    """What is written before a text, and no end behind one that is to be gone on with."""
    tokenizer = make_tokenizer(form)
    assert text_ids(tokenizer, ["w5 w6", ""]) == [[*before, 5, 6], before]
    ids, mask = encode_prompts(tokenizer, ["w5 w6", "w4"])
    assert ids[0].tolist() == [*before, 5, 6]
    assert ids[1][mask[1].bool()].tolist() == [*before, 4]
    texts = pd.DataFrame({"text": ["w5 w6", "w7 w8 w9"], "split": "train"})
    rows = _tokenized(tokenizer, texts, "train", len(before) + 3, EOS)["input_ids"]
    assert rows == [[*before, 5, 6, EOS], [*before, 7, 8, 9]]
    assert checkpoint_files.tokens_before(saved(tmp_path, tokenizer=tokenizer)) == len(before)


def test_tokenizers_of_other_forms_say_what_they_write_before_a_text(tmp_path):
    assert checkpoint_files.tokens_before(tmp_path) == 0
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": true}')
    assert checkpoint_files.tokens_before(tmp_path) == 1
    bert = '{"post_processor": {"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 2]}}'
    (tmp_path / "tokenizer.json").write_text(bert)
    assert checkpoint_files.tokens_before(tmp_path) == 1


def test_each_end_that_the_checkpoint_names_ends_a_response(tmp_path):
    model, tokenizer = make_model(eos_token_id=[EOS, TURN]), make_tokenizer()
    assert end_tokens(model, tokenizer) == (EOS, TURN)
    only_generation = make_model()
    only_generation.generation_config.eos_token_id = [TURN]
    assert end_tokens(only_generation, tokenizer) == (EOS, TURN)
    # A number that an architecture has by default may be a word of another tokenizer.
    assert end_tokens(make_model(eos_token_id=7), tokenizer) == (EOS,)
    with torch.no_grad():  # a model that says nothing but the other end
        model.lm_head.weight.zero_()
        model.lm_head.weight[TURN] = 100 * model.model.norm.weight.new_ones(16)
        model.model.norm.weight.zero_()
    both = load_policy(saved(tmp_path, model, tokenizer))
    assert end_tokens(*both) == (EOS, TURN)


def test_a_policy_without_an_end_is_refused(tmp_path):
    tokenizer = make_tokenizer(eos_token=None)
    path = saved(tmp_path, make_model(eos_token_id=None), tokenizer)
    with pytest.raises(InputError, match="names a token that ends a text"):
        load_policy(path)
    assert not checkpoint_files.names_an_end(path)
    assert checkpoint_files.names_an_end(saved(tmp_path / "other"))


def test_texts_that_spell_special_tokens_stay_texts():
    tokenizer = train_tokenizer(["a film of some words"] * 9, 270)
    text = "a film<|endoftext|> of <|pad|>"
    (row,) = text_ids(tokenizer, [text])
    assert not {*row} & {*tokenizer.all_special_ids}
    ids, mask = encode_prompts(tokenizer, [text])
    more = torch.tensor([[tokenizer.eos_token_id]])
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == text
    assert decode_responses(tokenizer, ids, mask, more, torch.ones(1, 1)) == [""]


def test_rows_of_a_padded_vocabulary_are_never_drawn(tmp_path):
    model = make_model(rows=64)
    with torch.no_grad():
        model.lm_head.weight[len(WORDS) :] *= 50  # what no token stands for would be likely
    loaded, tokenizer = load_policy(saved(tmp_path, model))
    assert loaded.get_output_embeddings().weight.shape[0] == len(WORDS) == loaded.config.vocab_size
    assert torch.equal(loaded.lm_head.weight.cpu(), model.lm_head.weight[: len(WORDS)])
    draws = torch.Generator().manual_seed(0)
    assert len(sample_responses(tmp_path, ["w5"] * 20, 8, 1.0, draws)) == 20


@pytest.mark.parametrize("kind", ["mamba", "openai", "bart"])
def test_models_that_cannot_go_on_from_a_cache_are_refused(tmp_path, kind):
    torch.manual_seed(0)
    if kind == "mamba":
        sizes = {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 1}
        model = MambaForCausalLM(MambaConfig(vocab_size=len(WORDS), **sizes))
    elif kind == "bart":  # half of an encoder-decoder, which counts padding among the positions
        sizes = {"d_model": 16, "decoder_layers": 1, "decoder_attention_heads": 2}
        config = BartConfig(vocab_size=len(WORDS), decoder_ffn_dim=32, is_decoder=True, **sizes)
        model = BartForCausalLM(config)
    else:
        sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}
        model = OpenAIGPTLMHeadModel(OpenAIGPTConfig(vocab_size=len(WORDS), **sizes))
    with pytest.raises(InputError, match=f"cannot be sampled from a {type(model).__name__}"):
        load_policy(saved(tmp_path, model))


def test_gpt2_whose_padding_is_its_end_learns_to_end(tmp_path):
    """The tokenizer of many checkpoints; masks say what is real."""
    config = GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=1, n_head=2, n_positions=16)
    tokenizer = make_tokenizer("$A", pad_token="</s>", bos_token="</s>")
    loaded, tokenizer = load_policy(saved(tmp_path, GPT2LMHeadModel(config), tokenizer))
    assert tokenizer.pad_token_id == EOS == end_tokens(loaded, tokenizer)[0]
    ids, mask = encode_prompts(tokenizer, ["w5", "w5 w6"])
    assert mask.tolist() == [[0, 1], [1, 1]]


def test_the_worlds_own_tokenizer_reads_texts_as_they_are():
    tokenizer = tiny_tokenizer()
    assert text_ids(tokenizer, ["w5 w6"]) == [tokenizer("w5 w6")["input_ids"]] == [[5, 6]]
    assert end_tokens(tiny_model(), tokenizer) == (0,)
