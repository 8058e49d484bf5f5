"""Studies of a few lines, read as the command line reads them, with trials that nobody runs."""

from lm_core import inspection
from lm_core.config.resolution import Binding, ConfigSources, FileArgument
from lm_core.search.storage import open_journal
from lm_core.search.study import Study
from lm_core.search.study_file import StudyFile
from lm_core.search.trial_records import TrialRecords
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
