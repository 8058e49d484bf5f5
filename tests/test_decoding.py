"""The quick way to one more token, against the model it is a quick way of."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_core.model import decoding
from lm_core.model.decoding import Decoder, can_pack
from lm_core.model.transformer import Transformer
from tests.test_transformer import build, shaken, tokens_of


def decoded(model, tokens, n_cached):
    """The logits after each token behind those that the cache begins with."""
    with model.evaluating():
        cache = model.new_cache(len(tokens))
        model(tokens[:, :n_cached], cache=cache)
        decoder = Decoder(model, cache, len(tokens))
        columns = tokens[:, n_cached:].unbind(1)
        return torch.stack([decoder(column) for column in columns], 1)


@settings(max_examples=25)
@given(st.integers(1, 8), st.integers(1, 5))
def test_in_float64_it_equals_the_model(n_cached, batch):
    model = shaken(build()).double()
    tokens = tokens_of(model, batch=batch)
    with model.evaluating():
        expected = model(tokens)[:, n_cached:]
    found = decoded(model, tokens, n_cached)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_in_float32_it_equals_the_model_within_rounding(batch):
    model = shaken(build(d_model=24, d_ff=96))
    tokens = tokens_of(model, batch=batch)
    with model.evaluating():
        expected = model(tokens)[:, 3:]
    torch.testing.assert_close(decoded(model, tokens, 3), expected, rtol=1e-5, atol=1e-5)


def test_it_goes_on_from_the_cache_of_one_sequence_that_is_repeated():
    model = shaken(build()).double()
    tokens = tokens_of(model, batch=1)
    tails = tokens_of(model, batch=3, time=5)
    with model.evaluating():
        cache = model.new_cache(most_tokens=9)
        model(tokens[:, :4], cache=cache)
        cache = cache.repeated(3)
        decoder = Decoder(model, cache, 3)
        found = torch.stack([decoder(column) for column in tails.unbind(1)], 1)
        expected = model(torch.cat([tokens[:, :4].expand(3, -1), tails], 1))[:, 4:]
    assert cache.n_tokens == 9
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_the_weights_are_left_as_they_were():
    model = shaken(build())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    decoded(model, tokens_of(model), 2)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_only_batches_in_float32_on_a_cpu_are_packed():
    weight = Transformer(5, d_model=8, n_heads=2).token_embedding.weight
    assert not can_pack(weight, 1)
    assert not can_pack(weight.double(), 16)
    assert not can_pack(weight.to("meta"), 16)
    assert can_pack(weight, 16) == torch.backends.mkldnn.is_available()


def test_where_pytorch_lacks_the_operation_nothing_is_packed(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch.ops, "mkldnn", object())
        assert not can_pack(torch.zeros(2, 2), 16)
    monkeypatch.setattr(decoding, "can_pack", lambda *arguments: False)
    model = shaken(build())
    tokens = tokens_of(model)
    with model.evaluating():
        expected = model(tokens)[:, 2:]
    torch.testing.assert_close(decoded(model, tokens, 2), expected, rtol=1e-5, atol=1e-5)
