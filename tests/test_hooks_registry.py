"""Making hooks known, and reading the table of hooks."""

import json
import math
import warnings
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest
import torch
from pydantic import Field
from typing_extensions import TypedDict

from lm_core.hooks import ForwardHook, Hooks, UpdateHook, check_hooks, forward_hook, update_hook
from lm_core.hooks.builtin import Identity
from lm_core.hooks.registry import read_entries
from lm_core.metrics import MetricsBuffer
from tests.hooked_model import build, forward, update


class Double(ForwardHook):
    def on_activations(self, site, activations, context):
        return activations * 2


def messages(table):
    return [f"{path}: {message}" for path, message in check_hooks(table)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            forward({"name": "activation_stat"}),
            "hooks.forward[0].name: 'activation_stat' is an unknown forward hook; did you mean "
            "activation_stats? (there are ablate_heads, activation_noise, activation_stats",
        ),
        (
            forward({"name": "head_ablation"}),
            "hooks.forward[0].name: 'head_ablation' is an unknown "
            "forward hook; did you mean ablate_heads?",
        ),
        (
            update({"name": "identity"}, {"name": "ablate_heads", "heads": [1]}),
            "hooks.update[1].name: ablate_heads is no update hook; write it under forward",
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
    table = update({"name": "identity", "enabled": False}, {"name": "gradient_stats"})
    entries, problems = read_entries(table)
    assert [(entry.path, entry.is_enabled) for entry in entries] == [
        ("hooks.update[0]", False),
        ("hooks.update[1]", True),
    ]
    assert problems == []


class Point(TypedDict):
    x: float


@update_hook("test_typed")
class Typed(UpdateHook):
    def __init__(
        self,
        rate: float = 1.0,
        count: Annotated[int, Field(ge=1)] = 1,
        sizes: tuple[int, ...] = (),
        point: Point | None = None,
        kind: Literal["a", "b"] = "a",
        odd: Path | None = None,
        unknown: torch.nn.Module | None = None,
    ):
        pass


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({"rate": 2}, {"rate": 2.0}),
        ({"rate": 10**300}, {"rate": 1e300}),
        ({"sizes": [1, 2]}, {"sizes": (1, 2)}),
        ({"point": {"x": 1}}, {"point": {"x": 1.0}}),
        ({"kind": "b", "count": 3}, {"kind": "b", "count": 3}),
        ({"odd": "a/b"}, {"odd": Path("a/b")}),
    ],
)
def test_a_hook_takes_its_options_in_the_types_that_it_states(options, taken):
    (entry,), problems = read_entries(update({"name": "test_typed", **options}))
    assert problems == []
    assert entry.options == taken
    assert [type(v) for v in entry.options.values()] == [type(v) for v in taken.values()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 10**400}, "hooks.update[0].rate: 1000"),
        ({"rate": "2"}, "hooks.update[0].rate: '2': "),
        ({"rate": b"2"}, "hooks.update[0].rate: b'2' is no plain value"),
        ({"rate": 2j}, "hooks.update[0].rate: 2j is no plain value"),
        ({"rate": True}, "hooks.update[0].rate: true: "),
        ({"count": 0}, "hooks.update[0].count: 0: "),
        ({"sizes": [1, "2"]}, "hooks.update[0].sizes: [1, '2']: "),
        ({"sizes": 3}, "hooks.update[0].sizes: 3: "),
        ({"point": {"y": 1}}, "hooks.update[0].point: {'y': 1}: "),
        ({"kind": "c"}, "hooks.update[0].kind: 'c': "),
        ({"unknown": 3}, "hooks.update[0].unknown: its type in the hook's __init__, "),
        ({"Enabled": True}, "hooks.update[0].Enabled: unknown option; did you mean enabled?"),
    ],
)
def test_an_option_of_another_type_is_told(options, message):
    (told,) = messages(update({"name": "test_typed", **options}))
    assert told.startswith(message)


@pytest.mark.parametrize("pattern", ["a{99999999999999999999}", "(" * 5000 + ")" * 5000, "[", 3])
def test_a_pattern_that_cannot_be_is_told(pattern):
    (told,) = messages(forward({"name": "activation_stats", "sites": pattern}))
    assert told.startswith("hooks.forward[0].sites: ")


def test_a_pattern_that_a_later_python_reads_otherwise_is_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert messages(forward({"name": "activation_stats", "sites": "[[a]b"})) == []


@pytest.mark.parametrize("value", [3, 3.0, np.float32(3), torch.tensor(3.0), torch.tensor([[3]])])
def test_any_number_can_be_reported(value):
    hook = UpdateHook()
    hook.report("mine", value)
    buffer = MetricsBuffer()
    buffer.add({"step": 1, **hook.drain_report()})
    assert json.dumps(buffer.flush()) == '[{"step": 1, "mine": 3.0}]'


def test_what_was_reported_stays_so_when_the_tensor_changes():
    hook, numbers = UpdateHook(), torch.tensor([1.0, 2.0])
    hook.report("mine", numbers[1])
    numbers += 5
    assert float(hook.drain_report()["mine"]) == 2.0


@pytest.mark.parametrize("value", [torch.zeros(2), "three", None, [1.0]])
def test_what_is_no_number_cannot_be_reported(value):
    with pytest.raises(ValueError, match=r"report\('mine', ...\): .* is no number"):
        Identity().report("mine", value)


def test_the_names_of_the_lab_itself_cannot_be_reported():
    with pytest.raises(ValueError, match=r"the lab itself reports train_loss; take another name"):
        Identity().report("train_loss", 1.0)


def test_a_hook_under_the_wrong_kind_is_sent_to_the_right_one():
    (told,) = messages({"update": [{"name": "activation_stats"}]})
    assert told.startswith(
        "hooks.update[0].name: activation_stats is no update hook; write it under forward (there"
    )


@pytest.mark.parametrize(
    "broken", [3, [3], [{}], [{"name": 3}], {"name": "x"}, [{"name": "activation_stats", 3: 4}]]
)
def test_what_is_wrong_with_the_outer_form_is_passed_over(broken):
    table = {"forward": broken, "update": [{"name": "gradient_stats", "evry": 3}]}
    told = messages(table)
    assert told[-1].startswith("hooks.update[0].evry: unknown option")
    assert len(told) == 1
