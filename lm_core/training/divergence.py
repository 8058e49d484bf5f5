"""Numbers that are not finite: how they are noticed, and what a person is told about them."""

from collections.abc import Mapping

import torch


def are_finite(*numbers: torch.Tensor) -> bool:
    """Whether all of some scalars are finite; they are fetched from their device together."""
    return bool(torch.stack([number.detach() for number in numbers]).isfinite().all())


def named(numbers: Mapping[str, torch.Tensor]) -> str:
    """Scalars with their names, in words."""
    return " and ".join(f"{name} {float(value.detach())}" for name, value in numbers.items())


def divergence_told(
    what: str, good_checkpoint: str, learning_rates: Mapping[str, float], advice: str = ""
) -> str:
    """The sentences about a run that has diverged.

    Args:
        what: Where, and by which values.
        good_checkpoint: Words about the last good one.
        learning_rates: The run's, by the names of their hyperparameters.
        advice: More to try, after a smaller learning rate.
    """
    rates = " or ".join(f"{name} (now {rate})" for name, rate in learning_rates.items())
    smaller = f"Try a smaller {rates} in a new run"
    return f"training diverged at {what}; {good_checkpoint}. {smaller}{advice}"


def advice_to_skip(step: int, n_skipped: int, good_before: int) -> str:
    """Whether to leave out batches that are not finite, in words.

    Args:
        step: The step whose batch is not.
        n_skipped: How many were left out so far.
        good_before: The weights after any earlier step than this are known to serve.
    """
    if good_before < step - 1:
        fault = "so the weights may be at fault, and leaving out more may not help"
        return f"; the batch before gave no finite loss either, {fault}"
    skips = f"--gin.Trainer.max_skipped_batches={n_skipped + 1} or more"
    return f", or --resume with {skips}, which leaves such batches out"
