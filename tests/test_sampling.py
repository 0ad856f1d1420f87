"""Sampling and response statistics against one-row forward passes without padding or cache."""

import math

import pytest
import torch
from tiny_models import (
    CONFIGS,
    EOS,
    EXACT,
    PAD,
    VOCABULARY,
    exact_model,
    metaspace_tokenizer,
    tiny_model,
    tiny_prompts,
    tiny_tokenizer,
)

from prudent.errors import InputError
from prudent.policies import sampling
from prudent.policies.sampling import (
    entropy,
    inverse_cdf,
    response_statistics,
    sample,
    token_kl,
)
from prudent.policies.text import decode_responses, encode_prompts

ARCHITECTURES = pytest.mark.parametrize("architecture", CONFIGS)
T = 9


def prompts_and_uniforms(count: int = 12) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ids, mask = encode_prompts(tiny_tokenizer(), tiny_prompts(count))
    return ids, mask, torch.rand(count, T, generator=torch.Generator().manual_seed(1))


def one_row(model, prompt: torch.Tensor, response: torch.Tensor, temperature: float):
    """Log-probabilities, distributions and hidden states of one response, by the plain model."""
    ids = torch.cat([prompt, response])[None]
    with torch.no_grad():
        output = model(input_ids=ids, output_hidden_states=True)
    distribution = (output.logits[0] / temperature).log_softmax(-1)[len(prompt) - 1 : -1]
    hidden = output.hidden_states[-1][0, len(prompt) - 1 : -1]
    return distribution[torch.arange(len(response)), response], distribution, hidden


@ARCHITECTURES
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_rollout_and_statistics_agree_with_the_plain_model(architecture, temperature):
    model = tiny_model(architecture)
    ids, mask, uniforms = prompts_and_uniforms()
    rollout = sample(model, ids, mask, uniforms, temperature, (EOS,), PAD)
    lengths = rollout.mask.sum(dim=1).long()
    assert lengths.min() < rollout.mask.shape[1], "no response ended early: the test shows nothing"
    all_ids = torch.cat([ids, rollout.response_ids], dim=1)
    all_mask = torch.cat([mask, rollout.mask.long()], dim=1)
    width = rollout.mask.shape[1]
    log_probs, hidden = response_statistics(model, all_ids, all_mask, width, temperature)
    for row, length in enumerate(lengths):
        prompt, response = ids[row][mask[row].bool()], rollout.response_ids[row, :length]
        expected = one_row(model, prompt, response, temperature)
        entropy = -(expected[1].exp() * expected[1]).sum(-1)
        for found, wanted in (
            (rollout.log_probs, expected[0]),
            (rollout.entropies, entropy),
            (rollout.hidden_states, expected[2]),
            (log_probs, expected[0]),
            (hidden, expected[2]),
        ):
            torch.testing.assert_close(found[row, :length], wanted, rtol=1e-4, atol=1e-5)


@ARCHITECTURES
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_kl_of_each_token_is_that_of_the_plain_models(monkeypatch, architecture, temperature):
    """Also where logits of a few rows fit at once."""
    policy, reference = tiny_model(architecture), tiny_model(architecture, 1)
    ids, mask, uniforms = prompts_and_uniforms()
    rollout = sample(policy, ids, mask, uniforms, temperature, (EOS,), PAD)
    all_ids = torch.cat([ids, rollout.response_ids], dim=1)
    all_mask = torch.cat([mask, rollout.mask.long()], dim=1)
    width = rollout.mask.shape[1]
    given = (all_ids, all_mask, width, temperature)
    found = token_kl(policy, reference, *given)
    monkeypatch.setitem(sampling.CHUNK_BYTES, "cpu", 8 * width * VOCABULARY * 5)
    torch.testing.assert_close(token_kl(policy, reference, *given), found)
    for row, length in enumerate(rollout.mask.sum(dim=1).long()):
        prompt, response = ids[row][mask[row].bool()], rollout.response_ids[row, :length]
        own, other = (
            one_row(model, prompt, response, temperature)[1] for model in (policy, reference)
        )
        expected = (own.exp() * (own - other)).sum(-1)
        torch.testing.assert_close(found[row, :length], expected, rtol=1e-3, atol=1e-5)
    same = token_kl(policy, policy, *given)
    assert same.abs().max() < 1e-6


def test_the_kls_of_tokens_add_up_to_that_of_responses():
    """In expectation: over all responses of two tokens to one prompt, by enumeration."""
    policy, reference = (tiny_model("gpt2", seed).double() for seed in (0, 1))
    first = torch.arange(VOCABULARY).repeat_interleave(VOCABULARY)
    second = torch.arange(VOCABULARY).repeat(VOCABULARY)
    ids = torch.stack([torch.full_like(first, 9), first, second], dim=1)
    given = (ids, torch.ones_like(ids), 2, 1.0)
    own, other = (response_statistics(model, *given)[0].sum(1) for model in (policy, reference))
    assert own.exp().sum().item() == pytest.approx(1.0), "all responses are there"
    expected = (own.exp() * (own - other)).sum()
    found = (own.exp() * token_kl(policy, reference, *given).sum(1)).sum()
    torch.testing.assert_close(found, expected)
    assert expected > 0.1


def test_a_token_that_is_ruled_out_adds_nothing():
    policy, reference = tiny_model("gpt2", 0), tiny_model("gpt2", 1)
    ids = torch.tensor([[9, 10, 11]])
    given = (ids, torch.ones_like(ids), 2, 1e-3)
    assert token_kl(policy, reference, *given).isfinite().all()


@ARCHITECTURES
def test_the_probability_ratio_is_one_before_an_update(architecture):
    model = tiny_model(architecture)
    ids, mask, uniforms = prompts_and_uniforms()
    rollout = sample(model, ids, mask, uniforms, 1.0, (EOS,), PAD)
    all_ids = torch.cat([ids, rollout.response_ids], dim=1)
    all_mask = torch.cat([mask, rollout.mask.long()], dim=1)
    log_probs, _ = response_statistics(model, all_ids, all_mask, rollout.mask.shape[1], 1.0)
    ratio = torch.exp(log_probs - rollout.log_probs)[rollout.mask.bool()]
    torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=2e-5)


@ARCHITECTURES
def test_order_company_and_padding_of_the_rows_change_nothing(architecture):
    model = tiny_model(architecture)
    ids, mask, uniforms = prompts_and_uniforms()
    rollout = sample(model, ids, mask, uniforms, 1.0, (EOS,), PAD)

    def same(other, rows):
        width = min(other.mask.shape[1], rollout.mask.shape[1])
        for name in ("response_ids", "mask"):
            found, wanted = getattr(other, name), getattr(rollout, name)[rows]
            assert torch.equal(found[:, :width], wanted[:, :width])
        assert not other.mask[:, width:].any()
        found, wanted = other.log_probs[:, :width], rollout.log_probs[rows, :width]
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)

    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(2))
    same(sample(model, ids[order], mask[order], uniforms[order], 1.0, (EOS,), PAD), order)
    for row in range(3):
        one = slice(row, row + 1)
        same(sample(model, ids[one], mask[one], uniforms[one], 1.0, (EOS,), PAD), one)
    wider = torch.cat([torch.full((len(ids), 5), 7), ids], dim=1)
    wider_mask = torch.cat([torch.zeros(len(ids), 5, dtype=torch.long), mask], dim=1)
    same(sample(model, wider, wider_mask, uniforms, 1.0, (EOS,), PAD), slice(None))


@pytest.mark.parametrize("architecture", EXACT)
def test_statistics_of_a_row_are_its_own(architecture):
    """To rounding in float64: other rows, padding on the left and columns behind change nothing."""
    model = exact_model(architecture)
    ids, mask, uniforms = prompts_and_uniforms()
    rollout = sample(model, ids, mask, uniforms, 1.0, (EOS,), PAD)
    assert not mask.all() and not rollout.mask.all(), "no padding: the test shows nothing"
    ids, mask = (
        torch.cat(parts, dim=1)
        for parts in ((ids, rollout.response_ids), (mask, rollout.mask.long()))
    )
    width = rollout.mask.shape[1]
    every = torch.arange(len(ids))
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(2))

    def check(ids, mask, width, rows):
        """Against what was sampled."""
        log_probs, hidden = response_statistics(model, ids, mask, width, 1.0)
        real = rollout.mask[rows].bool()
        for found, wanted in ((log_probs, rollout.log_probs), (hidden, rollout.hidden_states)):
            found = found[:, : real.shape[1]][real]
            torch.testing.assert_close(found, wanted[rows][real], rtol=0, atol=1e-9)

    with torch.no_grad():
        check(ids, mask, width, every)
        check(ids[order], mask[order], width, order)
        for row in every:
            check(ids[row, None], mask[row, None], width, row[None])
        sevens = torch.full((len(ids), 4), 7)
        nothing = torch.zeros_like(sevens)
        check(torch.cat([sevens, ids], 1), torch.cat([nothing, mask], 1), width, every)
        check(torch.cat([ids, sevens], 1), torch.cat([mask, nothing], 1), width + 4, every)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.01, 0.001])
def test_entropy_is_never_negative_however_sure_the_policy(temperature, dtype):
    model = tiny_model(spread=15.0).to(dtype)
    ids, mask, uniforms = prompts_and_uniforms(40)
    rollout = sample(model, ids, mask, uniforms, temperature, (EOS,), PAD)
    assert not mask.all() and not rollout.mask.all(), "no padding: the test shows nothing"
    assert (rollout.entropies >= 0).all()
    assert not rollout.entropies[rollout.mask == 0].any()
    # It is near 0 because the policy is sure, and not where it is not.
    unsure = rollout.log_probs < -1e-3
    assert (rollout.entropies[unsure] > 1e-3).all()
    if temperature == 0.001:
        assert (rollout.entropies < 1e-3).sum() > 100


def test_eos_ends_a_response_and_belongs_to_it():
    model = tiny_model()
    ids, mask, uniforms = prompts_and_uniforms(40)
    free = sample(model, ids, mask, uniforms, 1.0, (), PAD)
    assert free.mask.all()
    assert free.response_ids.shape == (40, T)
    rollout = sample(model, ids, mask, uniforms, 1.0, (EOS,), PAD)
    ended = 0
    for row in range(40):
        tokens = free.response_ids[row].tolist()
        length = tokens.index(EOS) + 1 if EOS in tokens else T
        ended += length < T
        assert rollout.response_ids[row].tolist() == tokens[:length] + [PAD] * (T - length)
        assert rollout.mask[row].tolist() == [1.0] * length + [0.0] * (T - length)
    assert ended > 3
    outside = rollout.mask == 0
    assert not rollout.log_probs[outside].any()
    assert not rollout.entropies[outside].any()
    assert (rollout.entropies >= 0).all()


def test_each_of_several_ends_ends_a_response():
    model = tiny_model()
    ids, mask, uniforms = prompts_and_uniforms(40)
    free = sample(model, ids, mask, uniforms, 1.0, (), PAD).response_ids.tolist()
    other = max(range(4, VOCABULARY), key=lambda token: sum(token in row for row in free))
    rollout = sample(model, ids, mask, uniforms, 1.0, (EOS, other), PAD)
    lengths = [min([row.index(e) + 1 for e in (EOS, other) if e in row] or [T]) for row in free]
    assert rollout.mask.sum(dim=1).tolist() == lengths and len(set(lengths)) > 3


def test_sampling_stops_when_all_rows_have_ended():
    model = tiny_model()
    ids, mask, _ = prompts_and_uniforms(2)
    uniforms = torch.rand(2, 56, generator=torch.Generator().manual_seed(4))
    free = sample(model, ids, mask, uniforms, 50.0, (), PAD).response_ids.tolist()
    longest = max(tokens.index(EOS) + 1 for tokens in free)
    rollout = sample(model, ids, mask, uniforms, 50.0, (EOS,), PAD)
    assert rollout.mask.shape == (2, longest)
    assert longest < 56


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_sampled_frequencies_are_the_softmax(temperature):
    """Equally spaced uniforms give each token its share, to within the ends of its interval."""
    model = tiny_model()
    prompt = torch.tensor([[3, 7, 2]])
    with torch.no_grad():
        share = (model(input_ids=prompt).logits[0, -1].double() / temperature).softmax(-1)
    n = 5000
    uniforms = ((torch.arange(n) + 0.5) / n)[:, None]
    rollout = sample(
        model, prompt.expand(n, 3), torch.ones(n, 3).long(), uniforms, temperature, (EOS,), PAD
    )
    counts = torch.bincount(rollout.response_ids[:, 0], minlength=VOCABULARY)
    assert (counts - n * share).abs().max() <= 1.5


def test_inverse_cdf_never_chooses_probability_zero():
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0])
    uniforms = torch.tensor([0.0, 0.4999999, 0.5, 1 - 2**-24])
    chosen = inverse_cdf(probabilities.expand(4, 5), uniforms)
    assert chosen.tolist() == [1, 1, 3, 3]
    # Rounding up to 1 must not fall off the end either.
    assert inverse_cdf(probabilities[None], torch.ones(1)).item() == 3


def test_prompts_are_padded_on_the_left():
    ids, mask = encode_prompts(tiny_tokenizer(), ["w5", "w2 w9 w4"])
    assert ids.tolist() == [[PAD, PAD, 5], [2, 9, 4]]
    assert mask.tolist() == [[0, 0, 1], [1, 1, 1]]
    with pytest.raises(InputError, match="no tokens"):
        encode_prompts(tiny_tokenizer(), ["w5", ""])


@pytest.mark.parametrize(
    ("tokenizer", "prompt", "tokens", "length", "text"),
    [
        (tiny_tokenizer(), "w3 w4", [5, 6, EOS, PAD], 3, " w5 w6"),
        (metaspace_tokenizer(), "good film", [5, 3, EOS, PAD], 3, "s bad"),
        (metaspace_tokenizer(), "good", [4, 5, 6, EOS], 4, " films!"),
        (metaspace_tokenizer(), "good", [EOS, PAD, PAD, PAD], 1, ""),
    ],
)
def test_responses_are_decoded_as_they_stand_behind_the_prompt(
    tokenizer, prompt, tokens, length, text
):
    ids, mask = encode_prompts(tokenizer, [prompt, prompt + " " + prompt])
    response = torch.tensor([tokens, tokens])
    response_mask = (torch.arange(4) < length).float().expand(2, 4)
    assert decode_responses(tokenizer, ids, mask, response, response_mask) == [text, text]


def test_entropy_closed_forms():
    uniform = torch.zeros(3, 8, dtype=torch.float64).log_softmax(-1)
    assert entropy(uniform).tolist() == pytest.approx([math.log(8)] * 3)
    p = torch.tensor([0.5, 0.25, 0.25, 0.0], dtype=torch.float64)
    assert entropy(p.log()).item() == pytest.approx(1.5 * math.log(2))


def test_entropy_is_never_negative():
    logits = torch.randn(2000, 50, generator=torch.Generator().manual_seed(0))
    for scale in (1e-3, 1, 30, 1e4):
        assert (entropy((scale * logits).log_softmax(-1)) >= 0).all()
