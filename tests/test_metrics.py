import math

import pytest
import torch

from lm_core.metrics import MetricsBuffer, bits_per_byte, perplexity


def test_rows_come_back_in_order_as_plain_numbers():
    buffer = MetricsBuffer()
    buffer.add({"step": 1, "train_loss": torch.tensor(2.5), "grad_norm": 0.5})
    buffer.add({"step": 2, "train_loss": torch.tensor(1.5), "extra": torch.tensor(3.0)})
    assert buffer.flush() == [
        {"step": 1, "train_loss": 2.5, "grad_norm": 0.5},
        {"step": 2, "train_loss": 1.5, "extra": 3.0},
    ]
    assert buffer.flush() == []


def test_a_float32_value_survives_the_transfer_exactly():
    value = torch.tensor(0.1)
    buffer = MetricsBuffer()
    buffer.add({"train_loss": value})
    assert buffer.flush()[0]["train_loss"] == value.item()


def test_values_that_carry_gradients_and_other_dtypes_can_be_mixed():
    buffer = MetricsBuffer()
    with_gradient = torch.ones((), requires_grad=True) * 2
    buffer.add(
        {"a": with_gradient, "b": torch.tensor(3), "c": torch.tensor(4, dtype=torch.bfloat16)}
    )
    assert buffer.flush() == [{"a": 2.0, "b": 3.0, "c": 4.0}]


def test_amending_changes_the_newest_row():
    buffer = MetricsBuffer()
    buffer.add({"step": 1})
    buffer.add({"step": 2})
    buffer.amend(val_loss=0.25)
    assert buffer.flush() == [{"step": 1}, {"step": 2, "val_loss": 0.25}]


def test_a_uniform_guess_over_256_bytes_costs_eight_bits_a_byte():
    n_tokens = 100
    assert bits_per_byte(n_tokens * math.log(256), n_tokens) == pytest.approx(8)


def test_tokens_of_several_bytes_share_their_loss():
    assert bits_per_byte(100 * math.log(2), 200) == pytest.approx(0.5)


def test_perplexity_is_the_exponential_of_the_loss_and_never_overflows():
    assert perplexity(math.log(17)) == pytest.approx(17)
    assert perplexity(10_000) == math.inf
    assert math.isnan(perplexity(math.nan))
