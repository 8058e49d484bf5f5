"""Looking at numbers late must be no different from looking at once."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_core.errors import DivergenceError
from tests.tiny_trainer import build, new_run, poisoned, rows, weights, without_speed


def late(trainer):
    """A trainer that looks at numbers late, as on a GPU."""
    trainer._steps.looks_late = True
    return trainer


@settings(max_examples=12, deadline=None)
@given(st.sets(st.integers(1, 9), max_size=3), st.sampled_from([None, 2, 5]), st.integers(1, 12))
def test_late_looks_leave_the_same_weights_and_records(tmp_path_factory, bad, cadence, every):
    """``every`` steps, the recorder finds it is time."""
    folder = tmp_path_factory.mktemp("runs")
    given = {"max_steps": 9, "max_skipped_batches": 3, "eval_cadence": cadence}
    runs = [new_run(folder / name) for name in ("at_once", "late")]
    at_once, delayed = (poisoned(build(**given), *bad) for _ in runs)
    at_once.train(runs[0])
    late(delayed)
    with pytest.MonkeyPatch.context() as patch:
        kind = type(delayed._recorder)
        patch.setattr(kind, "is_time", property(lambda self: delayed.step % every == 0))
        delayed.train(runs[1])
    assert torch.equal(weights(at_once), weights(delayed))
    assert without_speed(runs[0].metrics) == without_speed(runs[1].metrics)
    assert at_once._state == delayed._state


def test_a_late_look_finds_the_first_bad_step_and_ends_there(tmp_path):
    run = new_run(tmp_path / "run")
    trainer = late(poisoned(build(max_steps=9, with_parts=False), 4, 6))
    before = poisoned(build(max_steps=3, with_parts=False))
    before.train()
    with pytest.raises(DivergenceError, match="diverged at step 4, with train_loss nan"):
        trainer.train(run)
    assert torch.equal(weights(trainer), weights(before))
    assert [row["step"] for row in rows(run.metrics)] == [1, 2, 3, 4]


def test_an_infinite_loss_is_found_late_too():
    trainer = late(poisoned(build(max_steps=9, with_parts=False), 1, value=math.inf))
    with pytest.raises(DivergenceError, match="step 1, with train_loss inf"):
        trainer.train()


def test_hooks_are_never_ahead_of_the_numbers():
    assert not build()._steps.looks_late
    hooks = {"update": [{"name": "identity"}]}
    trainer = build(hooks=hooks)
    assert trainer._hooks.are_any
    assert not build()._hooks.are_any
