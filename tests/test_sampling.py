import itertools
import math
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_core.data.tokenizer import AsciiTokenizer, ByteTokenizer, CharTokenizer
from lm_core.errors import DivergenceError
from lm_core.model.transformer import Transformer
from lm_core.sampling import Sampler, printable
from lm_core.training.signals import StopRequested

CHARACTERS = "abcdefgh"


def model(max_seq_len=8, seed=2):
    sizes = {"n_layers": 2, "d_model": 16, "n_heads": 2, "d_ff": 32}
    built = Transformer(len(CHARACTERS), **sizes, max_seq_len=max_seq_len, seed=seed)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.mul_(8)
    return built


def sampler(**settings):
    return Sampler(model(), CharTokenizer(CHARACTERS), **{"prompt": "abc", **settings})


def chooser(logits, **settings):
    """Which tokens a sampler chooses from given logits, for draws all over the unit interval."""
    chosen = sampler(**settings)
    draws = (np.arange(20_000) + 0.5) / 20_000
    return [chosen._choose(np.array(logits, dtype=float), draw) for draw in draws]


def test_the_prompt_is_followed_by_max_length_new_tokens():
    text = sampler(max_length=13)()
    assert text.startswith("abc")
    assert len(text) == 3 + 13


@settings(max_examples=20)
@given(st.integers(0, 2**63 - 1), st.text(st.sampled_from(CHARACTERS), min_size=1, max_size=12))
def test_with_and_without_a_cache_the_text_is_the_same_beyond_the_context_too(seed, prompt):
    chosen = sampler(seed=seed, prompt=prompt, max_length=20)
    assert chosen(use_cache=True) == chosen(use_cache=False)


def test_each_token_is_drawn_from_the_last_max_seq_len_tokens():
    chosen = sampler(temperature=0, max_length=15)
    tokens = chosen.tokenizer.encode("abc").tolist()
    chosen.model.eval()
    for _ in range(15):
        logits = chosen.model(torch.tensor([tokens[-8:]]))[0, -1]
        tokens.append(int(logits.argmax()))
    assert chosen() == chosen.tokenizer.decode(np.array(tokens))


def test_the_same_seed_gives_the_same_text_and_another_another():
    assert sampler(seed=5, max_length=40)() == sampler(seed=5, max_length=40)()
    assert sampler(seed=5, max_length=40)() != sampler(seed=6, max_length=40)()


def test_a_longer_sample_begins_like_a_shorter_one():
    assert sampler(max_length=30)().startswith(sampler(max_length=10)())


def test_sampling_leaves_training_mode_and_weights_as_they_were():
    chosen = sampler()
    chosen.model.train()
    before = {name: value.clone() for name, value in chosen.model.state_dict().items()}
    chosen()
    assert chosen.model.training
    assert all(torch.equal(before[n], v) for n, v in chosen.model.state_dict().items())


def test_temperature_zero_takes_the_likeliest():
    assert set(chooser([0.1, 3.0, 2.9], temperature=0)) == {1}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_as_often_as_their_probability_says(temperature):
    logits = np.array([0.0, 1.0, -1.0, 2.0])
    counts = np.bincount(chooser(logits, temperature=temperature), minlength=4)
    weights = np.exp(logits / temperature)
    np.testing.assert_allclose(counts / 20_000, weights / weights.sum(), atol=1e-4)


@pytest.mark.parametrize("temperature", [1e-300, 5e-324, 1e-9])
def test_a_tiny_temperature_is_like_zero_and_never_breaks(temperature):
    assert set(chooser([0.1, 3.0, 2.9], temperature=temperature)) == {1}


def test_a_huge_temperature_makes_all_tokens_alike():
    counts = np.bincount(chooser([0.0, 5.0], temperature=1e300))
    np.testing.assert_allclose(counts / 20_000, 0.5, atol=1e-3)


def test_top_k_keeps_the_k_likeliest_in_their_proportion():
    logits = [0.0, 1.0, 2.0, 3.0]
    counts = np.bincount(chooser(logits, top_k=2), minlength=4)
    assert counts[:2].tolist() == [0, 0]
    assert counts[3] / counts[2] == pytest.approx(math.e, rel=1e-3)
    assert set(chooser(logits, top_k=1)) == {3}
    assert set(chooser(logits, top_k=100)) == {0, 1, 2, 3}


def test_top_p_keeps_the_fewest_tokens_that_hold_the_probability():
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    assert set(chooser(logits, top_p=0.4)) == {0}
    assert set(chooser(logits, top_p=0.6)) == {0, 1}
    assert set(chooser(logits, top_p=0.9)) == {0, 1, 2}
    assert set(chooser(logits, top_p=1.0)) == {0, 1, 2, 3}
    counts = np.bincount(chooser(logits, top_p=0.6))
    assert counts[0] / counts[1] == pytest.approx(5 / 3, rel=1e-3)


def test_a_model_that_has_diverged_is_told_apart_from_a_bug():
    chosen = sampler()
    with torch.no_grad():
        chosen.model.final_norm.bias.fill_(math.nan)
    with pytest.raises(DivergenceError, match="no finite numbers to sample from"):
        chosen()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": ""}, "Sampler.prompt: '' is empty"),
        ({"prompt": "abx"}, r"sampling_prompt: line 1, column 3 .* no 'x'"),
        ({"temperature": -1.0}, "Sampler.temperature: -1.0 is less than 0"),
        ({"temperature": math.nan}, "Sampler.temperature: nan is not finite"),
        ({"max_length": 0}, "Sampler.max_length: 0 is less than 1"),
        ({"top_k": 0}, "Sampler.top_k: 0 is less than 1"),
        ({"top_p": 0.0}, "Sampler.top_p: 0.0 is not greater than 0"),
        ({"top_p": 1.5}, "Sampler.top_p: 1.5 is greater than 1"),
        ({"seed": -1}, "Sampler.seed: -1 is less than 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        sampler(**settings)


def test_bytes_of_one_character_are_decoded_together():
    # Three bytes make one character: decoding token by token would lose it.
    script = [*"é€".encode()]
    steps = iter(script)

    class Scripted:
        max_seq_len = 8
        token_embedding = SimpleNamespace(weight=torch.zeros(1))

        def evaluating(self):
            return nullcontext()

        def new_cache(self):
            return None

        def __call__(self, tokens, cache=None):
            logits = torch.zeros(1, 1, 256)
            logits[0, 0, next(steps)] = 1
            return logits

    chosen = Sampler(Scripted(), ByteTokenizer(), temperature=0, max_length=len(script))
    assert chosen() == "Theé€"


def test_what_a_terminal_would_obey_is_shown_instead():
    assert printable("a\x1b[2J\r\x07b\n\tc\x7fé🙂") == "a\\x1b[2J\\r\\x07b\n\tc\\x7fé🙂"
    every = printable(AsciiTokenizer().decode(np.arange(128)))
    assert every.replace("\n", "").replace("\t", "").isprintable()
    assert "\\x1b" in every


def test_a_hook_may_rule_tokens_out():
    ruled_out = model()
    sampler = Sampler(ruled_out, CharTokenizer(CHARACTERS), prompt="abc", max_length=60)
    assert "b" in sampler()[3:]

    def without_b(site, logits, context):
        logits = logits.clone()
        logits[..., CHARACTERS.index("b")] = -math.inf
        return logits

    ruled_out.sites["logits"].hooks.append(without_b)
    assert "b" not in sampler()[3:]
    ruled_out.sites["logits"].hooks.append(lambda site, x, context: x * 0 - math.inf)
    with pytest.raises(DivergenceError):
        sampler()
    assert ruled_out.training


def test_a_sample_is_given_up_between_two_tokens_and_leaves_the_model_as_it_was():
    chosen = sampler(max_length=13)
    chosen.model.train()
    n_tokens = itertools.count()

    def check():
        if next(n_tokens) == 4:
            raise StopRequested

    with pytest.raises(StopRequested):
        chosen(check)
    assert next(n_tokens) == 5
    assert chosen.model.training
    assert chosen(lambda: None) == chosen()
