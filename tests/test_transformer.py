"""The model against a plain reference that shares no code with it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_core.errors import InputError
from lm_core.model.dropout import keep_mask
from lm_core.model.transformer import Transformer
from lm_core.randomness import StepKey

SMALL = {"vocab_size": 11, "n_layers": 3, "d_model": 12, "n_heads": 3, "d_ff": 20, "max_seq_len": 9}
KEY = StepKey(seed=5, step=8, first_sequence=2)


def build(dropout=0.0, seed=1, **changes):
    return Transformer(**{**SMALL, **changes}, dropout=dropout, seed=seed)


def shaken(model):
    """The model with every parameter moved off its initial value, biases and norms included."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def tokens_of(model, batch=4, time=None, seed=3):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, time or model.max_seq_len)
    return torch.randint(0, model.vocab_size, shape, generator=generator)


def layer_norm(x, weight, bias):
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias


def dropped(x, levels, index, key):
    if not levels:
        return x
    keep = keep_mask(key, index, levels, tuple(x.shape)) != 0
    return torch.where(keep, x / (1 - levels / 65536), torch.zeros_like(x))


def reference_logits(p, tokens, n_layers, n_heads, levels=0, key=None):
    """GPT-2 written out position by position and head by head, in the dtype of ``p``.

    ``p`` are the parameters by name; ``levels`` is the dropped share in units of 1/65536.
    """
    batch, time = tokens.shape
    x = p["token_embedding.weight"][tokens] + p["position_embedding.weight"][:time]
    x = dropped(x, levels, 0, key)
    for layer in range(n_layers):
        b = f"blocks.{layer}."
        h = layer_norm(x, p[b + "attention_norm.weight"], p[b + "attention_norm.bias"])
        qkv = h @ p[b + "attention.query_key_value.weight"].T
        q, k, v = (qkv + p[b + "attention.query_key_value.bias"]).chunk(3, dim=-1)
        d_head = q.shape[-1] // n_heads
        weights = torch.zeros(batch, n_heads, time, time, dtype=x.dtype)
        for head in range(n_heads):
            part = slice(head * d_head, (head + 1) * d_head)
            for i in range(time):
                scores = (k[:, : i + 1, part] * q[:, i : i + 1, part]).sum(-1)
                exponentials = torch.exp(scores / math.sqrt(d_head))
                weights[:, head, i, : i + 1] = exponentials / exponentials.sum(-1, keepdim=True)
        weights = dropped(weights, levels, 1 + 3 * layer, key)
        heads = [
            weights[:, head] @ v[..., head * d_head : (head + 1) * d_head]
            for head in range(n_heads)
        ]
        projected = torch.cat(heads, -1) @ p[b + "attention.projection.weight"].T
        projected = projected + p[b + "attention.projection.bias"]
        x = x + dropped(projected, levels, 2 + 3 * layer, key)
        h = layer_norm(x, p[b + "mlp_norm.weight"], p[b + "mlp_norm.bias"])
        h = h @ p[b + "mlp.expansion.weight"].T + p[b + "mlp.expansion.bias"]
        h = h * 0.5 * (1 + torch.erf(h / math.sqrt(2)))
        h = h @ p[b + "mlp.projection.weight"].T + p[b + "mlp.projection.bias"]
        x = x + dropped(h, levels, 3 + 3 * layer, key)
    x = layer_norm(x, p["final_norm.weight"], p["final_norm.bias"])
    return x @ p["token_embedding.weight"].T


def reference_loss(logits, targets):
    picked = torch.gather(logits, -1, targets[..., None]).squeeze(-1)
    return (torch.logsumexp(logits, -1) - picked).mean()


def parameters_of(model, dtype):
    return {
        name: parameter.detach().to(dtype).clone().requires_grad_()
        for name, parameter in model.named_parameters()
    }


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_logits_loss_and_gradients_equal_those_of_the_reference(dropout):
    model = shaken(build(dropout=dropout)).double()
    tokens, targets = tokens_of(model), tokens_of(model, seed=4)
    p = parameters_of(model, torch.float64)
    levels = round(dropout * 65536)
    expected = reference_logits(p, tokens, 3, 3, levels, KEY)
    torch.testing.assert_close(model(tokens, key=KEY), expected, rtol=1e-10, atol=1e-10)

    loss = model(tokens, targets, key=KEY)
    expected_loss = reference_loss(expected, targets)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-12, atol=1e-12)
    loss.backward()
    expected_loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, p[name].grad, rtol=1e-8, atol=1e-11)


def test_float32_agrees_with_the_float64_reference_within_rounding():
    model = shaken(build(dropout=0.2))
    tokens, targets = tokens_of(model), tokens_of(model, seed=4)
    p = parameters_of(model, torch.float64)
    levels = round(0.2 * 65536)
    expected = reference_loss(reference_logits(p, tokens, 3, 3, levels, KEY), targets)
    expected.backward()
    loss = model(tokens, targets, key=KEY)
    loss.backward()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad.double(), p[name].grad, rtol=1e-3, atol=1e-5)


def errors(gradients, exact):
    """Norm of the error over the norm of the gradient, for each parameter."""
    return {
        name: float((gradient.double() - exact[name]).norm() / exact[name].norm())
        for name, gradient in gradients.items()
    }


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_bfloat16_is_as_exact_as_the_reference_in_bfloat16(dropout):
    """Both against the reference in float64; PyTorch's autocast decides what is in bfloat16."""
    model = shaken(build(dropout=dropout, d_model=48, d_ff=96, max_seq_len=100))
    tokens, targets = tokens_of(model), tokens_of(model, seed=4)
    settings = 3, 3, round(dropout * 65536), KEY
    losses, gradients = {}, {}
    for dtype in (torch.float64, torch.float32):
        p = parameters_of(model, dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32):
            losses[dtype] = reference_loss(reference_logits(p, tokens, *settings), targets)
        losses[dtype].backward()
        gradients[dtype] = {name: parameter.grad for name, parameter in p.items()}
    loss = model(tokens, targets, key=KEY, dtype=torch.bfloat16)
    loss.backward()
    own = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert {gradient.dtype for gradient in own.values()} == {loss.dtype} == {torch.float32}
    torch.testing.assert_close(loss.double(), losses[torch.float64], rtol=5e-3, atol=0)
    found = errors(own, gradients[torch.float64])
    plain = errors(gradients[torch.float32], gradients[torch.float64])
    # The reference adds up scores in float32.
    assert sum(found.values()) < 1.5 * sum(plain.values())
    assert all(error < 2 * plain[name] + 1e-3 for name, error in found.items()), found


def test_logits_have_the_precision_that_is_asked_for():
    model = build().eval()
    assert model(tokens_of(model), dtype=torch.bfloat16).dtype == torch.bfloat16
    assert model(tokens_of(model)).dtype == torch.float32
    assert model.double()(tokens_of(model)).dtype == torch.float64


@settings(max_examples=25)
@given(st.integers(1, 8), st.integers(0, 10), st.booleans())
def test_a_later_token_never_changes_an_earlier_logit(position, token, training):
    model = shaken(build(dropout=0.3)).train(training)
    tokens = tokens_of(model, batch=1)
    changed = tokens.clone()
    changed[0, position:] = token
    before, after = model(tokens, key=KEY), model(changed, key=KEY)
    assert torch.equal(before[:, :position], after[:, :position])


def test_an_earlier_token_does_change_later_logits():
    model = shaken(build()).eval()
    tokens = tokens_of(model, batch=1)
    changed = tokens.clone()
    changed[0, 0] = (tokens[0, 0] + 1) % model.vocab_size
    assert (model(tokens) != model(changed)).any(-1).all()


@settings(max_examples=25)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=9))
def test_with_a_cache_the_logits_are_those_of_the_whole_text(pieces):
    model = shaken(build()).eval().double()
    tokens = tokens_of(model, batch=2)
    expected = model(tokens)
    cache, start, outputs = model.new_cache(batch_size=2), 0, []
    for piece in pieces:
        end = min(start + piece, model.max_seq_len)
        if end > start:
            outputs.append(model(tokens[:, start:end], cache=cache))
        start = end
    assert cache.n_tokens == start
    torch.testing.assert_close(torch.cat(outputs, 1), expected[:, :start], rtol=1e-9, atol=1e-9)


def test_more_tokens_than_the_context_are_refused():
    model = build().eval()
    with pytest.raises(ValueError, match="10 tokens are more than max_seq_len 9"):
        model(torch.zeros(1, 10, dtype=torch.long))
    cache = model.new_cache()
    model(torch.zeros(1, 9, dtype=torch.long), cache=cache)
    with pytest.raises(ValueError, match="more than max_seq_len"):
        model(torch.zeros(1, 1, dtype=torch.long), cache=cache)


def test_the_number_of_parameters_is_that_of_gpt2s_formula():
    model = build()
    d, f, n = 12, 20, 3
    block = (3 * d * d + 3 * d) + (d * d + d) + (d * f + f) + (f * d + d) + 4 * d
    assert model.n_parameters == 11 * d + 9 * d + n * block + 2 * d


def test_initial_weights_are_a_function_of_the_seed():
    def weights(seed):
        return torch.cat([p.detach().flatten() for p in build(seed=seed).parameters()])

    torch.manual_seed(1)
    first = weights(1)
    torch.manual_seed(2)
    assert torch.equal(first, weights(1))
    assert not torch.equal(first, weights(2))


def test_initial_weights_have_gpt2s_spread_scaled_with_depth():
    model = Transformer(128, n_layers=8, seed=0)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert parameter.eq(0).all(), name
        elif "norm" in name:
            assert parameter.eq(1).all(), name
        else:
            expected = 0.02 / math.sqrt(16) if "projection" in name else 0.02
            assert parameter.std().item() == pytest.approx(expected, rel=0.03), name
            assert abs(parameter.mean().item()) < expected / 10, name


def test_the_initial_loss_is_that_of_guessing():
    model = Transformer(128, seed=0).eval()
    tokens, targets = tokens_of(model), tokens_of(model, seed=9)
    assert model(tokens, targets).item() == pytest.approx(math.log(128), abs=0.1)


def test_the_same_model_is_built_again_from_its_arguments():
    model = build(dropout=0.3)
    again = Transformer(**model.arguments, seed=1)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_hook_that_only_looks_changes_no_bit_of_loss_or_gradients(dtype):
    def loss_and_gradients(looks):
        model = build(dropout=0.3).train()
        for name in model.sites.names() if looks else ():
            model.sites[name].hooks.append(lambda site, activations, context: None)
        loss = model(tokens_of(model), tokens_of(model), key=StepKey(3, 7), dtype=dtype)
        return loss, *torch.autograd.grad(loss, list(model.parameters()))

    for seen, unseen in zip(loss_and_gradients(True), loss_and_gradients(False), strict=True):
        assert torch.equal(seen, unseen)


def test_sites_name_every_place_once_and_have_the_shapes_they_say():
    model = build(n_layers=1).eval()
    shapes = {}
    for name in model.sites.names():
        model.sites[name].hooks.append(
            lambda site, x, context: shapes.setdefault(site.name, tuple(x.shape)) and None
        )
    model(tokens_of(model, batch=2, time=5))
    assert shapes == {
        "embedding": (2, 5, 12),
        "blocks.0.attention.heads": (2, 5, 3, 4),
        "blocks.0.attention": (2, 5, 12),
        "blocks.0.mlp.hidden": (2, 5, 20),
        "blocks.0.mlp": (2, 5, 12),
        "blocks.0": (2, 5, 12),
        "final_norm": (2, 5, 12),
        "logits": (2, 5, 11),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"d_model": 13}, "Transformer.d_model: 13 is not divisible by n_heads 3"),
        ({"n_layers": 0}, "Transformer.n_layers: 0 is less than 1"),
        ({"d_ff": 2.5}, "Transformer.d_ff: 2.5 is no integer"),
        ({"n_heads": True}, "Transformer.n_heads: true is a truth value"),
        ({"dropout": 1.5}, "Transformer.dropout: 1.5 is not less than 1"),
        ({"max_seq_len": -1}, "Transformer.max_seq_len: -1 is less than 1"),
        ({"vocab_size": 0}, "vocab_size: 0 is no integer from 1 on"),
        ({"vocab_size": 2.5}, "vocab_size: 2.5 is no integer from 1 on"),
        ({"seed": -1}, "seed: -1 is no integer from 0 on"),
        ({"seed": "1"}, "seed: .1. is no integer from 0 on"),
    ],
)
def test_sizes_that_cannot_work_are_refused_in_words(arguments, message):
    with pytest.raises(ValueError, match=message):
        Transformer(**{**SMALL, **arguments})


def test_on_another_device_a_block_compiles_whole():
    """``meta`` stands for a GPU: shapes take its path, without numbers."""
    model = build(dropout=0.2).to("meta").train()
    model.compile_blocks(backend="eager", fullgraph=True)
    loss = model(tokens_of(model).to("meta"), tokens_of(model).to("meta"), dtype=torch.bfloat16)
    loss.backward()
    assert loss.shape == ()
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.tensor([1, 2]), r"\(batch, time\), and this one is of shape \(2,\)"),
        (torch.zeros(1, 2, 3, dtype=torch.int64), r"this one is of shape \(1, 2, 3\)"),
        ([[1, 2]], "this one is a list"),
        (torch.tensor([[1, 11]]), "there is a token 11, where the model knows 0 to 10"),
        (torch.tensor([[1, -1]]), "there is a token -1, where"),
        (torch.tensor([[1.0, 2.0]]), "token ids are of torch.float32"),
    ],
)
def test_what_is_no_batch_of_tokens_is_told_in_a_sentence(tokens, message):
    with pytest.raises(InputError, match=message):
        build().eval()(tokens)


def test_targets_that_are_no_tokens_are_told_in_a_sentence():
    tokens = torch.tensor([[1, 2]])
    with pytest.raises(InputError, match="there is a token 12, where"):
        build().eval()(tokens, tokens + 10)
