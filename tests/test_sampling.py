import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_core import sampling as module
from lm_core import token_choice
from lm_core.data.tokenizer import AsciiTokenizer, ByteTokenizer, CharTokenizer
from lm_core.errors import DivergenceError
from lm_core.generation import Generation
from lm_core.model.transformer import Transformer
from lm_core.randomness import keyed_generator
from lm_core.sampling import Sampler, printable, written_out
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


def test_the_prompt_is_followed_by_max_length_new_tokens():
    (text,) = sampler(max_length=13)()
    assert text.startswith("abc")
    assert len(text) == 3 + 13


CHOOSING = [{}, {"temperature": 0}, {"temperature": 0.6}, {"top_k": 3}, {"top_p": 0.8}]


@settings(max_examples=40)
@given(
    st.integers(0, 2**63 - 1),
    st.text(st.sampled_from(CHARACTERS), min_size=1, max_size=12),
    st.integers(1, 5),
    st.sampled_from(CHOOSING),
)
def test_cached_or_not_alone_or_not_the_texts_are_the_same_beyond_the_context_too(
    seed, prompt, n, choosing
):
    given = {"seed": seed, "prompt": prompt, "max_length": 20, **choosing}
    texts = sampler(**given, num_samples=n)()
    assert texts == sampler(**given, num_samples=n)(use_cache=False)
    assert texts[:1] == sampler(**given)() == sampler(**given)(use_cache=False)


def test_likeliest_tokens_that_only_rounding_tells_apart_are_the_same_with_and_without_a_cache():
    # Whether a token is likelier than its neighbour is a matter of the last bits, and so of the
    # order of each sum.
    paired = model(max_seq_len=32)
    with torch.no_grad():
        embedding = paired.token_embedding.weight
        embedding[1::2] = torch.nextafter(embedding[0::2], torch.tensor(0.0))
        embedding[1::2, ::2] = torch.nextafter(embedding[0::2, ::2], embedding[0::2, ::2] * 2)
    for prompt in itertools.product("aceg", repeat=2):
        given = {"prompt": "".join(prompt), "temperature": 0, "max_length": 20}
        write = Sampler(paired, CharTokenizer(CHARACTERS), **given)
        assert write() == write(use_cache=False)


def test_the_first_samples_are_the_same_in_any_number_of_them(monkeypatch):
    monkeypatch.setattr(module, "SAMPLES_AT_ONCE", 3)
    texts = sampler(num_samples=8, max_length=20)()
    assert len(set(texts)) == 8
    for n in range(1, 8):
        assert sampler(num_samples=n, max_length=20)() == texts[:n]


def test_a_sample_is_keyed_by_its_number():
    chosen = sampler(num_samples=3, max_length=1, seed=7)
    tokens = torch.from_numpy(chosen.tokenizer.encode("abc", where="").astype(np.int64))
    with chosen.model.evaluating():
        logits = chosen.model(tokens[None])
    weights = torch.softmax(logits[0, -1].double(), -1).cumsum(0).numpy()
    draws = [keyed_generator(7, "sampling", index).random() for index in range(3)]
    tokens = np.searchsorted(weights, draws, side="right")
    assert chosen() == ["abc" + CHARACTERS[token] for token in tokens]


def test_what_rounding_might_decide_is_decided_by_a_pass_over_the_text_alone(monkeypatch):
    expected = sampler(num_samples=4, max_length=20)()

    def rough(self):
        return exact(self) + rounding.uniform(-1, 1, (4, len(CHARACTERS))) * 1e-3

    exact, rounding = Generation.next_logits, np.random.default_rng(0)
    monkeypatch.setattr(token_choice, "ROUNDING_OF_LOGITS", 1e-3)
    monkeypatch.setattr(Generation, "next_logits", rough)
    assert sampler(num_samples=4, max_length=20)() == expected


def test_each_token_is_drawn_from_the_last_max_seq_len_tokens():
    chosen = sampler(temperature=0, max_length=15)
    tokens = chosen.tokenizer.encode("abc").tolist()
    chosen.model.eval()
    for _ in range(15):
        logits = chosen.model(torch.tensor([tokens[-8:]]))[0, -1]
        tokens.append(int(logits.argmax()))
    assert chosen() == [chosen.tokenizer.decode(np.array(tokens))]


def test_the_same_seed_gives_the_same_text_and_another_another():
    assert sampler(seed=5, max_length=40)() == sampler(seed=5, max_length=40)()
    assert sampler(seed=5, max_length=40)() != sampler(seed=6, max_length=40)()


def test_a_longer_sample_begins_like_a_shorter_one():
    assert sampler(max_length=30)()[0].startswith(sampler(max_length=10)()[0])


def test_sampling_leaves_training_mode_and_weights_as_they_were():
    chosen = sampler()
    chosen.model.train()
    before = {name: value.clone() for name, value in chosen.model.state_dict().items()}
    chosen()
    assert chosen.model.training
    assert all(torch.equal(before[n], v) for n, v in chosen.model.state_dict().items())


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
        ({"num_samples": 0}, "Sampler.num_samples: 0 is less than 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        sampler(**settings)


def test_bytes_of_one_character_are_decoded_together(monkeypatch):
    # Two or three bytes make one character: decoding token by token would lose it.
    steps = iter([*"é€".encode()])

    def scripted(self):
        return np.eye(256)[[next(steps)]]

    monkeypatch.setattr(Generation, "next_logits", scripted)
    tiny = Transformer(256, n_layers=1, d_model=4, n_heads=1, d_ff=4)
    assert Sampler(tiny, ByteTokenizer(), temperature=0, max_length=5)() == ["Theé€"]


def test_what_a_terminal_would_obey_is_shown_instead():
    assert printable("a\x1b[2J\r\x07b\n\tc\x7fé🙂") == "a\\x1b[2J\\r\\x07b\n\tc\\x7fé🙂"
    every = printable(AsciiTokenizer().decode(np.arange(128)))
    assert every.replace("\n", "").replace("\t", "").isprintable()
    assert "\\x1b" in every


def test_a_hook_may_rule_tokens_out():
    ruled_out = model()
    sampler = Sampler(ruled_out, CharTokenizer(CHARACTERS), prompt="abc", max_length=60)
    assert "b" in sampler()[0][3:]

    def without_b(site, logits, context):
        logits = logits.clone()
        logits[..., CHARACTERS.index("b")] = -math.inf
        return logits

    ruled_out.sites["logits"].hooks.append(without_b)
    assert "b" not in sampler()[0][3:]
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


def test_a_lone_sample_is_for_a_program_the_bare_text():
    assert written_out(["a\x07b"], for_a_terminal=False) == "a\x07b"
    assert written_out(["a\x07b"], for_a_terminal=True) == "a\\x07b\n"


@pytest.mark.parametrize(("for_a_terminal", "bell"), [(False, "\x07"), (True, "\\x07")])
def test_several_samples_are_told_apart(for_a_terminal, bell):
    expected = f"--- sample 0 ---\na{bell}b\n--- sample 1 ---\nc\n"
    assert written_out(["a\x07b", "c"], for_a_terminal) == expected
