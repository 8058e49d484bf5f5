"""The average of weights, against its formula in float64."""

import pytest
import torch
from torch import nn

from lm_core.training.averaging import WeightAverage


def moved(model, step):
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("decay", [0.1, 0.9, 0.999])
def test_shares_fall_with_age_and_the_initial_weights_have_none(decay):
    model = nn.Linear(3, 2)
    average, seen = WeightAverage(model, decay), []
    for step in range(1, 8):
        seen.append(moved(model, step))
        average.take(step)
        shares = [decay ** (step - s) * (1 - decay) / (1 - decay**step) for s in range(1, step + 1)]
        assert sum(shares) == pytest.approx(1)
        for name, found in average.weights.items():
            pairs = zip(shares, seen, strict=True)
            expected = sum(share * weights[name].double() for share, weights in pairs)
            torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_after_the_first_step_it_is_the_weights_to_the_last_bit():
    model = nn.Linear(3, 2)
    average = WeightAverage(model, 0.99)
    weights = moved(model, 1)
    average.take(1)
    assert all(torch.equal(average.weights[name], weights[name]) for name in weights)


@pytest.mark.parametrize("fails", [False, True])
def test_a_model_has_its_averages_for_a_while_and_then_its_weights_again(fails):
    model = nn.Linear(3, 2)
    average = WeightAverage(model, 0.5)
    for step in (1, 2):
        weights = moved(model, step)
        average.take(step)
    averages = {name: a.clone() for name, a in average.weights.items()}
    try:
        with average.in_place_of_weights():
            assert torch.equal(model.weight, averages["weight"])
            assert not torch.equal(model.weight, weights["weight"])
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert torch.equal(model.weight, weights["weight"])
    assert torch.equal(average.weights["weight"], averages["weight"])


def test_where_it_is_off_nothing_changes():
    model = nn.Linear(3, 2)
    average = WeightAverage(model, 0.5)
    moved(model, 1)
    average.take(1)
    before = average.weights["weight"].clone()
    moved(model, 2)
    average.take(2, is_off=torch.tensor(True))
    assert torch.equal(average.weights["weight"], before)
    on = WeightAverage(model, 0.5)
    on.load(average.weights)
    on.take(2)
    average.take(2, is_off=torch.tensor(False))
    torch.testing.assert_close(average.weights["weight"], on.weights["weight"])
