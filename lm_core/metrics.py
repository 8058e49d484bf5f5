"""The numbers of each step, kept on their device until a group of them is fetched at once."""

import math
from collections.abc import Mapping
from typing import Any

import torch

# Perplexity is exp(loss), which leaves the floating-point numbers here.
_LARGEST_EXPONENT = 709.0


class MetricsBuffer:
    """Collects one row a step and fetches scalar tensors in one transfer for many rows.

    Reading a scalar tensor makes the host wait for the device; one stacked read for what hooks
    report in a group of steps keeps that from slowing each of them.
    """

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds the row of a step; values are plain numbers or scalar tensors."""
        self._rows.append(dict(row))

    def amend(self, **values: Any) -> None:
        """Adds values to the newest row."""
        self._rows[-1] |= values

    def drop_after(self, step: int) -> None:
        """Forgets the rows of the steps after one."""
        self._rows = [row for row in self._rows if row["step"] <= step]

    def flush(self) -> list[dict[str, Any]]:
        """All rows so far as plain numbers, and forgets them."""
        rows, self._rows = self._rows, []
        places = [
            (row, name)
            for row in rows
            for name, value in row.items()
            if isinstance(value, torch.Tensor)
        ]
        if places:
            stacked = torch.stack([row[name].detach().double() for row, name in places])
            for (row, name), value in zip(places, stacked.tolist(), strict=True):
                row[name] = value
        return rows


def bits_per_byte(total_loss: float, n_bytes: int) -> float:
    """Bits that the model needs for a byte of text; comparable across tokenizers.

    Args:
        total_loss: Sum of the losses of all targets, in nats.
        n_bytes: UTF-8 bytes that these targets stand for.
    """
    return total_loss / math.log(2) / n_bytes


def perplexity(loss: float) -> float:
    """The exponential of a loss in nats per token; infinite where it leaves the numbers."""
    return math.inf if loss >= _LARGEST_EXPONENT else math.exp(loss)
