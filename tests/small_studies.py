"""Studies of a few lines, read as the command line reads them, with trials that nobody runs."""

from lm_core import inspection
from lm_core.config.resolution import Binding, ConfigSources, FileArgument
from lm_core.search.storage import open_journal
from lm_core.search.study import Study
from lm_core.search.study_file import StudyFile
from lm_core.search.trial_records import (
    COMPLETED,
    DIVERGED,
    FAILED,
    PRUNED,
    TrialRecord,
    TrialRecords,
)
from tests.config_sources import PROJECT

# What every study here has beside its space.
BASE = "seed: 7\nmax_steps: 40\neval_cadence: 10\n"
SPACE = """
search:
  learning_rate: {log_uniform: [1e-4, 1e-1]}
  dropout: {uniform: [0.0, 0.5]}
"""


def sources(*names, bindings=(), **overrides):
    """Where a study comes from: files, bindings, flags."""
    return ConfigSources(
        files=[FileArgument("--config", name) for name in names],
        bindings=[Binding("--gin_bindings", text) for text in bindings],
        overrides=overrides,
        yaml_folders=[PROJECT / "configs"],
        gin_folders=[PROJECT / "gin_configs"],
    )


def study(folder, text=BASE + SPACE, **given):
    """The study that a text is; its file is ``my.yaml`` in the folder."""
    (folder / "my.yaml").write_text(text)
    file = StudyFile()
    config = inspection.check(sources(str(folder / "my.yaml"), **given), file)
    return Study(config, file.settings, file.sources)


def records(folder, text=BASE + SPACE):
    """The trials of a study, in a journal in the folder."""
    return TrialRecords(open_journal(folder / "study.journal"), "study", study(folder, text))


def tried(folder, text=BASE + SPACE, n=20):
    """A study and trials of it that somebody has told: most completed, others in every other way.

    Their losses depend on the learning rate alone.
    """
    one = study(folder, text)
    trials = []
    for number in range(n):
        share = (number * 7 % n) / (n - 1)
        values = {key: range_.at(share) for key, range_ in one.settings.space.items()}
        loss = 2 + (share - 0.3) ** 2
        losses = {step: loss + 1 / step for step in (10, 20, 30, 40)}
        outcome = (PRUNED, DIVERGED, FAILED)[number % 3] if number in (5, 9, 13) else COMPLETED
        if outcome != COMPLETED:
            losses = {10: losses[10]} if outcome == PRUNED else {}
        trials.append(
            TrialRecord(
                number=number,
                values=values,
                outcome=outcome,
                reason="killed, out of memory?" if outcome == FAILED else "",
                loss=losses[40] if outcome == COMPLETED else None,
                losses=losses,
                steps=max(losses, default=0),
                seconds=1.5,
                owner="me",
                beats=0,
                to_prune=False,
            )
        )
    return one, trials
