"""What training changes, as tensors and back."""

import pytest
import torch

from lm_core.errors import MachineError
from lm_core.hooks import Hooks
from lm_core.model.transformer import Transformer
from lm_core.training.averaging import WeightAverage
from lm_core.training.trained import Trained
from tests.tiny_trainer import MODERN, SIZES, TOKENIZER, build, new_run, optimizer_of


def trained(ema_decay=None, seed=1):
    model = Transformer(TOKENIZER.vocab_size, **SIZES, dropout=0.0, seed=seed)
    average = None if ema_decay is None else WeightAverage(model, ema_decay)
    return Trained(model, optimizer_of(model), Hooks(None, model), average)


def test_with_an_average_the_model_of_a_checkpoint_is_the_average():
    one = trained(0.5)
    with torch.no_grad():
        for parameter in one.model.parameters():
            parameter += 1
    tensors = one.tensors()
    name = "token_embedding.weight"
    assert torch.equal(tensors["model"][name], one.average.weights[name])
    assert torch.equal(
        tensors["optimizer"][f"{name}/weight_in_training"], one.model.state_dict()[name]
    )
    other = trained(0.5, seed=2)
    other.load(tensors["model"], tensors["optimizer"])
    assert torch.equal(other.model.token_embedding.weight, one.model.token_embedding.weight)
    assert torch.equal(other.average.weights[name], one.average.weights[name])


@pytest.mark.parametrize(
    ("saved", "here", "message"),
    [
        (0.5, None, "has an average of the weights, and this training has none"),
        (None, 0.5, "lacks an average of the weights, and this training has one"),
    ],
)
def test_an_average_is_not_made_up_and_not_lost(saved, here, message):
    tensors = trained(saved).tensors()
    with pytest.raises(MachineError, match=message):
        trained(here).load(tensors["model"], tensors["optimizer"])


def test_weights_that_are_not_finite_are_noticed():
    one = trained()
    assert one.is_finite
    with torch.no_grad():
        one.model.token_embedding.weight[0, 0] = torch.inf
    assert not one.is_finite


def test_evaluations_and_samples_see_the_average_and_training_does_not(tmp_path):
    run = new_run(tmp_path / "run")
    averaged = build(**{**MODERN, "ema_decay": 0.9})
    plain = build(**{**MODERN, "ema_decay": None})
    seen = []
    evaluate = averaged._looks.evaluate
    averaged._looks.evaluate = lambda check: (
        seen.append(averaged.model.token_embedding.weight.detach().clone()) or evaluate(check)
    )
    result = averaged.train(run)
    other = plain.train()
    for one, same in zip(averaged.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(one, same)
    average = averaged._trained.average.weights["token_embedding.weight"]
    assert torch.equal(seen[-1], average)
    assert not torch.equal(average, averaged.model.token_embedding.weight)
    assert result.evaluation.loss != other.evaluation.loss
