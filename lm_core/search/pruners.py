"""When a trial is ended before its time."""

from typing import TYPE_CHECKING

from lm_core.config.training_config import TrainingConfig

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

# Of the trials in a round of Hyperband one in so many goes on, https://arxiv.org/abs/1603.06560.
_REDUCTION = 3
# So many whole trials make a median; Optuna's five are too many for a study of twenty.
_TRIALS_OF_MEDIAN = 4
# Before this share of the steps a loss says little about the last one.
_WARM_UP_SHARE = 5


def build_pruner(kind: str, values: TrainingConfig) -> "BasePruner":
    """The pruner of a study.

    Args:
        kind: One of ``PRUNERS``.
        values: The configuration of the trials; the pruner looks at their evaluations.
    """
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    if kind == "hyperband" and values.eval_cadence is not None:
        return HyperbandPruner(
            min_resource=min(values.eval_cadence, values.max_steps),
            max_resource=values.max_steps,
            reduction_factor=_REDUCTION,
        )
    if kind == "median":
        return MedianPruner(
            n_startup_trials=_TRIALS_OF_MEDIAN, n_warmup_steps=values.max_steps // _WARM_UP_SHARE
        )
    return NopPruner()
