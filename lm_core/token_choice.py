"""Which token comes next, for logits and a draw; and whether rounding might have decided it."""

from typing import NamedTuple

import numpy as np

# How far a logit may be off, as a share of the largest, by the rounding of float32 in sums that are
# made in another order: four times the most that was seen (docs/sampling.md).
ROUNDING_OF_LOGITS = 8e-6
# In temperatures: what is this far below the likeliest token is drawn once in e to the 40 draws.
_FARTHEST_RIVAL = 40


class Choices(NamedTuple):
    """A token for each sequence of a batch.

    Attributes:
        tokens: The tokens, ``(batch,)``.
        are_close: Where logits that are off by no more than rounding might have given another
            token, ``(batch,)``.
    """

    tokens: np.ndarray
    are_close: np.ndarray


class TokenChoice:
    """Takes a token where the cumulative probability, in the order of tokens, passes a draw.

    Args:
        temperature: Divides the logits; 0 always takes the likeliest token.
        top_k: Choose only from the k likeliest tokens; None: from all.
        top_p: Choose only from the likeliest tokens that together hold this probability (Holtzman
            et al. 2020), at the temperature and of the k likeliest; None: from all.
    """

    def __init__(
        self, temperature: float, top_k: int | None = None, top_p: float | None = None
    ) -> None:
        self._temperature, self._top_k, self._top_p = temperature, top_k, top_p

    def __call__(self, logits: np.ndarray, draws: np.ndarray) -> Choices:
        """A token for each row.

        Args:
            logits: ``(batch, vocab_size)`` in float64. Each row has a finite number; minus infinity
                rules a token out.
            draws: One for each row, from 0 to 1, without 1, ``(batch,)``.
        """
        largest, smallest = logits.max(1), logits.min(1)
        if not np.isfinite(smallest).all():
            smallest = np.where(np.isfinite(logits), logits, np.inf).min(1)
        # Two logits may be off in opposite directions.
        slack = 2 * ROUNDING_OF_LOGITS * np.maximum(np.abs(largest), np.abs(smallest))
        are_close = slack >= self._temperature
        if are_close.any():
            # Where rounding is more than the temperature, the likeliest token is all but certain.
            rival = largest - slack - _FARTHEST_RIVAL * self._temperature
            are_close &= (logits >= rival[:, None]).sum(1) > 1
        if self._temperature == 0:
            return Choices(logits.argmax(1), are_close)
        with np.errstate(over="ignore"):  # A tiny temperature: minus infinity, and weight 0.
            weights = np.exp((logits - largest[:, None]) / self._temperature)
            # By this share, rounding may change the odds of some tokens against the rest.
            odds = np.minimum(np.expm1(slack / self._temperature), 1)
        if self._top_k is not None or self._top_p is not None:
            are_close |= self._keep_likeliest(logits, weights, slack, odds)
        cumulative = weights.cumsum(1)
        whole = cumulative[:, -1]
        # A draw is less than 1, and so the product less than the whole.
        tokens = (cumulative <= (draws * whole)[:, None]).sum(1)
        rows = np.arange(len(tokens))
        above = cumulative[rows, tokens] / whole
        below = above - weights[rows, tokens] / whole
        are_close |= _may_pass(draws - below, below, odds) | _may_pass(above - draws, above, odds)
        return Choices(tokens, are_close)

    def _keep_likeliest(
        self, logits: np.ndarray, weights: np.ndarray, slack: np.ndarray, odds: np.ndarray
    ) -> np.ndarray:
        """Takes the weight from the tokens that are not to be chosen from.

        Returns:
            Where rounding might have kept other tokens, ``(batch,)``.
        """
        batch, vocab_size = logits.shape
        n_kept = np.full(batch, min(self._top_k or vocab_size, vocab_size))
        are_close = np.zeros(batch, dtype=bool)
        order = np.argsort(-logits, axis=1, kind="stable")
        rows, places = np.arange(batch), np.arange(vocab_size)
        if self._top_p is not None:
            likeliest = np.take_along_axis(weights, order, 1) * (places < n_kept[0])
            held = likeliest.cumsum(1)
            held /= held[:, -1:]
            n_kept = np.minimum((held < self._top_p).sum(1) + 1, n_kept)
            for n in (n_kept - 1, n_kept):
                share = np.where(n > 0, held[rows, n - 1], 0)
                are_close |= _may_pass(np.abs(share - self._top_p), share, odds)
        in_order = np.take_along_axis(logits, order, 1)
        last, next_one = in_order[rows, n_kept - 1], in_order[rows, n_kept % vocab_size]
        are_close |= (n_kept < vocab_size) & (next_one >= last - slack)
        are_kept = np.empty_like(weights)
        np.put_along_axis(are_kept, order, places < n_kept[:, None], 1)
        weights *= are_kept
        return are_close


def _may_pass(distance: np.ndarray, share: np.ndarray, odds: np.ndarray) -> np.ndarray:
    """Whether a share of the probability may reach what is this far from it by rounding."""
    return distance < odds * share * (1 - share)
