import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_core.model.dropout import Dropout, keep_mask, reference_masked
from lm_core.model.sites import ForwardContext, Sites
from lm_core.randomness import StepKey

KEY = StepKey(seed=11, step=3)


def training(key=KEY):
    return ForwardContext(key, training=True)


def kept_elements(layer, shape, key=KEY):
    return layer(torch.ones(shape), training(key)) != 0


def test_kept_elements_are_scaled_so_that_the_mean_stays():
    layer = Dropout(0.25, index=0)
    dropped = layer(torch.ones(4, 1000), training())
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])


def test_the_share_of_dropped_elements_is_the_rate():
    n = 4_000_000
    for rate in (0.001, 0.1, 0.5, 0.9):
        dropped = 1 - kept_elements(Dropout(rate, 0), (4, n // 4)).double().mean().item()
        deviation = math.sqrt(rate * (1 - rate) / n)
        assert abs(dropped - rate) < 5 * deviation + 0.5 / 65536


def test_the_scale_belongs_to_the_rounded_rate():
    layer = Dropout(0.1, 0)
    assert layer.n_dropped_levels == 6554
    assert layer.scale * (1 - 6554 / 65536) == pytest.approx(1, abs=1e-15)


def test_a_rate_is_rounded_neither_to_nothing_nor_to_everything():
    assert Dropout(1e-9, 0).n_dropped_levels == 1
    assert Dropout(0.9999999, 0).n_dropped_levels == 65535
    assert Dropout(0.9999999, 0).scale == 65536


def test_nothing_is_dropped_outside_training_or_at_rate_zero():
    x = torch.randn(2, 5)
    assert Dropout(0.5, 0)(x, ForwardContext(KEY, training=False)) is x
    assert Dropout(0.0, 0)(x, training()) is x


def test_rate_one_drops_everything_and_stays_finite():
    x = torch.randn(2, 5, requires_grad=True)
    y = Dropout(1.0, 0)(x, training())
    y.sum().backward()
    assert y.eq(0).all()
    assert x.grad.eq(0).all()


def test_a_pass_without_a_key_is_told_to_give_one():
    with pytest.raises(ValueError, match="StepKey"):
        Dropout(0.5, 0)(torch.ones(1, 1), ForwardContext(None, training=True))


@settings(max_examples=30)
@given(st.integers(1, 8), st.integers(0, 7), st.integers(1, 33))
def test_a_sequence_has_its_mask_wherever_the_batch_is_cut(n_sequences, cut, n_elements):
    cut = min(cut, n_sequences)
    whole = keep_mask(KEY, 2, 20000, (n_sequences, n_elements))
    first = keep_mask(KEY, 2, 20000, (cut, n_elements))
    later = KEY._replace(first_sequence=cut)
    rest = keep_mask(later, 2, 20000, (n_sequences - cut, n_elements))
    assert torch.equal(whole, torch.cat([first, rest]))


def test_masks_of_different_steps_layers_seeds_and_sequences_are_independent():
    n = 100_000
    masks = [
        keep_mask(key, index, 32768, (1, n)).double().numpy().ravel()
        for key, index in (
            (KEY, 0),
            (KEY, 1),
            (KEY._replace(step=4), 0),
            (KEY._replace(seed=12), 0),
            (KEY._replace(first_sequence=1), 0),
        )
    ]
    correlations = np.corrcoef(masks) - np.eye(len(masks))
    assert np.abs(correlations).max() < 5 / math.sqrt(n)


def test_neighbouring_elements_are_independent():
    n = 1_000_000
    mask = keep_mask(KEY, 0, 32768, (1, n)).double().numpy().ravel()
    for lag in (1, 2, 3, 4, 5, 256):
        correlation = np.corrcoef(mask[:-lag], mask[lag:])[0, 1]
        assert abs(correlation) < 5 / math.sqrt(n)


def test_the_gradient_passes_exactly_where_the_value_passed():
    layer = Dropout(0.3, 0)
    x = torch.randn(3, 50, requires_grad=True)
    y = layer(x, training())
    y.sum().backward()
    assert torch.equal(x.grad != 0, kept_elements(layer, (3, 50)))
    assert torch.equal(y.detach(), x.detach() * x.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_what_is_kept_is_what_the_plain_operations_keep(dtype):
    layer, x = Dropout(0.3, 0), torch.randn(3, 70).to(dtype).requires_grad_()
    y = layer(x, training())
    expected = reference_masked(x, layer.keep_mask(training(), (3, 70)), layer.scale)
    torch.testing.assert_close(y, expected)
    assert y.dtype == dtype
    of_y = torch.autograd.grad(y.float().square().sum(), x)
    torch.testing.assert_close(of_y, torch.autograd.grad(expected.float().square().sum(), x))


def test_gradients_are_those_of_small_differences():
    layer, x = Dropout(0.3, 0), torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x, training()), x)


def site():
    return Sites().add("a place", "(batch, time, d_model)")


PAIRS = [
    (torch.float32, torch.bfloat16),
    (torch.float32, torch.float32),
    (torch.float64, torch.float64),
    (torch.bfloat16, torch.bfloat16),
]


@pytest.mark.parametrize(("wide", "narrow"), PAIRS)
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(3, 70), (2, 100, 333)])
def test_adding_to_the_residual_stream_is_dropout_and_a_sum_to_the_last_bit(
    wide, narrow, rate, shape
):
    layer = Dropout(rate, 0)
    residual = torch.randn(shape).to(wide).requires_grad_()
    x = torch.randn(shape).to(narrow).requires_grad_()
    found = layer.add(residual, x, site(), training())
    expected = residual + layer(x, training())
    assert torch.equal(found, expected)
    assert found.dtype == wide
    weight = torch.randn(shape).to(wide)
    of_found = torch.autograd.grad((found * weight).sum(), (residual, x))
    of_expected = torch.autograd.grad((expected * weight).sum(), (residual, x))
    assert all(torch.equal(one, other) for one, other in zip(of_found, of_expected, strict=True))


def test_hooks_see_what_is_added_and_only_looking_changes_no_bit():
    layer, residual, x = Dropout(0.3, 0), torch.randn(3, 70), torch.randn(3, 70).bfloat16()
    place, seen = site(), []
    place.hooks.append(lambda _, activations, __: seen.append(activations))
    assert torch.equal(
        layer.add(residual, x, place, training()), layer.add(residual, x, site(), training())
    )
    assert torch.equal(seen[0], layer(x, training()))
    place.hooks.append(lambda _, activations, __: activations * 0)
    assert torch.equal(layer.add(residual, x, place, training()), residual)


def test_sums_of_other_layouts_are_as_good():
    layer, residual, x = Dropout(0.3, 0), torch.randn(70, 3).T, torch.randn(70, 3).T
    assert torch.equal(
        layer.add(residual, x, site(), training()),
        layer.add(residual.contiguous(), x.contiguous(), site(), training()),
    )


def test_gradients_of_a_sum_are_those_of_small_differences():
    layer, both = Dropout(0.3, 0), torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda both: layer.add(both[0], both[1], site(), training()), both
    )


@pytest.mark.parametrize("n", [1, 2, 15, 16])
def test_truth_values_are_ones_and_zeroes_in_memory(n):
    """Others would be true for some operations and not for others."""
    mask = keep_mask(KEY, 0, 30000, (40, n)).contiguous()
    assert mask.dtype == torch.bool
    assert set(mask.view(torch.uint8).unique().tolist()) == {0, 1}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_is_dropped_leaves_nothing_whatever_it_was(dtype):
    layer, x = Dropout(0.5, 0), torch.full((3, 70), math.nan).to(dtype)
    x[1], residual = math.inf, torch.ones(3, 70)
    dropped = ~layer.keep_mask(training(), (3, 70))
    assert layer(x, training())[dropped].eq(0).all()
    assert layer.add(residual, x, site(), training())[dropped].eq(1).all()
