"""The ready hooks."""

import pytest
import torch

from lm_core.hooks import Hooks
from tests.hooked_model import KEY, TOKENS, build, forward, gradients, update, with_gradients


def test_activation_stats_reports_what_passed():
    model = build()
    hooks = Hooks(forward({"name": "activation_stats", "every": 5, "sites": "blocks.1.mlp"}), model)
    seen = []
    model.sites["blocks.1.mlp"].hooks.append(lambda site, x, context: seen.append(x))
    model(TOKENS, key=KEY)
    x = seen[0].detach()
    expected = {
        "mean": x.mean(),
        "std": ((x - x.mean()) ** 2).mean().sqrt(),
        "largest": x.abs().max(),
        "zeros": (x == 0).float().mean(),
    }
    reports = hooks.drain_reports()
    assert list(reports) == [f"activation/blocks.1.mlp/{name}" for name in expected]
    torch.testing.assert_close(
        torch.stack(list(reports.values())), torch.stack(list(expected.values()))
    )
    assert hooks.drain_reports() == {}


def test_activation_stats_keeps_silent_between_its_steps_and_in_evaluation():
    model = build()
    hooks = Hooks(forward({"name": "activation_stats", "every": 5}), model)
    model(TOKENS, key=KEY._replace(step=11))
    assert hooks.drain_reports() == {}
    model.eval()(TOKENS, key=KEY)
    assert hooks.drain_reports() == {}


def test_activation_noise_has_its_spread_and_is_keyed_like_dropout():
    model = build(d_model=64)
    table = forward({"name": "activation_noise", "std": 0.5, "sites": "embedding"})
    seen = []
    model.sites["embedding"].hooks.append(lambda site, x, context: seen.append(x))
    Hooks(table, model)
    model.sites["embedding"].hooks.append(lambda site, x, context: seen.append(x))
    model(TOKENS, key=KEY)
    model(TOKENS[1:], key=KEY._replace(first_sequence=1))
    model(TOKENS, key=KEY._replace(step=11))
    noise = [(after - before).detach() for before, after in zip(seen[::2], seen[1::2], strict=True)]
    assert noise[0].std().item() == pytest.approx(0.5, rel=0.05)
    torch.testing.assert_close(noise[0][1:], noise[1], rtol=0, atol=1e-6)
    assert not torch.equal(noise[0], noise[2])


def test_two_noises_of_one_kind_are_independent():
    model = build(d_model=64)
    seen = []
    model.sites["embedding"].hooks.append(lambda site, x, context: seen.append(x.detach()))
    noise = {"name": "activation_noise", "std": 1.0, "sites": "embedding"}
    Hooks(forward(noise, noise), model)
    model.sites["embedding"].hooks.append(lambda site, x, context: seen.append(x.detach()))
    model(TOKENS, key=KEY)
    assert (seen[1] - seen[0]).std().item() == pytest.approx(2**0.5, rel=0.05)
    model = with_gradients(build(d_model=64))
    before = {name: g.clone() for name, g in gradients(model).items()}
    noise = {"name": "gradient_noise", "std": 1.0}
    Hooks(update(noise, noise), model).transform_gradients(KEY)
    added = torch.cat([(g - before[name]).flatten() for name, g in gradients(model).items()])
    assert added.std().item() == pytest.approx(2**0.5, rel=0.02)


def test_activation_noise_leaves_evaluation_alone():
    plain, noisy = build().eval(), build()
    Hooks(forward({"name": "activation_noise", "std": 1.0}), noisy)
    assert torch.equal(plain(TOKENS), noisy.eval()(TOKENS))


def test_an_ablated_head_contributes_nothing_even_in_evaluation():
    model, ablated = build().eval(), build().eval()
    table = forward({"name": "ablate_heads", "heads": [1], "sites": r"blocks\.0\..*"})
    Hooks(table, ablated)
    with torch.no_grad():
        # The second head's columns of the output projection at zero are the same ablation.
        model.blocks[0].attention.projection.weight[:, 4:] = 0
    torch.testing.assert_close(model(TOKENS), ablated(TOKENS))
    assert not torch.equal(build().eval()(TOKENS), ablated(TOKENS))


def test_a_head_that_does_not_exist_is_an_error_that_says_which_do():
    with pytest.raises(
        ValueError,
        match=r"hooks.forward\[0\].heads: the model has no head 2 \(there are heads 0 to 1",
    ):
        Hooks(forward({"name": "ablate_heads", "heads": [0, 2]}), build())


def test_heads_cannot_be_ablated_where_there_are_none():
    table = forward({"name": "ablate_heads", "heads": [0], "sites": r"blocks\.0\.mlp"})
    with pytest.raises(ValueError, match=r"matches no site \(there are blocks.0.attention.heads,"):
        Hooks(table, build())


def test_identity_changes_neither_gradients_nor_updates():
    plain, hooked = with_gradients(build()), with_gradients(build())
    hooks = Hooks(update({"name": "identity"}), hooked)
    hooks.transform_gradients(KEY)
    before = {name: p.detach().clone() for name, p in hooked.named_parameters()}
    with torch.no_grad():
        for model in (plain, hooked):
            for parameter in model.parameters():
                parameter.add_(parameter.grad, alpha=-0.1)
    assert hooks.transforms_updates
    hooks.transform_updates(before, KEY)
    assert all(
        torch.equal(a, b) for a, b in zip(plain.parameters(), hooked.parameters(), strict=True)
    )


def test_gradient_stats_reports_each_parameter_it_names():
    model = with_gradients(build())
    hooks = Hooks(
        update({"name": "gradient_stats", "every": 1, "parameters": "final_norm.*"}), model
    )
    hooks.transform_gradients(KEY)
    reports = hooks.drain_reports()
    grad = gradients(model)
    assert {name: pytest.approx(float(value)) for name, value in reports.items()} == {
        "gradient/final_norm.weight/norm": float(grad["final_norm.weight"].norm()),
        "gradient/final_norm.weight/largest": float(grad["final_norm.weight"].abs().max()),
        "gradient/final_norm.bias/norm": float(grad["final_norm.bias"].norm()),
        "gradient/final_norm.bias/largest": float(grad["final_norm.bias"].abs().max()),
    }


def test_clipping_limits_every_element():
    model = with_gradients(build())
    before = {name: g.clone() for name, g in gradients(model).items()}
    Hooks(update({"name": "clip_gradient_value", "limit": 0.01}), model).transform_gradients(KEY)
    assert any((g.abs() > 0.01).any() for g in before.values())
    for name, gradient in gradients(model).items():
        assert torch.equal(gradient, before[name].clamp(-0.01, 0.01))


def test_gradient_noise_has_its_spread_and_is_a_function_of_the_key():
    noises = []
    for key in (KEY, KEY, KEY._replace(step=11)):
        model = with_gradients(build(d_model=64))
        before = gradients(model)
        Hooks(update({"name": "gradient_noise", "std": 2.0}), model).transform_gradients(key)
        noises.append(torch.cat([(g - before[n]).flatten() for n, g in gradients(model).items()]))
    assert noises[0].std().item() == pytest.approx(2, rel=0.02)
    assert torch.equal(noises[0], noises[1])
    assert not torch.equal(noises[0], noises[2])


def test_frozen_parameters_get_no_gradient_at_all():
    model = with_gradients(build())
    Hooks(update({"name": "freeze", "parameters": r"blocks\.0\..*"}), model).transform_gradients(
        KEY
    )
    for name, gradient in gradients(model).items():
        assert (gradient is None) == name.startswith("blocks.0."), name


def test_a_parameter_pattern_without_a_match_lists_the_parameters():
    with pytest.raises(ValueError, match=r"hooks.update\[0\].parameters: 'head' .*token_embedding"):
        Hooks(update({"name": "freeze", "parameters": "head"}), build())
