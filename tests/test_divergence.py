import math

import pytest
import torch

from lm_core.training.divergence import advice_to_skip, are_finite, divergence_told, named

ONE, NAN, INFINITE = torch.tensor(1.0), torch.tensor(math.nan), torch.tensor(-math.inf)


@pytest.mark.parametrize(
    ("numbers", "finite"),
    [([ONE], True), ([ONE, ONE], True), ([NAN], False), ([ONE, INFINITE], False)],
)
def test_one_number_that_is_not_finite_is_enough(numbers, finite):
    assert are_finite(*numbers) == finite


def test_what_is_told_has_place_values_checkpoint_and_what_to_try():
    what = f"step 4, with {named({'train_loss': ONE, 'grad_norm': NAN})}"
    assert divergence_told(
        what, "no checkpoint was saved", {"learning_rate": 0.1}, ", or wait"
    ) == (
        "training diverged at step 4, with train_loss 1.0 and grad_norm nan; no checkpoint was "
        "saved. Try a smaller learning_rate (now 0.1) in a new run, or wait"
    )
    rates = {"learning_rate": 0.1, "muon_learning_rate": 0.02}
    assert "smaller learning_rate (now 0.1) or muon_learning_rate (now 0.02) in" in divergence_told(
        what, "no checkpoint was saved", rates
    )


def test_leaving_out_batches_is_no_advice_where_two_in_a_row_fail():
    assert "max_skipped_batches=3 or more" in advice_to_skip(5, 2, 5)
    assert "max_skipped_batches=3 or more" in advice_to_skip(5, 2, 4)
    assert "leaving out more may not help" in advice_to_skip(5, 2, 3)
