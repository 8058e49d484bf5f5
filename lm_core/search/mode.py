"""``--mode=search``: from a request to a study, its trials, and its winner."""

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lm_core import inspection
from lm_core.config.files import FLAGS
from lm_core.config.statements import Source
from lm_core.errors import InputError, LabError, shown
from lm_core.output import say, warn
from lm_core.report.reporting import REPORT, require_free
from lm_core.request import Request
from lm_core.search import summary
from lm_core.search.claims import SECONDS_TO_SAVE, Claims
from lm_core.search.doubts import Doubts
from lm_core.search.jobs import Workplace
from lm_core.search.progress_table import StudyProgress, best_of, counted
from lm_core.search.storage import (
    failures_told,
    open_database,
    open_journal,
    require_optuna,
)
from lm_core.search.study import Study, require_same_study
from lm_core.search.study_file import StudyFile
from lm_core.search.study_folder import BEST, StudyFolder, default_folder
from lm_core.search.study_page import study_page
from lm_core.search.trial_records import (
    RUNNING,
    FreshResult,
    TrialRecord,
    TrialRecords,
    definition_in,
)
from lm_core.search.winner import best_text
from lm_core.search.worker import work
from lm_core.training.signals import StopSignals

# The name of the only study in a journal; Hyperband's brackets depend on it, and are the same
# wherever the folder is moved to.
_NAME_IN_JOURNAL = "study"
# No machine has use for more processes that each want a core.
_MOST_WORKERS = 1024


def search(request: Request) -> None:
    """Searches for good hyperparameters, or goes on with that.

    Raises:
        LabError: Anything a person should read; the study can go on.
    """
    n_workers = _n_workers(request.workers)
    file = StudyFile()
    config = inspection.check(request.config, file)
    study = Study(config, file.settings, file.sources)
    names = [given.name for given in request.config.files if given.flag == FLAGS[".yaml"]]
    study.require_text()
    path = request.run_dir or default_folder(names[-1])
    folder = StudyFolder(path)
    require_optuna(study.settings.sampler)
    with StopSignals() as signals:
        place = _begin(request, study, folder, n_workers)
        with failures_told(request.storage):
            _run(place, n_workers, signals)


def _n_workers(given: int | float | str | None) -> int:
    if given is None:
        return 1
    if type(given) is not int or not 1 <= given <= _MOST_WORKERS:
        raise InputError(f"--workers: {shown(given)} is not an integer from 1 to {_MOST_WORKERS}")
    return given


def _begin(request: Request, study: Study, folder: StudyFolder, n_workers: int) -> Workplace:
    """Makes the study, or joins it.

    Raises:
        InputError: There is another one in its place.
    """
    # Where the database cannot be reached, no folder is made.
    is_shared = request.storage is not None
    database = open_database(request.storage) if request.storage is not None else None
    folder.make()
    # Two commands at once agree upon one study.
    with folder.lock("study"):
        if not is_shared:
            folder.require_journal()
        storage = database or open_journal(folder.journal)
        name = folder.path.resolve().name if is_shared else _NAME_IN_JOURNAL
        recorded = definition_in(storage, name)
        if recorded is None and folder.has_trials:
            message = f"{folder.path} holds trials of a study that is in another storage"
            raise InputError(f"{message}; --storage names it, --run_dir another folder")
        study = study.with_seed(recorded)
        if recorded is not None:
            where = f"under the name {name}, --storage has" if is_shared else f"{folder.path} holds"
            require_same_study(recorded, study, where)
        records = TrialRecords(storage, name, study, surplus=is_shared)
        _require_no_fewer(study, len(records.all()))
        folder.write_study(study)
    n_cores = _n_cores()
    return Workplace(
        study=study,
        folder=folder,
        records=records,
        program=Path(request.command_line[0]).absolute(),
        imports=tuple(request.config.allowed_imports),
        n_threads=max(1, n_cores // n_workers) if n_workers > 1 else None,
        is_shared=is_shared,
        n_stops={},
        doubts=Doubts(records, folder.owner),
    )


def _require_no_fewer(study: Study, n_made: int) -> None:
    if study.settings.trials < n_made:
        source = study.sources.get("trials", Source("default"))
        message = f"{study.settings.trials} are fewer than the {n_made} that there are already"
        raise InputError(f"{source}: trials: {message}; they can be raised only")


def _n_cores() -> int:
    if sys.platform.startswith("linux"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _run(place: Workplace, n_workers: int, signals: StopSignals) -> None:
    study, records = place.study, place.records
    # Several at once do not make the same trials each time anyway.
    claims = Claims(place, patience=SECONDS_TO_SAVE if n_workers == 1 else 0.0)
    _announce(place)
    n_trials, max_steps = study.settings.trials, study.values.max_steps
    try:
        with StudyProgress(n_trials, max_steps, records.all) as progress:
            work(claims.next_trial, claims.are_trials_over, n_workers, signals, progress.watch)
            best = summary.require_winner(records.all())
            if not claims.are_fresh_seeds_over(best.number):
                progress.note(f"trial {best.number} is the best; it is run again on fresh seeds")
            work(
                lambda: claims.next_fresh_seed(best.number),
                lambda: claims.are_fresh_seeds_over(best.number),
                n_workers,
                signals,
                progress.watch,
            )
    except LabError:
        # What there is, is worth a look, most of all where something went wrong.
        _draw_so_far(place)
        raise
    _finish(place, claims)


def _draw_so_far(place: Workplace) -> None:
    """Writes the page of a study that has not come to its end, where its storage can be read."""
    with contextlib.suppress(LabError):
        found = place.records.all()
        if found:
            _draw(place, found, best_of(found), [], is_over=False)


def _announce(place: Workplace) -> None:
    settings, found = place.study.settings, place.records.all()
    say(f"study: {place.folder.path}")
    say(
        f"{counted(settings.trials, 'trial')} of {place.study.values.max_steps:,} steps; sampler "
        f"{settings.sampler}, pruner {settings.pruner}; seed {place.study.seed}"
    )
    for key, distribution in settings.space.items():
        (said,) = distribution.plain().values()
        say(f"  {key}: {distribution.kind} {said}")
    if found:
        n_running = sum(record.outcome == RUNNING for record in found)
        done = f"{len(found) - n_running} of {counted(settings.trials, 'trial')} are done"
        say(f"going on: {done}, {n_running} not finished yet")


def _finish(place: Workplace, claims: Claims) -> None:
    """Writes and tells what came of the study; whoever took part in it does."""
    records = place.records.all()
    best = summary.require_winner(records)
    wanted = claims.fresh_seeds()
    results = [one for one in place.records.fresh(best.number) if one.seed in wanted]
    results.sort(key=lambda one: wanted.index(one.seed))
    place.folder.write(BEST, best_text(place.study, place.folder, best, results, len(records)))
    summary.tell(place.study, place.folder, records, best, results)
    _draw(place, records, best, results)


def _draw(
    place: Workplace,
    records: Sequence[TrialRecord],
    best: TrialRecord | None,
    results: Sequence[FreshResult],
    is_over: bool = True,
) -> None:
    """Writes the page of the study, as far as it has come."""
    path = place.folder.path / REPORT
    try:
        _require_place(path)
        text = study_page(place.study, place.folder, records, best, results, is_over)
        place.folder.write(REPORT, text)
    except Exception as error:  # Whatever is wrong with a picture of a study, the study is not.
        reason = (
            error.message if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        )
        warn(f"there is no report of this study: {reason}")
    else:
        say(f"report: {path}")


def _require_place(path: Path) -> None:
    """Refuses to draw a page in the place of something else, with the way out that there is."""
    try:
        require_free(path)
    except InputError as error:
        message = error.message.partition("; --output")[0]
        raise InputError(f"{message}; move it away, and the same command makes one") from error
