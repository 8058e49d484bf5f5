"""The ready hooks, and attaching hooks to a model and its updates."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from lm_core.hooks import ForwardHook, Hooks, UpdateHook, check_hooks, forward_hook, update_hook
from lm_core.hooks.builtin import Identity
from lm_core.hooks.registry import read_entries
from lm_core.metrics import MetricsBuffer
from lm_core.model.transformer import Transformer
from lm_core.randomness import StepKey

KEY = StepKey(seed=1, step=10)
TOKENS = torch.arange(24).reshape(3, 8) % 7


def build(**changes):
    sizes = {
        "n_layers": 2,
        "d_model": 8,
        "n_heads": 2,
        "d_ff": 16,
        "max_seq_len": 8,
        "dropout": 0.0,
    }
    return Transformer(7, **{**sizes, **changes})


def forward(*entries):
    return {"forward": list(entries)}


def update(*entries):
    return {"update": list(entries)}


def with_gradients(model):
    model(TOKENS, TOKENS, key=KEY).backward()
    return model


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters()}


def messages(table):
    return [f"{path}: {message}" for path, message in check_hooks(table)]


def test_no_table_attaches_nothing():
    model = build()
    hooks = Hooks(None, model)
    assert all(not model.sites[name].hooks for name in model.sites.names())
    assert not hooks.transforms_updates
    assert hooks.drain_reports() == {}
    assert hooks.state() == {}


def test_a_hook_that_is_off_attaches_nothing():
    model = build()
    table = {
        "forward": [{"name": "activation_stats", "enabled": False}],
        "update": [{"name": "identity", "enabled": False}],
    }
    hooks = Hooks(table, model)
    assert all(not model.sites[name].hooks for name in model.sites.names())
    assert not hooks.transforms_updates


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


def test_a_site_that_does_not_exist_is_an_error_that_lists_those_that_do():
    table = forward({"name": "activation_stats", "sites": "block.0"})
    with pytest.raises(
        ValueError, match=r"hooks.forward\[0\].sites: 'block.0' .*embedding, blocks.0"
    ):
        Hooks(table, build())


def test_the_pattern_of_sites_must_match_the_whole_name():
    model = build()
    Hooks(forward({"name": "activation_stats", "sites": r"blocks\.\d"}), model)
    attached = [name for name in model.sites.names() if model.sites[name].hooks]
    assert attached == ["blocks.0", "blocks.1"]


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


def test_hooks_work_in_the_order_of_the_table():
    model = with_gradients(build())
    table = update(
        {"name": "freeze", "parameters": "(?!final_norm.bias).*"},
        {"name": "clip_gradient_value", "limit": 1e-6},
        {"name": "gradient_stats", "every": 1},
    )
    hooks = Hooks(table, model)
    hooks.transform_gradients(KEY)
    reports = hooks.drain_reports()
    assert set(reports) == {"gradient/final_norm.bias/norm", "gradient/final_norm.bias/largest"}
    assert float(reports["gradient/final_norm.bias/largest"]) == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            forward({"name": "activation_stat"}),
            "hooks.forward[0].name: unknown forward hook; did you mean activation_stats? "
            "(there are ablate_heads, activation_noise, activation_stats",
        ),
        (
            update({"name": "identity"}, {"name": "ablate_heads", "heads": [1]}),
            "hooks.update[1].name: unknown update hook",
        ),
        (
            forward({"name": "activation_stats", "evry": 3}),
            "hooks.forward[0].evry: unknown option; did you mean every? (it has every, sites)",
        ),
        (
            update({"name": "identity", "every": 3}),
            "hooks.update[0].every: unknown option (it has none)",
        ),
        (forward({"name": "activation_stats", "every": 0}), "hooks.forward[0].every: 0: "),
        (forward({"name": "activation_stats", "every": "6"}), "hooks.forward[0].every: '6': "),
        (forward({"name": "activation_noise", "std": math.inf}), "hooks.forward[0].std: inf: "),
        (forward({"name": "activation_noise"}), "hooks.forward[0].std: is missing"),
        (forward({"name": "ablate_heads", "heads": []}), "hooks.forward[0].heads: []: "),
        (
            forward({"name": "activation_stats", "sites": "("}),
            "hooks.forward[0].sites: '(': is no regular expression",
        ),
        (update({"name": "freeze", "parameters": 3}), "hooks.update[0].parameters: 3: "),
        (update({"name": "freeze", "enabled": False}), "hooks.update[0].parameters: is missing"),
    ],
)
def test_a_wrong_entry_is_told_by_its_path(table, message):
    assert [m for m in messages(table) if m.startswith(message)], messages(table)


def test_all_wrong_entries_are_told_at_once():
    table = {
        "forward": [{"name": "nope"}, {"name": "activation_noise", "std": -1}],
        "update": [{"name": "freeze"}],
    }
    assert len(messages(table)) == 3
    with pytest.raises(ValueError, match=r"(?s)forward\[0\].*forward\[1\].*update\[0\]"):
        Hooks(table, build())


def test_a_parameter_pattern_without_a_match_lists_the_parameters():
    with pytest.raises(ValueError, match=r"hooks.update\[0\].parameters: 'head' .*token_embedding"):
        Hooks(update({"name": "freeze", "parameters": "head"}), build())


@forward_hook("test_double")
class Double(ForwardHook):
    in_evaluation = True

    def on_activations(self, site, activations, context):
        return activations * 2


@update_hook("test_halve")
class Halve(UpdateHook):
    def __init__(self, parameters: str = "final_norm.bias"):
        self.parameters = parameters
        self.calls = torch.zeros(())

    def on_updates(self, updates, key):
        self.calls = self.calls + 1
        return {self.parameters: updates[self.parameters] / 2}

    def state(self):
        return {"calls": self.calls}

    def load_state(self, state):
        self.calls = state["calls"]


def test_a_hook_of_ones_own_replaces_activations():
    model = build().eval()
    doubled = build().eval()
    Hooks(forward({"name": "test_double", "sites": "logits"}), doubled)
    assert torch.equal(doubled(TOKENS), model(TOKENS) * 2)


def test_a_hook_of_ones_own_transforms_updates_and_leaves_the_others_bits():
    model = build()
    hooks = Hooks(update({"name": "test_halve"}), model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3)
    after = {name: p.detach().clone() for name, p in model.named_parameters()}
    hooks.transform_updates(before, KEY)
    for name, parameter in model.named_parameters():
        if name == "final_norm.bias":
            torch.testing.assert_close(parameter, before[name] + 0.15)
        else:
            assert torch.equal(parameter, after[name])


def test_the_state_of_hooks_travels_by_path():
    table = update({"name": "identity"}, {"name": "test_halve"})
    hooks = Hooks(table, build())
    parameters = {name: p.detach() for name, p in build().named_parameters()}
    hooks.transform_updates(parameters, KEY)
    assert hooks.state() == {"hooks.update[1]/calls": torch.tensor(1.0)}
    other = Hooks(table, build())
    other.load_state(hooks.state())
    other.transform_updates(parameters, KEY)
    assert other.state() == {"hooks.update[1]/calls": torch.tensor(2.0)}


def returning(value):
    """A table whose hooks return a value whatever they are given."""

    @forward_hook("test_returning")
    class ForwardReturning(ForwardHook):
        def on_activations(self, site, activations, context):
            return value

    @update_hook("test_returning_gradients")
    class GradientsReturning(UpdateHook):
        def on_gradients(self, gradients, key):
            return value

    @update_hook("test_returning_updates")
    class UpdatesReturning(UpdateHook):
        def on_updates(self, updates, key):
            return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            torch.zeros(1, 1, 8),
            r"hooks.forward\[0\]: on_activations returned at the site final_norm a tensor of "
            r"shape \(1, 1, 8\), where \(3, 8, 8\) belongs",
        ),
        (
            torch.zeros(3, 8, 8, dtype=torch.float64),
            "final_norm a tensor of torch.float64, where torch.float32 belongs",
        ),
        (2.0, r"hooks.forward\[0\]: .* final_norm a float, where a tensor belongs"),
    ],
)
def test_an_activation_of_another_shape_is_refused(value, message):
    returning(value)
    model = build()
    Hooks(forward({"name": "test_returning", "sites": "final_norm"}), model)
    with pytest.raises(ValueError, match=message):
        model(TOKENS, key=KEY)


@pytest.mark.parametrize("method", ["gradients", "updates"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"final_norm.bias": torch.zeros(())}, r"final_norm.bias a tensor of shape \(\), where"),
        ({"final_norm.bias": 0.0}, "final_norm.bias a float, where a tensor belongs"),
        (
            {"final_norm.bia": torch.zeros(8)},
            "'final_norm.bia': unknown parameter; did you mean final_norm.bias",
        ),
        (torch.zeros(8), " a Tensor; it returns a mapping by parameter name"),
    ],
)
def test_what_is_no_change_of_a_parameter_is_refused(method, value, message):
    returning(value)
    model = with_gradients(build())
    hooks = Hooks(update({"name": f"test_returning_{method}"}), model)
    before = [{name: p.detach() for name, p in model.named_parameters()}]
    transform = getattr(hooks, f"transform_{method}")
    with pytest.raises(ValueError, match=rf"hooks.update\[0\]: on_{method} returned.*{message}"):
        transform(*before * (method == "updates"), KEY)


def test_an_update_of_none_is_refused():
    returning({"final_norm.bias": None})
    model = build()
    hooks = Hooks(update({"name": "test_returning_updates"}), model)
    with pytest.raises(ValueError, match=r"final_norm.bias a NoneType, where a tensor belongs"):
        hooks.transform_updates({n: p.detach() for n, p in model.named_parameters()}, KEY)


@pytest.mark.parametrize("value", [3, 3.0, np.float32(3), torch.tensor(3.0), torch.tensor([[3]])])
def test_any_number_can_be_reported(value):
    hook = UpdateHook()
    hook.report("mine", value)
    buffer = MetricsBuffer()
    buffer.add({"step": 1, **hook.drain_report()})
    assert json.dumps(buffer.flush()) == '[{"step": 1, "mine": 3.0}]'


@pytest.mark.parametrize("value", [torch.zeros(2), "three", None, [1.0]])
def test_what_is_no_number_cannot_be_reported(value):
    with pytest.raises(ValueError, match=r"report\('mine', ...\): .* is no number"):
        Identity().report("mine", value)


def test_the_names_of_the_lab_itself_cannot_be_reported():
    with pytest.raises(ValueError, match=r"the lab itself reports train_loss; take another name"):
        Identity().report("train_loss", 1.0)


def test_a_defect_in_a_hook_keeps_its_traceback_and_names_the_entry():
    @forward_hook("test_broken")
    class Broken(ForwardHook):
        def on_activations(self, site, activations, context):
            return 1 / 0

    model = build()
    Hooks(forward({"name": "activation_stats"}, {"name": "test_broken"}), model)
    with pytest.raises(ZeroDivisionError) as error:
        model(TOKENS, key=KEY)
    assert error.value.__notes__ == ["In the hook that hooks.forward[1] sets."]


def test_a_state_that_is_no_tensor_is_told_by_its_path():
    @update_hook("test_counting")
    class Counting(UpdateHook):
        def state(self):
            return {"calls": 3}

    hooks = Hooks(update({"name": "test_counting"}), build())
    message = r"hooks.update\[0\]: state\(\) has a int under 'calls'; it holds tensors"
    with pytest.raises(ValueError, match=message):
        hooks.state()


def test_one_tensor_may_be_kept_under_two_names():
    @update_hook("test_sharing")
    class Sharing(UpdateHook):
        def state(self):
            tensor = torch.ones(3)
            return {"a": tensor, "b": tensor[:2]}

    state = Hooks(update({"name": "test_sharing"}), build()).state()
    assert torch.equal(load(save(state))["hooks.update[0]/b"], torch.ones(2))


@pytest.mark.parametrize(
    ("option", "constructor"),
    [
        ("name", lambda self, name="x": None),
        ("enabled", lambda self, enabled=True: None),
        ("sites", lambda self, sites=".*": None),
    ],
)
def test_an_option_cannot_take_a_name_that_the_table_needs(option, constructor):
    own = type("Own", (Double,), {"__init__": constructor})
    with pytest.raises(ValueError, match=f"'{option}' has a meaning of its own in the table"):
        forward_hook(f"test_{option}")(own)


def test_two_hooks_cannot_share_a_name():
    with pytest.raises(ValueError, match="'identity' exists already"):

        @update_hook("identity")
        class Other(UpdateHook):
            pass


def test_a_forward_hook_without_its_method_is_refused_at_once():
    with pytest.raises(ValueError, match="'test_empty': Empty has no method on_activations"):

        @forward_hook("test_empty")
        class Empty(ForwardHook):
            pass


@pytest.mark.parametrize(("works_on", "message"), [("(", "is no regular expression"), (3, "3 ")])
def test_a_pattern_of_sites_that_is_none_is_refused_at_once(works_on, message):
    with pytest.raises(ValueError, match=f"'test_pattern': works_on .*{message}"):
        forward_hook("test_pattern")(type("Own", (Double,), {"works_on": works_on}))


@pytest.mark.parametrize("name", [3, "", None])
def test_a_name_that_is_none_is_refused_at_once(name):
    with pytest.raises(ValueError, match=r"hook Double: .* is no name"):
        forward_hook(name)(Double)


def test_types_of_options_that_cannot_be_read_are_told():
    @update_hook("test_unreadable")
    class Unreadable(UpdateHook):
        def __init__(self, x: "Nope" = 1):  # noqa: F821
            pass

    (message,) = messages(update({"name": "test_unreadable", "x": 3}))
    assert message.startswith("hooks.update[0].name: the types of the options of Unreadable cannot")


def test_only_a_hook_can_be_registered():
    with pytest.raises(ValueError, match="not a subclass of ForwardHook"):

        @forward_hook("test_wrong_base")
        class Wrong(UpdateHook):
            pass


def test_entries_keep_their_place_in_the_table_when_others_are_off():
    table = update({"name": "identity", "enabled": False}, {"name": "test_halve"})
    entries, problems = read_entries(table)
    assert [entry.path for entry in entries] == ["hooks.update[1]"]
    assert problems == []
