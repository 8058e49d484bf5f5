"""The choices of a block: each against its formula, and all of them together."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lm_core.data.tokenizer import ByteTokenizer
from lm_core.model.decoding import Decoder
from lm_core.model.transformer import Transformer
from lm_core.randomness import StepKey
from lm_core.sampling import Sampler
from lm_core.training.trainer import Trainer

CHOICES = {
    "position": ("learned", "rope"),
    "norm": ("layernorm", "rmsnorm"),
    "activation": ("gelu", "gelu_tanh", "relu_squared", "swiglu"),
    "qk_norm": (False, True),
    "tie_embeddings": (True, False),
    "bias": (True, False),
    "logit_softcap": (None, 1.5),
}
COMBINATIONS = [
    dict(zip(CHOICES, values, strict=True)) for values in itertools.product(*CHOICES.values())
]
# Each choice alone, and all of them, are enough where every combination would take too long.
ONE_AT_A_TIME = [{name: value} for name, values in CHOICES.items() for value in values[1:]]
SIZES = {"n_layers": 2, "d_model": 12, "n_heads": 2, "d_ff": 20, "max_seq_len": 16}
TOKENIZER = ByteTokenizer()
TOKENS = TOKENIZER.encode("what goes around comes around. " * 30)


def build(seed=1, dropout=0.0, **choices):
    return Transformer(256, **SIZES, dropout=dropout, seed=seed, **choices)


def shaken(model):
    """The model with all parameters away from where they start, biases and norms too."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def name_of(choices):
    return "-".join(f"{name}={value}" for name, value in choices.items())


def normed(x, choices, weights, name):
    x = x - x.mean(-1, keepdim=True) if choices["norm"] == "layernorm" else x
    x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weights[f"{name}.weight"]
    return x + weights.get(f"{name}.bias", 0)


def layer(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0)


def turned(x):
    """Rotary position embedding as complex numbers times a power of a complex number."""
    time, half = x.shape[-2], x.shape[-1] // 2
    pairs = torch.complex(x[..., :half], x[..., half:])
    angles = 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    places = torch.arange(time, dtype=torch.float64)[:, None]
    pairs = pairs * torch.polar(torch.ones(time, half, dtype=torch.float64), places * angles)
    return torch.cat([pairs.real, pairs.imag], -1)


def by_formula(model, tokens):
    """The logits of a model by the formulas of its parts, one by one, in float64."""
    choices = model.arguments
    weights = {name: value.double() for name, value in model.state_dict().items()}
    batch, time = tokens.shape
    x = weights["token_embedding.weight"][tokens]
    if choices["position"] == "learned":
        x = x + weights["position_embedding.weight"][:time]
    for i in range(choices["n_layers"]):
        block = f"blocks.{i}"
        y = normed(x, choices, weights, f"{block}.attention_norm")
        y = layer(y, weights, f"{block}.attention.query_key_value")
        q, k, v = (
            part.reshape(batch, time, choices["n_heads"], -1).transpose(1, 2)
            for part in y.chunk(3, -1)
        )
        if choices["qk_norm"]:
            q, k = (y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() for y in (q, k))
        if choices["position"] == "rope":
            q, k = turned(q), turned(k)
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
        later = torch.ones(time, time, dtype=torch.bool).triu(1)
        found = scores.masked_fill(later, -math.inf).softmax(-1) @ v
        found = found.transpose(1, 2).reshape(batch, time, -1)
        x = x + layer(found, weights, f"{block}.attention.projection")
        y = normed(x, choices, weights, f"{block}.mlp_norm")
        y = layer(y, weights, f"{block}.mlp.expansion")
        if choices["activation"] == "gelu":
            y = y * (1 + torch.erf(y / math.sqrt(2))) / 2
        elif choices["activation"] == "gelu_tanh":
            y = y * (1 + (math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)).tanh()) / 2
        elif choices["activation"] == "relu_squared":
            y = y.clamp(min=0) ** 2
        else:
            gate, rest = y.chunk(2, -1)
            y = gate / (1 + (-gate).exp()) * rest
        x = x + layer(y, weights, f"{block}.mlp.projection")
    x = normed(x, choices, weights, "final_norm")
    head = "token_embedding" if choices["tie_embeddings"] else "head"
    logits = x @ weights[f"{head}.weight"].T
    cap = choices["logit_softcap"]
    return logits if cap is None else cap * (logits / cap).tanh()


# Each choice is in many of the first, with each other one.
SOME_FIRST = [
    choices if place % 7 == 0 else pytest.param(choices, marks=pytest.mark.exhaustive)
    for place, choices in enumerate(COMBINATIONS)
]


@pytest.mark.parametrize("choices", SOME_FIRST, ids=name_of)
def test_all_combinations_are_their_formula_train_and_write_the_same_with_a_cache(choices):
    model = shaken(build(**choices))
    tokens = torch.from_numpy(TOKENS[:32].astype(np.int64)).view(2, 16)
    with model.evaluating():
        expected = by_formula(model, tokens)
        torch.testing.assert_close(model(tokens).double(), expected, rtol=1e-4, atol=1e-4)
        exact = build(**choices).double().eval()
        exact.load({name: value.double() for name, value in model.state_dict().items()})
        torch.testing.assert_close(exact(tokens), expected, rtol=1e-9, atol=1e-9)
        cache = exact.new_cache(2)
        pieces = [exact(tokens[:, a:b], cache=cache) for a, b in ((0, 5), (5, 6), (6, 16))]
        torch.testing.assert_close(torch.cat(pieces, 1), expected, rtol=1e-9, atol=1e-9)
        cache = model.new_cache(2)
        model(tokens[:, :5], cache=cache)
        decoder = Decoder(model, cache, 2)
        for place in range(5, 16):
            found = torch.from_numpy(decoder(tokens[:, place].numpy())).double()
            torch.testing.assert_close(found, expected[:, place], rtol=1e-4, atol=2e-4)
    texts = [
        Sampler(model, TOKENIZER, prompt="wh", max_length=12, num_samples=2)(use_cache=use_cache)
        for use_cache in (True, False)
    ]
    assert texts[0] == texts[1]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer = Trainer(model, TOKENS, batch_size=2, max_steps=1, seed=1)
    trainer.train()
    for name, p in model.named_parameters():
        assert p.isfinite().all()
        assert not torch.equal(p, before[name]), name


@pytest.mark.parametrize("choices", [{}, *ONE_AT_A_TIME], ids=name_of)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_those_of_the_formula(choices, dtype):
    model = shaken(build(**choices))
    tokens = torch.from_numpy(TOKENS[:34].astype(np.int64)).view(2, 17)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    model(inputs, targets, key=StepKey(1, 1), dtype=dtype).backward()
    names, parameters = zip(*model.named_parameters(), strict=True)
    twin = build(**choices).double()
    twin.load({name: value.double() for name, value in model.state_dict().items()})
    leaves = dict(twin.named_parameters())
    state = {name: leaves[name] for name in names}
    twin.state_dict = lambda: state
    loss = F.cross_entropy(by_formula(twin, inputs).flatten(0, 1), targets.flatten())
    expected = torch.autograd.grad(loss, [leaves[name] for name in names])
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    for name, p, truth in zip(names, parameters, expected, strict=True):
        assert (p.grad - truth).norm() <= tolerance * truth.norm() + 1e-6, name


@pytest.mark.parametrize("choices", ONE_AT_A_TIME, ids=name_of)
def test_hooks_see_the_same_places_and_shapes(choices):
    plain, model = build(), build(**choices)
    assert model.sites.names() == plain.sites.names()
    for one in (plain, model):
        one.seen = {}
        for name in one.sites.names():
            one.sites[name].hooks.append(
                lambda site, x, context, seen=one.seen: seen.update({site.name: x.shape})
            )
        one.eval()(torch.zeros(2, 5, dtype=torch.long))
    assert model.seen == plain.seen


def test_matrices_start_alike_whatever_stands_beside_them():
    for choices in ONE_AT_A_TIME:
        for name, p in build(**choices).named_parameters():
            if name.endswith(".bias"):
                assert not p.any(), name
            elif "norm" in name:
                assert (p == 1).all(), name
            else:
                std = 0.02 / math.sqrt(4) if ".projection." in name else 0.02
                assert float(p.detach().std()) == pytest.approx(std, rel=0.25), name
                assert abs(float(p.detach().mean())) < std / 3, name


def test_a_cap_is_never_passed():
    model = shaken(build(logit_softcap=0.5))
    with torch.no_grad():
        model.token_embedding.weight *= 100
    with model.evaluating():
        logits = model(torch.zeros(1, 8, dtype=torch.long))
    assert float(logits.abs().max()) <= 0.5
    assert float(logits.abs().max()) > 0.4


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"position": "rotary"}, "Transformer.position: 'rotary'"),
        ({"norm": None}, "Transformer.norm: null"),
        ({"activation": "relu"}, "Transformer.activation: 'relu'"),
        ({"bias": 1}, "Transformer.bias: 1"),
        ({"logit_softcap": 0.0}, "Transformer.logit_softcap: 0.0"),
        ({"position": "rope", "n_heads": 4}, "Transformer.d_model: 12 makes heads 3 wide"),
    ],
)
def test_what_cannot_work_is_told(choices, message):
    with pytest.raises(ValueError, match=message):
        Transformer(256, **{**SIZES, **choices})
