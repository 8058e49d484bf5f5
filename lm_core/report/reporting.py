"""``--mode=report``, and the page that every training run ends with."""

from pathlib import Path

from lm_core.analysis.records import RunRecord, read_run
from lm_core.analysis.selection import select_runs
from lm_core.atomic_files import replace_file
from lm_core.errors import InputError, LabError
from lm_core.json_lines import cannot_write
from lm_core.output import say, warn
from lm_core.record import RunDirectory
from lm_core.report.page import MARK, page
from lm_core.request import Request

# The name of a page where nobody gives another.
REPORT = "report.html"
# The mark of a page stands in so many bytes at its beginning.
_BEGINNING = 200


def report(request: Request) -> None:
    """Writes a page about runs, and their figures where they are asked for.

    The page of one run lies in its directory, that of several in the working directory, unless
    ``--output`` says otherwise.

    Raises:
        InputError: Some are no runs, or cannot be read; something else is in the page's place.
        MachineError: It cannot be written.
    """
    runs = select_runs(request.compared, "--mode=report")
    alone = runs[0].path if len(runs) == 1 else Path()
    path = request.output or alone / REPORT
    require_free(path)
    if request.figures is not None:
        from lm_core.report.figures import draw_figures

        for figure in draw_figures(runs, request.figures):
            say(f"figure: {figure}")
    write_page(runs, path)
    say(f"report: {path}")


def write_report_of(run_dir: Path) -> Path:
    """Writes the page of one run into its directory, and says where.

    Raises:
        InputError: Its record cannot be read, or something else is in the page's place.
        MachineError: It cannot be written.
    """
    path = run_dir / REPORT
    require_free(path)
    write_page([read_run(run_dir, needs_metrics=False)], path)
    return path


def write_page(runs: list[RunRecord], path: Path) -> None:
    """Writes the page of some runs in the place of the one there may be.

    Raises:
        MachineError: It cannot be written; an older page stands.
    """
    text = page(runs)
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise cannot_write(path, error) from error


def require_free(path: Path) -> None:
    """Refuses to write a page in the place of something that is none, or into no folder.

    Raises:
        InputError: There is something else.
    """
    try:
        if not path.parent.is_dir():
            raise InputError(f"{path} cannot be written: there is no folder {path.parent}")
        if not path.exists() and not path.is_symlink():
            return
        if path.is_symlink() or not path.is_file():
            raise InputError(f"{path} is no file, so that no report takes its place")
        with path.open("rb") as stream:
            beginning = stream.read(_BEGINNING)
    except OSError as error:
        raise InputError(f"{path} cannot be looked at: {error.strerror}") from error
    if MARK.encode() not in beginning:
        message = f"{path} is no report of the lab, and is left as it is"
        raise InputError(f"{message}; --output names another place")


def draw_ended(run: RunDirectory, outcome: str) -> None:
    """Writes the page of a run that has ended, however it did; a failure is a warning.

    Args:
        run: The run.
        outcome: How it ended, as its manifest has it.
    """
    try:
        run.require_own()
        say(f"report: {write_report_of(run.path)}")
    except Exception as error:  # Whatever is wrong with a picture of a run, the run is not.
        is_told = isinstance(error, LabError)
        reason = error.message if is_told else f"{type(error).__name__}: {error}"
        # Where something went wrong before, that is what a person has to read.
        if outcome != "failed":
            warn(f"there is no report of this run: {reason}")
