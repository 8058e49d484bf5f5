"""Attaching hooks to a model and its updates."""

import pytest
import torch
from safetensors.torch import load, save

from lm_core.errors import InputError, MachineError
from lm_core.hooks import ForwardHook, Hooks, UpdateHook, check_fit, forward_hook, update_hook
from tests.hooked_model import KEY, TOKENS, build, forward, update, with_gradients


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
    """Registers hooks that return a value whatever they are given."""

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


def test_a_file_that_a_hook_cannot_use_is_told_with_the_hooks_name():
    class Writes(UpdateHook):
        def on_gradients(self, gradients, key):
            raise BrokenPipeError(32, "Broken pipe")

    update_hook("test_writes")(Writes)
    hooks = Hooks(update({"name": "test_writes"}), with_gradients(build()))
    with pytest.raises(MachineError, match=r"hooks.update\[0\]: BrokenPipeError: .*Broken pipe"):
        hooks.transform_gradients(KEY)


def test_what_a_hook_takes_back_is_a_tensor_like_any_other():
    @update_hook("test_resizes")
    class Resizes(UpdateHook):
        def load_state(self, state):
            self.kept = state["kept"].resize_(5)

    hooks = Hooks(update({"name": "test_resizes"}), build())
    stored = load(save({"hooks.update[0]/kept": torch.ones(3)}))
    hooks.load_state(stored)
    assert stored["hooks.update[0]/kept"].eq(1).all()


def test_what_is_reported_before_a_step_belongs_to_none():
    @update_hook("test_reports_early")
    class ReportsEarly(UpdateHook):
        def prepare(self, model):
            self.report("early", 1.0)

        def load_state(self, state):
            self.report("early", 2.0)

    hooks = Hooks(update({"name": "test_reports_early"}), build())
    assert hooks.drain_reports() == {}
    hooks.load_state({})
    assert hooks.drain_reports() == {}


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


@update_hook("test_prepares_with_numbers")
class PreparesWithNumbers(UpdateHook):
    def prepare(self, model):
        model.token_embedding.weight.norm().item()


def test_whatever_does_not_fit_a_model_is_told_also_where_it_is_off():
    table = {
        **forward({"name": "ablate_heads", "heads": [7], "enabled": False}),
        **update({"name": "test_prepares_with_numbers"}, {"name": "freeze", "parameters": "nope"}),
    }
    with torch.device("meta"):
        hollow = build(seed=None)
    problems = check_fit(table, hollow)
    assert [problem.path for problem in problems] == [
        "hooks.forward[0].heads",
        "hooks.update[1].parameters",
    ]
    assert problems[0].message.startswith("the model has no head 7")


def test_a_table_that_fits_has_no_problem():
    assert check_fit(forward({"name": "activation_stats"}), build()) == []
    assert check_fit(None, build()) == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("no"), "ValueError in the __init__ of Refusing: no"),
        (KeyError("x"), "KeyError in the __init__ of Refusing: 'x'"),
        (InputError("rate: is odd"), "is odd"),
    ],
)
def test_a_hook_that_cannot_be_made_is_told_and_hides_no_other(error, message):
    @update_hook("test_refusing")
    class Refusing(UpdateHook):
        def __init__(self, rate: float = 1.0):
            raise error

    table = update({"name": "test_refusing", "rate": 2.0}, {"name": "freeze", "parameters": "no"})
    first, second = check_fit(table, build())
    assert first.message == message
    assert first.path == ("hooks.update[0].rate" if message == "is odd" else "hooks.update[0]")
    assert second.path == "hooks.update[1].parameters"


@forward_hook("test_lets_nothing_through")
class LetsNothingThrough(ForwardHook):
    """Puts zeros in the place of what it sees."""

    def on_activations(self, site, activations, context):
        return torch.zeros_like(activations)


def test_what_a_hook_cuts_off_has_a_gradient_of_zero_as_if_nothing_depended_on_it():
    model = build()
    Hooks(forward({"name": "test_lets_nothing_through", "sites": r"blocks\.0"}), model)
    model.train()(TOKENS, TOKENS, key=KEY).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if name.startswith("blocks.0."):
            assert not parameter.grad.any(), name
    assert model.blocks[1].mlp.expansion.weight.grad is not None
