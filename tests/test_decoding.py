"""The quick way to one more token, against the model it is a quick way of."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_core.model.decoding import Decoder
from lm_core.model.transformer import Transformer
from tests.test_transformer import build, shaken, tokens_of


def decoded(model, tokens, n_cached):
    """The logits after each token behind those that the cache begins with."""
    with model.evaluating():
        cache = model.new_cache(len(tokens))
        model(tokens[:, :n_cached], cache=cache)
        decoder = Decoder(model, cache, len(tokens))
        columns = tokens[:, n_cached:].T.contiguous().numpy()
        return torch.from_numpy(np.stack([decoder(column) for column in columns], 1))


def exact(model, tokens):
    """The logits of the model in float64."""
    twin = Transformer(**model.arguments, seed=None).double().eval()
    twin.load({name: value.double() for name, value in model.state_dict().items()})
    with twin.evaluating():
        return twin(tokens).float()


@settings(max_examples=25)
@given(
    n_cached=st.integers(1, 8),
    batch=st.integers(1, 9),
    vocab_size=st.integers(1, 140),
    heads=st.sampled_from([(1, 1), (1, 7), (3, 4), (2, 33), (4, 20)]),
    d_ff=st.integers(1, 150),
)
def test_it_equals_the_exact_model_for_any_sizes(n_cached, batch, vocab_size, heads, d_ff):
    n_heads, d_head = heads
    sizes = {"n_heads": n_heads, "d_model": n_heads * d_head, "d_ff": d_ff}
    model = shaken(build(vocab_size=vocab_size, n_layers=2, **sizes))
    tokens = tokens_of(model, batch=batch)
    found, expected = decoded(model, tokens, n_cached), exact(model, tokens)[:, n_cached:]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5 * expected.abs().max().item())


@pytest.mark.parametrize("cap", [1.0, 30.0, 1e3, 1e6])
def test_a_cap_costs_no_digits_however_large_it_is(cap):
    model = shaken(build(logit_softcap=cap))
    tokens = tokens_of(model)
    found, expected = decoded(model, tokens, 3), exact(model, tokens)[:, 3:]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5 * expected.abs().max().item())


def test_its_rounding_is_like_that_of_the_model():
    model = shaken(build(d_model=96, d_ff=384, max_seq_len=40))
    tokens = tokens_of(model, batch=6)
    expected = exact(model, tokens)[:, 3:]
    with model.evaluating():
        own = (model(tokens)[:, 3:] - expected).square().mean().sqrt()
    error = (decoded(model, tokens, 3) - expected).square().mean().sqrt()
    assert error < 2 * own


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [2, 5, 16])
def test_a_sequence_is_the_same_to_the_last_bit_alone_and_in_a_batch(batch, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    model = shaken(build())
    tokens = tokens_of(model, batch=1)
    with model.evaluating():
        cache = model.new_cache()
        model(tokens[:, :4], cache=cache)
        many = cache.repeated(batch)
        decoders = [(Decoder(model, cache, 1), 1), (Decoder(model, many, batch), batch)]
        for token in tokens[0, 4:].numpy():
            alone, together = (decoder(np.full(n, token)) for decoder, n in decoders)
            assert (together == alone).all()


def test_it_goes_on_from_the_cache_of_one_sequence_that_is_repeated():
    model = shaken(build())
    tokens = tokens_of(model, batch=1)
    tails = tokens_of(model, batch=3, time=5)
    with model.evaluating():
        cache = model.new_cache(most_tokens=9)
        model(tokens[:, :4], cache=cache)
        cache = cache.repeated(3)
        decoder = Decoder(model, cache, 3)
        columns = tails.T.contiguous().numpy()
        found = torch.from_numpy(np.stack([decoder(column) for column in columns], 1))
    expected = exact(model, torch.cat([tokens[:, :4].expand(3, -1), tails], 1))[:, 4:]
    assert cache.n_tokens == 9
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_weights_are_left_as_they_were():
    model = shaken(build())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    decoded(model, tokens_of(model), 2)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_what_is_not_finite_shows_in_the_logits():
    for name in ("token_embedding.weight", "blocks.1.mlp.expansion.weight", "final_norm.bias"):
        model = shaken(build())
        with torch.no_grad():
            model.get_parameter(name).flatten()[0] = torch.nan
        tokens = torch.zeros(1, 4, dtype=torch.long)
        assert not np.isfinite(decoded(model, tokens, 3).numpy()).all()


def test_it_is_for_models_in_float32_on_a_cpu_without_hooks():
    model = build()
    assert Decoder.is_for(model)
    assert not Decoder.is_for(build().double())
    assert not Decoder.is_for(build().to("meta"))
    model.sites["logits"].hooks.append(lambda value, context: value)
    assert not Decoder.is_for(model)


def test_a_full_cache_and_a_token_that_is_none_are_refused():
    model = build()
    with model.evaluating():
        cache = model.new_cache(most_tokens=3)
        model(torch.tensor([[1, 2]]), cache=cache)
        decoder = Decoder(model, cache, 1)
        for token in (-1, model.vocab_size):
            with pytest.raises(IndexError, match="below 11"):
                decoder(np.array([token]))
        for tokens in (np.zeros(3, np.int64), np.zeros(0, np.int64), np.zeros((1, 1), np.int64)):
            with pytest.raises(IndexError, match="tokens for 1 sequences"):
                decoder(tokens)
        decoder(np.array([1], np.int32))
        with pytest.raises(IndexError, match="room for 3"):
            decoder(np.array([1]))
