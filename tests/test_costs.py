import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from lm_core import costs
from lm_core.config.hyperparameters import KEYS
from lm_core.config.table import gin_parameter
from lm_core.config.training_config import TrainingConfig
from lm_core.costs import (
    activation_bytes,
    checkpoint_bytes,
    count_parameters,
    estimate_memory,
    flops_a_step,
    parameters_by_part,
    shapes_only,
)
from lm_core.model import causal_attention, linear
from lm_core.model.transformer import Transformer
from lm_core.randomness import StepKey
from lm_core.training.trainer import Trainer

VOCAB_SIZE = 11
sizes = st.builds(
    lambda half, n_heads, position, **others: TrainingConfig(
        n_heads=n_heads,
        d_model=(2 * half if position == "rope" else half) * n_heads,
        position=position,
        **others,
    ),
    half=st.integers(1, 5),
    position=st.sampled_from(["learned", "rope"]),
    norm=st.sampled_from(["layernorm", "rmsnorm"]),
    activation=st.sampled_from(["gelu", "gelu_tanh", "relu_squared", "swiglu"]),
    qk_norm=st.booleans(),
    tie_embeddings=st.booleans(),
    bias=st.booleans(),
    logit_softcap=st.sampled_from([None, 9.0]),
    n_heads=st.integers(1, 3),
    n_layers=st.integers(1, 4),
    d_ff=st.integers(1, 9),
    max_seq_len=st.integers(1, 9),
    batch_size=st.integers(1, 4),
    dropout=st.sampled_from([0.0, 0.3]),
)


def build(config):
    return Transformer(VOCAB_SIZE, **costs.model_arguments(config))


def loss_of(model, config):
    tokens = torch.zeros(config.batch_size, config.max_seq_len, dtype=torch.long)
    return model(tokens, tokens, key=StepKey(0, 1))


def shapes(model):
    return {name: (tuple(p.shape), p.dtype) for name, p in model.named_parameters()}


@given(sizes)
def test_a_model_without_content_has_the_shapes_and_the_sites_of_the_built_one(config):
    hollow, model = shapes_only(config, VOCAB_SIZE), build(config)
    assert all(parameter.is_meta for parameter in hollow.parameters())
    assert shapes(hollow) == shapes(model)
    assert hollow.sites.names() == model.sites.names()


def test_a_model_without_content_takes_every_hyperparameter_of_the_model(monkeypatch):
    taken = {}
    monkeypatch.setattr(costs, "Transformer", lambda vocab_size, **given: taken.update(given))
    costs._model_of(TrainingConfig(), VOCAB_SIZE)
    names = {gin_parameter(key) for key in KEYS if gin_parameter(key).startswith("Transformer.")}
    assert {f"Transformer.{name}" for name in taken} == {*names, "Transformer.seed"}


PLACES = {
    "token embedding, also the output head": "token_embedding",
    "token embedding": "token_embedding",
    "output head": "head.",
    "position embedding": "position_embedding",
    "attention": ".attention.",
    "MLPs": ".mlp.",
    "norms": "norm",
}


@given(sizes)
def test_the_parameters_of_each_part_are_those_of_the_built_model(config):
    model = build(config)
    parts = parameters_by_part(config, VOCAB_SIZE)
    for part, place in PLACES.items():
        named = model.named_parameters()
        if part in parts:
            assert parts[part] == sum(p.numel() for name, p in named if place in name), part
    assert count_parameters(config, VOCAB_SIZE) == model.n_parameters


def flops_of_products(added, left, right, out_shape=None, **_):
    batch, rows, inner = left
    return 2 * batch * rows * inner * right[2]


def flops_of_a_linear_layer(x, weight, *others, **_):
    return 2 * x[0] * x[1] * weight[0]


@settings(max_examples=25)
@given(sizes)
def test_arithmetic_is_what_pytorch_counts(config):
    model = build(config)
    # It does not know all names of products.
    named = {
        torch.ops.aten.baddbmm_: flops_of_products,
        torch.ops.mkldnn._linear_pointwise: flops_of_a_linear_layer,
    }
    with (
        pytest.MonkeyPatch.context() as patch,
        FlopCounterMode(display=False, custom_mapping=named) as counter,
    ):
        # It sees PyTorch's products only.
        patch.setattr(causal_attention, "_InBlocks", causal_attention._InStrips)
        patch.setattr(linear, "_is_mkl_slow", lambda: False)
        loss_of(model, config).backward()
    assert flops_a_step(config, VOCAB_SIZE) == counter.get_total_flops()


@settings(max_examples=25)
@given(sizes)
def test_activations_are_what_autograd_keeps(config):
    model = build(config)
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _loss = loss_of(model, config)
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    expected = sum(n for address, n in kept.items() if address not in parameters)
    assert activation_bytes(config, VOCAB_SIZE) == expected


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_a_checkpoint_has_the_size_of_its_tensors(optimizer, ema_decay):
    config = TrainingConfig(
        n_layers=2, d_model=8, n_heads=2, d_ff=12, max_seq_len=8, activation="swiglu"
    )
    config = config.model_copy(update={"optimizer": optimizer, "ema_decay": ema_decay})
    model = build(config)
    tokens = np.arange(50, dtype=np.uint8) % VOCAB_SIZE
    trainer = Trainer(model, tokens, optimizer=optimizer, ema_decay=ema_decay, batch_size=2, seed=1)
    trainer.train_step()
    tensors = [t for part in trainer._trained.tensors().values() for t in part.values()]
    counts = sum(t.numel() for t in tensors if t.dim() == 0)
    n_bytes = sum(t.numel() * t.element_size() for t in tensors)
    assert checkpoint_bytes(config, VOCAB_SIZE) == n_bytes - 4 * counts


def test_a_batch_in_parts_keeps_the_activations_of_one_part():
    whole, part = TrainingConfig(batch_size=4), TrainingConfig(batch_size=8, accumulation_steps=2)
    assert activation_bytes(part, VOCAB_SIZE) == activation_bytes(whole, VOCAB_SIZE)


def test_a_model_that_fits_into_no_machine_is_estimated_all_the_same():
    config = TrainingConfig(n_layers=10_000, d_model=16_384, n_heads=128, d_ff=65_536)
    estimate = estimate_memory(config, 50_000, program=0)
    assert estimate.weights == 4 * count_parameters(config, 50_000)
    assert estimate.total > 10**14


def test_the_peak_is_the_sum_of_its_parts():
    config = TrainingConfig()
    estimate = estimate_memory(config, 128, program=10**8)
    assert estimate.total == sum(estimate)
    assert estimate.program > 10**8
    assert estimate.gradients == estimate.weights == estimate.optimizer // 2
    assert estimate.activations == activation_bytes(config, 128)


@pytest.mark.parametrize(("layers", "batch"), list(itertools.product((1, 3), (1, 5))))
def test_more_layers_and_sequences_need_more(layers, batch):
    config = TrainingConfig(n_layers=layers, batch_size=batch)
    more = TrainingConfig(n_layers=layers + 1, batch_size=batch + 1)
    assert activation_bytes(more, 128) > activation_bytes(config, 128)


def test_a_checkpoint_holds_weights_and_two_means():
    config = TrainingConfig()
    assert checkpoint_bytes(config, 128) == 12 * count_parameters(config, 128)
