"""The pages of the documentation: their commands, the files they show, and what they print.

``python -m tests.pages`` writes into the pages what their commands print now.
"""

import importlib.util
import itertools
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.end_to_end.command_line import PROJECT

PAGES = [
    "README.md",
    "configs/README.md",
    "docs/adding-a-hyperparameter.md",
    "docs/architecture.md",
    "docs/comparing.md",
    "docs/exchange.md",
    "docs/data.md",
    "docs/hooks.md",
    "docs/hyperparameter-audit.md",
    "docs/hyperparameter-audit-summary.md",
    "docs/library.md",
    "docs/reliability.md",
    "docs/sampling.md",
    "docs/search.md",
    "docs/tokenizers.md",
]
PROGRAM = "python run.py"
# Where a command only looks, it is run as it stands; where it trains, for a few steps.
MODES_THAT_LOOK = ("config", "plan", "diff", "compare", "report", "evaluate", "sample")
MODES_THAT_TRAIN_NOTHING = (*MODES_THAT_LOOK, "export", "import")
LOOKS = tuple(f"--mode={mode}" for mode in MODES_THAT_TRAIN_NOTHING)


def text_of(page):
    return (PROJECT / page).read_text()


def blocks(page):
    """The fenced blocks of a page: language and lines."""
    found = re.findall(r"```(\w*)\n(.*?)```", text_of(page), re.S)
    return [(language, body.splitlines()) for language, body in found]


def words(line):
    return shlex.split(line.removeprefix("$ "), comments=True)[2:]


def commands(page):
    """The commands of a page that run the program, in blocks and in tables, in their order."""
    lines = [line for _, body in blocks(page) for line in body if line.startswith(PROGRAM)]
    in_tables = re.findall(rf"^\| .* \| `({PROGRAM}.*)` \|$", text_of(page), re.M)
    return [words(line) for line in [*lines, *in_tables]]


def _with_output(page):
    bodies = [body for _, body in blocks(page) if body and body[0].startswith(f"$ {PROGRAM}")]
    return [(words(body[0]), body[1:]) for body in bodies]


def _trains(lines):
    return any(line.startswith("step ") for line in lines)


def shown(page):
    """What a page says that commands print: for each, its words and the lines of its output."""
    return [(arguments, lines) for arguments, lines in _with_output(page) if not _trains(lines)]


def trainings(page):
    """The same for commands that train: the lines before the first step, which speak of no time."""
    return [
        (arguments, list(itertools.takewhile(_is_before_steps, lines)))
        for arguments, lines in _with_output(page)
        if _trains(lines)
    ]


def _is_before_steps(line):
    return not line.startswith("step ")


def beginning(arguments, folder):
    """What a training prints before its first step, by what the lines are about."""
    words = [sys.executable, "-u", "run.py", *arguments]
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        lines = [line.rstrip() for line in itertools.takewhile(_is_before_steps, process.stdout)]
        process.kill()
    return {subject(line): line for line in lines}


def subject(line):
    """What a line of the output is about."""
    return "configuration" if line.startswith("configuration ") else line.partition(":")[0]


def files(page):
    """The configuration files that a page shows, by the name in their first line."""
    named = {}
    for _, body in blocks(page):
        match = re.fullmatch(r"# (\S+\.(?:yaml|gin))", body[0]) if body else None
        if match:
            named[match[1]] = "\n".join(body) + "\n"
    return named


def shortened(arguments):
    """The same command for a few steps, where it trains: what is shown is that it works."""
    if any(look in arguments for look in LOOKS):
        return arguments
    kept = [a for a in arguments if not a.startswith("--max_steps")]
    given = [int(a.split("=")[1]) for a in arguments if a.startswith("--max_steps")]
    n_steps = given[0] // 50 if "--resume" in arguments else 2
    return [*kept, f"--max_steps={n_steps}"]


def clone(folder):
    """A copy of the project in a folder, with the files that the pages speak of."""
    (folder / "docs").mkdir()
    for name in ("run.py", "lm_core", "configs", "gin_configs", "docs/example-runs"):
        source = PROJECT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    text = "Über allen Gipfeln ist Ruh. " * 600
    (folder / "my-text.txt").write_text(text, encoding="utf-8")
    (folder / "path" / "to").mkdir(parents=True)
    (folder / "path" / "to" / "my.yaml").write_text("extends: ../../configs/small-model.yaml\n")
    for page in PAGES:
        for name, content in files(page).items():
            (folder / name).write_text(content)
    return folder


def program(folder):
    """The ``main`` of the copy of the program in a folder."""
    specification = importlib.util.spec_from_file_location("copied_run", folder / "run.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)

    def main(arguments, capsys):
        """Runs it in this process; gives the exit code and the lines of both outputs."""
        capsys.readouterr()
        sys.argv[1:] = []
        code = module.main(arguments)
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return main


def refreshed(page, folder):
    """The text of a page with what its commands print in a copy of the project."""

    def printed(match):
        command, output = match.groups()
        # What follows the first step speaks of times, which differ.
        if _trains(output.splitlines()):
            printed = beginning(words(command), folder) | {"run directory": None}
            found = [(line, printed.get(subject(line))) for line in output.splitlines()]
            return "\n".join(["```", command, *(now or line for line, now in found), "```"])
        arguments = [sys.executable, "run.py", *words(command)]
        done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True)
        lines = [line.rstrip() for line in (done.stdout + done.stderr).splitlines()]
        return "\n".join(["```", command, *lines, "```"])

    return re.sub(rf"```\n(\$ {PROGRAM}.*)\n((?:.*\n)*?)```", printed, text_of(page))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = clone(Path(name))
        for page in PAGES:
            (PROJECT / page).write_text(refreshed(page, folder))
