"""The objective, against its formula in float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from lm_core.training.objective import Objective

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 3 * torch.randn(2, 5, 7, generator=GENERATOR)
TARGETS = torch.randint(7, (2, 5), generator=GENERATOR)


def by_formula(logits, targets, label_smoothing, z_loss):
    total = 0.0
    for row, target in zip(logits.double().flatten(0, 1), targets.flatten(), strict=True):
        normaliser = row.exp().sum().log()
        wanted = torch.full((7,), label_smoothing / 7, dtype=torch.float64)
        wanted[target] += 1 - label_smoothing
        total += -(wanted * (row - normaliser)).sum() + z_loss * normaliser**2
    return float(total / targets.numel())


@given(st.floats(0, 0.9), st.floats(0, 1))
def test_it_is_the_formula(label_smoothing, z_loss):
    loss = Objective(label_smoothing, z_loss)(LOGITS, TARGETS)
    expected = by_formula(LOGITS, TARGETS, label_smoothing, z_loss)
    assert float(loss.objective) == pytest.approx(expected, rel=1e-5)
    assert float(loss.cross_entropy) == pytest.approx(by_formula(LOGITS, TARGETS, 0, 0), rel=1e-5)


def test_smoothing_is_that_of_pytorch():
    expected = F.cross_entropy(LOGITS.flatten(0, 1), TARGETS.flatten(), label_smoothing=0.2)
    torch.testing.assert_close(Objective(0.2, 0.0)(LOGITS, TARGETS).objective, expected)


def test_without_either_it_is_the_loss_to_the_last_bit():
    loss = Objective(0.0, 0.0)(LOGITS, TARGETS)
    expected = F.cross_entropy(LOGITS.flatten(0, 1), TARGETS.flatten())
    assert torch.equal(loss.objective, expected)
    assert torch.equal(loss.cross_entropy, expected)


def test_logits_of_bfloat16_are_computed_with_in_float32():
    loss = Objective(0.1, 0.1)(LOGITS.bfloat16(), TARGETS)
    expected = Objective(0.1, 0.1)(LOGITS.bfloat16().float(), TARGETS)
    assert loss.objective.dtype == torch.float32
    assert torch.equal(loss.objective, expected.objective)
