import itertools
import math
import weakref

import numpy as np
import pytest
import torch

from lm_core.data.bpe_training import train_bpe
from lm_core.data.tokenizer import ByteTokenizer, CharTokenizer
from lm_core.evaluation import Evaluator
from lm_core.model.transformer import Transformer
from lm_core.training.signals import StopRequested

TEXT = "abcdefgh" * 5 + "hgf"


def model(vocab_size=256, dropout=0.5):
    sizes = {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_ff": 32, "max_seq_len": 8}
    return Transformer(vocab_size, **sizes, dropout=dropout, seed=2)


def tokens_of(text=TEXT):
    return ByteTokenizer().encode(text)


def loss_by_hand(built, tokens, length=8):
    """The loss of each target alone, in its window, in float64."""
    built = built.double().eval()
    losses = []
    for start in range(0, len(tokens) - 1, length):
        window = torch.tensor(tokens[start : start + length + 1].astype(np.int64))
        with torch.no_grad():
            logits = built(window[None, :-1])[0]
        probabilities = logits.exp() / logits.exp().sum(-1, keepdim=True)
        losses += [-math.log(p[t]) for p, t in zip(probabilities, window[1:], strict=True)]
    return losses


@pytest.mark.parametrize("n", [9, 10, 16, 17, 18, 43, 300])
def test_the_loss_is_the_mean_over_every_target_once(n):
    tokens = tokens_of((TEXT * 10)[:n])
    result = Evaluator(model(), tokens, ByteTokenizer())()
    losses = loss_by_hand(model(), tokens)
    assert result.n_targets == len(losses) == n - 1
    assert result.loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_the_number_is_the_same_every_time_and_dropout_has_no_part_in_it():
    evaluator = Evaluator(model(dropout=0.5), tokens_of(), ByteTokenizer())
    assert evaluator() == evaluator()
    assert evaluator() == Evaluator(model(dropout=0.0), tokens_of(), ByteTokenizer())()


def test_training_mode_is_given_back():
    built = model()
    evaluator = Evaluator(built, tokens_of(), ByteTokenizer())
    for mode in (True, False):
        built.train(mode)
        evaluator()
        assert built.training is mode


def test_training_mode_is_given_back_when_a_pass_fails():
    def fail(site, activations, context):
        raise RuntimeError("in a hook")

    built = model()
    evaluator = Evaluator(built, tokens_of(), ByteTokenizer())
    built.sites["logits"].hooks.append(fail)
    with pytest.raises(RuntimeError, match="in a hook"):
        evaluator()
    assert built.training
    assert not torch.is_inference_mode_enabled()


def test_bits_per_byte_count_the_bytes_of_the_targets():
    text = "é€" * 20
    tokenizer = CharTokenizer("é€")
    result = Evaluator(model(vocab_size=2), tokenizer.encode(text), tokenizer)()
    n_bytes = len(text.encode()) - len("é".encode())
    expected = result.loss * result.n_targets / math.log(2) / n_bytes
    assert result.bits_per_byte == pytest.approx(expected, rel=1e-12)
    assert result.perplexity == pytest.approx(math.exp(result.loss))


def uniform(vocab_size):
    """A model that gives every token the same probability."""
    built = model(vocab_size)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.zero_()
    return built


def test_bits_per_byte_compare_across_tokenizers():
    text = "The naïve café’s cat, and the mat.\n" * 30  # noqa: RUF001
    by_bytes = Evaluator(uniform(256), tokens_of(text), ByteTokenizer())()
    assert by_bytes.bits_per_byte == pytest.approx(8, rel=1e-6)
    tokenizer = train_bpe([[text]], 300)
    tokens = np.append(tokenizer.encode(text), tokenizer.separator)
    by_bpe = Evaluator(uniform(tokenizer.vocab_size), tokens, tokenizer)()
    # The first token is no target; the end of the text is one, and stands for no byte.
    n_bytes = len(text.encode()) - tokenizer.count_bytes(tokens[:1])
    by_hand = math.log2(tokenizer.vocab_size) * (len(tokens) - 1) / n_bytes
    assert by_bpe.bits_per_byte == pytest.approx(by_hand, rel=1e-6)
    assert by_bpe.bits_per_byte < by_bytes.bits_per_byte


def test_bytes_are_counted_at_the_first_evaluation_and_never_again():
    class Counting(ByteTokenizer):
        n_counts = 0

        def count_bytes(self, tokens):
            self.n_counts += 1
            return super().count_bytes(tokens)

    tokenizer = Counting()
    evaluator = Evaluator(model(), tokens_of(), tokenizer)
    assert tokenizer.n_counts == 0
    evaluator()
    evaluator()
    assert tokenizer.n_counts == 1


def test_of_a_batch_nothing_stays_that_lies_in_the_way_of_the_memory_of_others():
    kept, n_alive = [], []

    class Watched(Evaluator):
        def _sum(self, *batch):
            n_alive.append(sum(found() is not None for found in kept))
            found = super()._sum(*batch)
            kept.append(weakref.ref(found))
            return found

    tokens = tokens_of("the quick brown fox " * 1000)
    found = Watched(model(), tokens, ByteTokenizer())()
    assert len(n_alive) > 3
    assert not any(n_alive)
    assert found == Evaluator(model(), tokens, ByteTokenizer())()


def test_a_part_too_short_for_one_window_is_refused_at_once():
    with pytest.raises(ValueError, match=r"validation part .* has 8 tokens; one window needs 9"):
        Evaluator(model(), tokens_of()[:8], ByteTokenizer())


def test_it_reads_like_a_sentence():
    result = Evaluator(model(), tokens_of(), ByteTokenizer())()
    assert str(result).startswith(f"{result.loss:.4f} nats per token, ")
    assert "bits per byte, perplexity " in str(result)


def test_an_evaluation_is_given_up_between_two_batches_and_leaves_the_model_as_it_was():
    built = model()
    built.train()
    n_batches = itertools.count()

    def check():
        if next(n_batches) == 1:
            raise StopRequested

    # More windows than one batch holds.
    with pytest.raises(StopRequested):
        Evaluator(built, ByteTokenizer().encode("the quick brown fox " * 20), ByteTokenizer())(
            check
        )
    assert next(n_batches) == 2
    assert built.training
