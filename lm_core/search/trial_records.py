"""The trials of a study as its storage has them: made, reported, ended, and read."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from lm_core.errors import MachineError
from lm_core.search.pruners import build_pruner
from lm_core.search.samplers import suggest
from lm_core.search.space import Space
from lm_core.search.study import Study

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

# How a trial ended, or that it has not.
RUNNING, COMPLETED, PRUNED, DIVERGED, FAILED = (
    "running",
    "completed",
    "pruned",
    "diverged",
    "failed",
)
# Under these names the storage has what Optuna has no place for.
_DEFINITION, _OUTCOME, _REASON, _STEPS = "definition", "outcome", "reason", "steps"
_OWNER, _BEATS, _TO_PRUNE, _SURPLUS = "owner", "beats", "to_prune", "surplus"
_FRESH, _CORPUS, _DOUBTED = "fresh_seed_", "corpus", "doubted"


class TrialRecord(NamedTuple):
    """What is known about a trial.

    Attributes:
        number: Its number, from 0.
        values: The searched values.
        outcome: ``running``, ``completed``, ``pruned``, ``diverged`` or ``failed``.
        reason: Why it failed or diverged, in words; empty otherwise.
        loss: Its validation loss in nats per token, if it was completed.
        losses: The validation loss at each evaluation, by step.
        steps: Steps done, once it has ended.
        seconds: How long ago it was made until it ended; None: it has not.
        owner: Who runs it: a machine and a folder.
        beats: A number that grows while somebody runs it.
        to_prune: Whether it was found unpromising, and is to end.
        is_doubted: Whether it once failed for what may have been no fault of its own.
    """

    number: int
    values: dict[str, Any]
    outcome: str
    reason: str
    loss: float | None
    losses: dict[int, float]
    steps: int
    seconds: float | None
    owner: str
    beats: int
    to_prune: bool
    is_doubted: bool = False

    @property
    def name(self) -> str:
        """Its number as its files have it."""
        return f"{self.number:04d}"

    @property
    def newest_loss(self) -> float | None:
        """The loss of its last evaluation, if there was one."""
        return self.losses[max(self.losses)] if self.losses else None


class FreshResult(NamedTuple):
    """How the winner did on a further seed: its loss, if it was completed, and how it ended."""

    seed: int
    outcome: str
    loss: float | None
    reason: str


class TrialRecords:
    """The trials of a study in its storage.

    Args:
        storage: Optuna's.
        name: The study's name there.
        study: The study.
        surplus: Whether others may make trials at the same moment, which no lock can prevent.
    """

    def __init__(
        self, storage: "BaseStorage", name: str, study: Study, surplus: bool = False
    ) -> None:
        import optuna

        self._storage = storage
        self._study = study
        self._may_be_surplus = surplus
        self._optuna = optuna.create_study(
            storage=storage,
            study_name=name,
            direction="minimize",
            sampler=optuna.samplers.RandomSampler(seed=0),
            pruner=build_pruner(study.settings.pruner, study.values),
            load_if_exists=True,
        )
        if self._optuna.user_attrs.get(_DEFINITION) is None:
            self._optuna.set_user_attr(_DEFINITION, json.dumps(study.definition()))

    def _trials(self) -> list["FrozenTrial"]:
        found = self._optuna.get_trials(deepcopy=False)
        return [trial for trial in found if not trial.user_attrs.get(_SURPLUS)]

    def _trial(self, number: int) -> "FrozenTrial":
        return self._optuna.get_trials(deepcopy=False)[number]

    def _id(self, number: int) -> int:
        return self._trial(number)._trial_id

    def all(self) -> list[TrialRecord]:
        """All trials, by number."""
        return [_record(trial, self._study.settings.space) for trial in self._trials()]

    def get(self, number: int) -> TrialRecord:
        """One trial."""
        return _record(self._trial(number), self._study.settings.space)

    def create(self, owner: str) -> int | None:
        """Makes a trial and chooses its values, if the study is to have one more.

        Args:
            owner: Who runs it.

        Returns:
            Its number; None: there are as many as there are to be.
        """
        from optuna.trial import TrialState, create_trial

        if len(self._trials()) >= self._study.settings.trials:
            return None
        template = create_trial(
            state=TrialState.RUNNING, user_attrs={_OWNER: owner, _BEATS: 0, _OUTCOME: RUNNING}
        )
        trial_id = self._storage.create_new_trial(self._optuna._study_id, template)
        number = self._storage.get_trial(trial_id).number
        earlier = [trial for trial in self._trials() if trial.number < number]
        if self._may_be_surplus and len(earlier) >= self._study.settings.trials:
            # Another machine made one in the same moment. This one never was.
            self._storage.set_trial_user_attr(trial_id, _SURPLUS, True)
            self._storage.set_trial_state_values(trial_id, TrialState.FAIL)
            return None
        self.choose_values(number)
        return number

    def choose_values(self, number: int) -> None:
        """Gives a trial the values it lacks: all of a new one, or what a kill left out."""
        settings, trial = self._study.settings, self._trial(number)
        if set(trial.params) == set(settings.space):
            return
        values = suggest(settings.sampler, self._study.seed, settings.space, self._optuna, trial)
        for key, distribution in settings.space.items():
            if key not in trial.params:
                one = distribution.of_optuna()
                internal = one.to_internal_repr(values[key])
                self._storage.set_trial_param(trial._trial_id, key, internal, one)

    def report(self, number: int, step: int, loss: float) -> None:
        """Notes the validation loss of a trial after a step."""
        self._storage.set_trial_intermediate_value(self._id(number), step, loss)

    def should_prune(self, number: int) -> bool:
        """Whether a trial looks unpromising; what is so once stays so."""
        trial = self._trial(number)
        if trial.user_attrs.get(_TO_PRUNE):
            return True
        last = trial.last_step
        if last is None or last >= self._study.values.max_steps:
            return False
        if not self._optuna.pruner.prune(self._optuna, trial):
            return False
        self._storage.set_trial_user_attr(trial._trial_id, _TO_PRUNE, True)
        return True

    def finish(
        self, number: int, outcome: str, loss: float | None, steps: int, reason: str = ""
    ) -> None:
        """Ends a trial, unless somebody else has.

        Args:
            number: Which one.
            outcome: How it ended.
            loss: Its result, if it was completed.
            steps: Steps done.
            reason: Why it failed or diverged.
        """
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        # To samplers, a trial that diverged is one that was not worth finishing.
        states = {
            COMPLETED: TrialState.COMPLETE,
            PRUNED: TrialState.PRUNED,
            DIVERGED: TrialState.PRUNED,
        }
        trial_id = self._id(number)
        try:
            for name, value in ((_OUTCOME, outcome), (_REASON, reason), (_STEPS, steps)):
                self._storage.set_trial_user_attr(trial_id, name, value)
            self._optuna.tell(number, loss, states.get(outcome, TrialState.FAIL))
        except (UpdateFinishedTrialError, ValueError) as error:
            if self.get(number).outcome == RUNNING:
                message = f"trial {number} cannot be ended in the storage: {error}"
                raise MachineError(message) from error

    def is_of_same_text(self, sha256: str) -> bool:
        """Whether a text is the one of all trials; the first trial that asks decides which.

        Args:
            sha256: SHA-256 of the text.
        """
        known = self._optuna.user_attrs.get(_CORPUS)
        if known is None:
            self._optuna.set_user_attr(_CORPUS, sha256)
        return known in (None, sha256)

    def beat(self, number: int) -> None:
        """Shows that a trial is being run."""
        beats = self.get(number).beats + 1
        self._storage.set_trial_user_attr(self._id(number), _BEATS, beats)

    def doubt(self, number: int) -> None:
        """Notes that a trial failed for what may have been no fault of its own."""
        self._storage.set_trial_user_attr(self._id(number), _DOUBTED, True)

    def take_over(self, number: int, owner: str) -> None:
        """Notes that somebody else runs a trial from now on."""
        self._storage.set_trial_user_attr(self._id(number), _OWNER, owner)

    def fresh(self, winner: int) -> list[FreshResult]:
        """What is known of the winner's runs on other seeds."""
        results = []
        for name, found in self._optuna.user_attrs.items():
            seed = name.removeprefix(_fresh_name(winner))
            if seed != name and seed.isdecimal() and isinstance(found, list):
                outcome, loss, reason = (*found, None, None, None)[:3]
                loss = loss if outcome == COMPLETED and isinstance(loss, float) else None
                results.append(FreshResult(int(seed), str(outcome), loss, str(reason)))
        return results

    def add_fresh(self, winner: int, result: FreshResult) -> None:
        """Notes how the winner did on a further seed."""
        # Under a name of its own, so that two who note something at once both do.
        name = f"{_fresh_name(winner)}{result.seed}"
        self._optuna.set_user_attr(name, list(result[1:]))


def _fresh_name(winner: int) -> str:
    return f"{_FRESH}{winner}_"


def _record(trial: "FrozenTrial", space: Space) -> TrialRecord:
    known, is_over = trial.user_attrs, trial.state.is_finished()
    outcome, reason = str(known.get(_OUTCOME, RUNNING)), str(known.get(_REASON, ""))
    outcome = outcome if is_over else RUNNING
    values = {key: trial.params[key] for key in space if key in trial.params}
    if not _is_of(space, trial.params):
        # A database may be written by others, and its values reach the command line of a run.
        outcome, reason, values = FAILED, "its values in the storage are none of this study", {}
    duration = trial.duration
    return TrialRecord(
        number=trial.number,
        values=values,
        outcome=outcome,
        reason=reason,
        loss=trial.value if outcome == COMPLETED else None,
        losses=dict(trial.intermediate_values),
        steps=_whole(known.get(_STEPS)),
        seconds=duration.total_seconds() if duration and is_over else None,
        owner=str(known.get(_OWNER, "")),
        beats=_whole(known.get(_BEATS)),
        to_prune=bool(known.get(_TO_PRUNE)),
        is_doubted=bool(known.get(_DOUBTED)),
    )


def _is_of(space: Space, values: Mapping[str, Any]) -> bool:
    """Whether values are some of a space: a kill may have left some out."""
    return all(key in space and space[key].contains(value) for key, value in values.items())


def _whole(value: Any) -> int:
    return value if type(value) is int else 0


def definition_in(storage: "BaseStorage", name: str) -> dict[str, Any] | None:
    """What a storage has as the definition of a study; None: it has no such study.

    Raises:
        MachineError: It has something else under that name.
    """
    studies = {study.study_name: study for study in storage.get_all_studies()}
    if name not in studies or _DEFINITION not in studies[name].user_attrs:
        return None
    try:
        definition = json.loads(studies[name].user_attrs[_DEFINITION])
    except (TypeError, ValueError):
        definition = None
    parts = ("values", "search")
    is_one = isinstance(definition, dict)
    if not is_one or not all(isinstance(definition.get(part), dict) for part in parts):
        raise MachineError(f"the storage has a study {name!r} that is none of the lab's")
    return definition
