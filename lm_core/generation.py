"""Sequences that grow token by token, and the logits for what comes next in each."""

import numpy as np
import torch

from lm_core.errors import DivergenceError
from lm_core.model.attention import KeyValueCache
from lm_core.model.decoding import Decoder
from lm_core.model.transformer import Transformer

# Sequences that are to grow in one batch: of more, keys and values would take more memory than the
# 67 MB that these take at the default sizes.
SAMPLES_AT_ONCE = 32


class Generation:
    """A batch of sequences that all begin with the same prompt.

    Where nothing else is said, keys and values are kept from token to token as long as the
    sequences fit into ``max_seq_len``. Positions are absolute: once the window moves, every key and
    value is another one, and each token takes a pass over the whole window.

    Logits that are computed in different ways differ in their last bits. One of the ways is plain:
    it is a function of the sequence's tokens alone, to the last bit.

    Args:
        model: The model, in evaluation mode.
        prompt: ``(n_tokens,)``, at least one.
        n_sequences: How many.
        n_new: How many tokens each is to get, at the most.
        use_cache: Whether keys and values are kept.
    """

    def __init__(
        self,
        model: Transformer,
        prompt: np.ndarray,
        n_sequences: int,
        n_new: int,
        use_cache: bool = True,
    ) -> None:
        self._model = model
        self._n_sequences = n_sequences
        self._n_prompt, self._most_tokens = len(prompt), len(prompt) + n_new
        # The tokens of all sequences at each place.
        self._columns = [np.full(n_sequences, token, dtype=np.int64) for token in prompt]
        self._use_cache = use_cache
        self._cache: KeyValueCache | None = None
        self._decoder: Decoder | None = None

    @property
    def tokens(self) -> np.ndarray:
        """All tokens so far, ``(n_sequences, n_tokens)``."""
        return np.stack(self._columns, 1)

    @property
    def is_plain(self) -> bool:
        """Whether ``next_logits`` are ``plain_logits``, to the last bit."""
        if self._has_decoder:
            return self._use_cache
        return self._n_sequences == 1 and not self._is_cached

    @property
    def _fits(self) -> bool:
        return len(self._columns) <= self._model.max_seq_len

    @property
    def _is_cached(self) -> bool:
        return self._use_cache and self._fits

    @property
    def _has_decoder(self) -> bool:
        """Whether a decoder can go on; its logits for a sequence depend on no other."""
        return self._fits and Decoder.is_for(self._model)

    def append(self, tokens: np.ndarray) -> None:
        """Adds a token to each sequence, ``(n_sequences,)``."""
        self._columns.append(tokens)

    def next_logits(self) -> np.ndarray:
        """The logits for the next token of each sequence, ``(n_sequences, vocab_size)``.

        It is called once for each token.

        Raises:
            DivergenceError: The model gives numbers for a sequence that are not finite.
        """
        is_new = len(self._columns) == self._n_prompt
        if not self._is_cached:
            self._cache = self._decoder = None
            # All sequences are equal as long as they are the prompt.
            logits = self._of_windows(self._window()[: 1 if is_new else None])
        elif is_new:
            cache, logits = self._of_prompt()
            self._keep(cache if self._n_sequences == 1 else cache.repeated(self._n_sequences))
        elif self._decoder is None:
            newest = self._on_device(self._columns[-1][:, None])
            logits = self._model(newest, cache=self._cache)[:, -1]
        else:
            return _finite(self._decoder(self._columns[-1]))
        values = _finite(_on_host(logits))
        return np.repeat(values, self._n_sequences, 0) if is_new else values

    def plain_logits(self, i: int) -> np.ndarray:
        """The logits for the next token of a sequence, ``(1, vocab_size)``.

        Where a decoder can, it computes them, token by token from the prompt on. Elsewhere they
        come from a pass over the window of this sequence alone.

        Args:
            i: Which sequence.

        Raises:
            DivergenceError: The model gives numbers that are not finite.
        """
        if not self._has_decoder:
            return _finite(_on_host(self._of_windows(self._window()[i : i + 1])))
        cache, of_prompt = self._of_prompt()
        logits = _on_host(of_prompt)
        decoder = Decoder(self._model, cache, 1)
        for column in self._columns[self._n_prompt :]:
            logits = decoder(column[i : i + 1])
        return _finite(logits)

    def _of_prompt(self) -> tuple[KeyValueCache, torch.Tensor]:
        """Keys and values of the prompt, and the logits after it, ``(1, vocab_size)``."""
        cache = self._model.new_cache(most_tokens=self._most_tokens)
        prompt = np.stack(self._columns[: self._n_prompt], 1)[:1]
        return cache, self._model(self._on_device(prompt), cache=cache, last_only=True)[:, -1]

    def _keep(self, cache: KeyValueCache) -> None:
        self._cache = cache
        if Decoder.is_for(self._model):
            self._decoder = Decoder(self._model, cache, self._n_sequences)

    def _window(self) -> np.ndarray:
        return np.stack(self._columns[-self._model.max_seq_len :], 1)

    def _of_windows(self, windows: np.ndarray) -> torch.Tensor:
        return self._model(self._on_device(windows), last_only=True)[:, -1]

    def _on_device(self, tokens: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(tokens).to(self._model.device)


def _on_host(logits: torch.Tensor) -> np.ndarray:
    return logits.cpu().numpy()


def _finite(logits: np.ndarray) -> np.ndarray:
    """Logits in float64, once it is sure that each sequence has a token to choose."""
    values = logits.astype(np.float64)
    # A hook may rule tokens out with minus infinity, but not all of them. The largest of numbers
    # of which one is none is none either.
    if not np.isfinite(values.max(1)).all():
        raise DivergenceError("the model gives no finite numbers to sample from")
    return values
