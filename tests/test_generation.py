import math

import numpy as np
import pytest
import torch

from lm_core.errors import DivergenceError
from lm_core.generation import Generation
from tests.test_transformer import build, shaken

PROMPT = np.array([3, 1, 4])


def grown(model, n_sequences=3, n_new=12, prompt=PROMPT, **options):
    """All logits of a generation that takes its tokens as they come, and its tokens."""
    generator = np.random.default_rng(5)
    generation = Generation(model, prompt, n_sequences, n_new, **options)
    logits, plain = [], []
    with model.evaluating():
        for _ in range(n_new):
            logits.append(generation.next_logits())
            plain.append([generation.plain_logits(i)[0] for i in range(n_sequences)])
            generation.append(generator.integers(0, model.vocab_size, n_sequences))
    return np.array(logits), np.array(plain), generation.tokens


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("hooked", [True, False])
def test_logits_are_those_of_each_window_alone_also_when_it_moves(use_cache, hooked):
    model = shaken(build()).double()
    if hooked:
        model.sites["logits"].hooks.append(lambda site, x, context: x * 2)
    logits, plain, tokens = grown(model, use_cache=use_cache)
    assert tokens.shape == (3, 3 + 12)
    assert (tokens[:, :3] == PROMPT).all()
    np.testing.assert_allclose(logits, plain, rtol=1e-9, atol=1e-9)
    window = torch.from_numpy(tokens[1:2, 4:13])
    with model.evaluating():
        expected = model(window)[0, -1].numpy()
    np.testing.assert_allclose(logits[10, 1], expected, rtol=1e-9, atol=1e-9)


def test_a_prompt_longer_than_the_context_is_cut_from_its_start():
    model = shaken(build()).double()
    prompt = np.arange(25) % model.vocab_size
    logits, plain, _ = grown(model, prompt=prompt, n_new=3)
    np.testing.assert_allclose(logits, plain, rtol=1e-9, atol=1e-9)
    _, expected, _ = grown(model, prompt=prompt[-9:], n_new=3)
    np.testing.assert_array_equal(plain, expected)


def test_hooks_see_every_step_and_without_them_modules_are_left_out():
    model = build()
    shapes = []
    model.sites["logits"].hooks.append(lambda site, x, context: shapes.append(tuple(x.shape)))
    generation = Generation(model, PROMPT, 2, 3)
    with model.evaluating():
        for _ in range(3):
            generation.next_logits()
            generation.append(np.array([0, 1]))
    assert shapes == [(1, 1, 11), (2, 1, 11), (2, 1, 11)]


@pytest.mark.parametrize("n_sequences", [1, 3])
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("n_prompt", [3, 9, 10])
@pytest.mark.parametrize("hooked", [True, False])
def test_what_is_plain_is_so_to_the_last_bit(n_sequences, use_cache, n_prompt, hooked):
    model = shaken(build())
    if hooked:
        model.sites["logits"].hooks.append(lambda site, x, context: x * 2)
    prompt = np.arange(n_prompt) % model.vocab_size
    generation = Generation(model, prompt, n_sequences, 8, use_cache)
    with model.evaluating():
        for place in range(n_prompt, n_prompt + 8):
            is_decoded = place <= model.max_seq_len and not hooked
            is_alone = n_sequences == 1 and not (use_cache and place <= model.max_seq_len)
            assert generation.is_plain == (use_cache if is_decoded else is_alone)
            logits = generation.next_logits()
            plain = np.concatenate([generation.plain_logits(i) for i in range(n_sequences)])
            if generation.is_plain:
                np.testing.assert_array_equal(logits, plain)
            np.testing.assert_allclose(logits, plain, rtol=1e-4, atol=1e-5)
            generation.append(np.arange(n_sequences) + place % 3)


def test_plain_logits_are_those_of_the_model():
    _, plain, tokens = grown(shaken(build()), n_new=5)
    exact = shaken(build()).double()
    with exact.evaluating():
        for place, logits in enumerate(plain, start=3):
            expected = exact(torch.from_numpy(tokens[:, :place]))[:, -1]
            np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_the_cache_has_room_for_what_is_asked_for_and_no_more_than_the_context():
    model = build()
    assert model.new_cache(2, most_tokens=4).stored[0].shape == (2, 2, 3, 4, 4)
    assert model.new_cache(2, most_tokens=40).stored[0].shape == (2, 2, 3, 9, 4)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_sequence_without_finite_numbers_is_enough_to_have_diverged(value):
    model = build()

    def spoilt(site, logits, context):
        logits = logits.clone()
        logits[-1:] = value
        return logits

    generation = Generation(model, PROMPT, 3, 3)
    with model.evaluating():
        generation.next_logits()
        generation.append(np.array([0, 1, 2]))
        generation._decoder = None
        model.sites["logits"].hooks.append(spoilt)
        with pytest.raises(DivergenceError, match="no finite numbers"):
            generation.next_logits()
