"""Trains, evaluates and samples language models. The configuration is the experiment.

  python run.py --config=fast-training.yaml
      trains a small model on the built-in corpus, in half a minute or so
  python run.py --gin_file=base.gin --gin_bindings='Transformer.n_layers=6'
      trains the default model with one number changed
  python run.py --mode=config --config=fast-training.yaml
      prints every hyperparameter with its value and where it was set
  python run.py --mode=plan --config=large-model.yaml
      prints what a run would take: parameters, memory, time
  python run.py --mode=evaluate --run_dir=runs/latest
      prints the validation loss of a run
  python run.py --mode=sample --run_dir=runs/latest --gin.Sampler.temperature=0.5
      prints text that the run's model makes up
  python run.py --mode=diff runs/latest fast-training.yaml
      prints in what two runs or configuration files differ

Every hyperparameter stands in configs/default.yaml, with its meaning.
"""

import importlib
import itertools
import os
import re
import signal
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

INTERRUPTED = 130
if __name__ == "__main__":
    # The imports below take a moment, and Python's own answer to Ctrl-C is a page of traceback.
    # Nothing is written yet, so the program may just end; main() sets the handler that stays.
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(INTERRUPTED))

from absl import flags

from lm_core import inspection
from lm_core.config.resolution import Binding, ConfigSources, FileArgument
from lm_core.errors import InputError, LabError, MachineError, StoppedError
from lm_core.output import let_go, say
from lm_core.request import Request

PROJECT = Path(__file__).resolve().parent
GIN_BINDING = re.compile(r"--?gin\.(.*)", re.DOTALL)
INTEGER = re.compile(r"[+-]?[0-9]{1,1000}", re.ASCII)
# The flags that say what the configuration is.
CONFIGURATION = {"gin_file", "config", "gin_bindings", "gin_search_paths", "corpus", "max_steps"}
# What each mode takes; flags that stand nowhere here apply to all.
FLAGS_OF_MODE = {
    "train": CONFIGURATION | {"run_dir", "resume", "log_config"},
    "config": CONFIGURATION | {"run_dir", "format"},
    "plan": CONFIGURATION | {"format"},
    "diff": {"gin_search_paths", "format"},
    "evaluate": {"run_dir", "corpus"},
    "sample": {"run_dir", "gin_bindings"},
}
FORMATS = ("table", "yaml", "gin", "json")
FORMATS_OF_MODE = {"config": FORMATS, "plan": ("table", "json"), "diff": ("table", "json")}
HELP_WIDTH = 96
# Of GNU's OpenMP, https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html.
SPIN_COUNT = "1000"


class Given(NamedTuple):
    """A value of a repeated flag and when it was given, so that two flags keep their order."""

    position: int
    flag: str
    text: str


class InOrder(flags.ArgumentParser):
    """Parses the values of flags that share one order on the command line."""

    def __init__(self, flag: str, positions: Iterator[int]) -> None:
        self.flag = flag
        self.positions = positions

    def parse(self, argument: Any) -> Given:
        """Notes the place of a value among all that share the counter."""
        return Given(next(self.positions), self.flag, argument)


class Integer(flags.ArgumentParser):
    """Parses whole numbers, with a message for people where one is none."""

    def parse(self, argument: Any) -> int:
        """The number.

        Raises:
            ValueError: There is none.
        """
        if not INTEGER.fullmatch(str(argument)):
            raise ValueError("no integer, such as 10000")
        return int(argument)


def define_flags() -> flags.FlagValues:
    """All flags of the program."""
    values = flags.FlagValues()
    files, bindings = itertools.count(), itertools.count()
    for name, order, text in (
        ("gin_file", files, "A gin file: a path, or a name in gin_configs/. Repeats."),
        ("config", files, "A YAML file: a path, or a name in configs/. Repeats."),
        (
            "gin_bindings",
            bindings,
            "A gin binding: Transformer.n_layers=6. Repeats. The same is "
            "--gin.Transformer.n_layers=6.",
        ),
    ):
        parser = InOrder(f"--{name}", order)
        flags.DEFINE_multi(parser, flags.ArgumentSerializer(), name, [], text, values)
    flags.DEFINE_multi_string(
        "gin_search_paths",
        [],
        "A folder to look for gin files in, after the working directory and gin_configs/. Repeats.",
        values,
    )
    flags.DEFINE_multi_string(
        "allow_gin_import",
        [],
        "A Python module to import before the configuration is read, such as my_hooks; gin files "
        "may import it too. It runs code: name only what you trust. Repeats.",
        values,
    )
    flags.DEFINE_string(
        "corpus", None, "Text to train or evaluate on: file, folder or glob.", values
    )
    flags.DEFINE_string(
        "run_dir",
        None,
        "The run directory. A new run makes runs/NAME-TIME by default; evaluate and sample need "
        "it; --mode=config shows the configuration of the run in it.",
        values,
    )
    flags.DEFINE(Integer(), "max_steps", None, "Steps in the whole run.", values)
    flags.DEFINE_alias("max-steps", "max_steps", values)
    flags.DEFINE_bool(
        "resume",
        False,
        "Go on with the run in --run_dir from its newest checkpoint; start it if there is none.",
        values,
    )
    flags.DEFINE_enum(
        "mode",
        "train",
        list(FLAGS_OF_MODE),
        "What to do: train, the default; config, which checks the configuration and prints every "
        "value with its source; plan, which prints what a run would take; diff, which compares "
        "two runs or configuration files, named without a flag; evaluate, which takes --run_dir "
        "and --corpus; sample, which takes --run_dir and bindings of the Sampler.",
        values,
    )
    flags.DEFINE_enum(
        "format",
        "table",
        list(FORMATS),
        "How to print: table, the default, or json; --mode=config can do yaml and gin too.",
        values,
    )
    flags.DEFINE_enum(
        "log_config",
        "changed",
        ["changed", "all"],
        "Which hyperparameters training logs at its start: those that differ from the default, "
        "or all.",
        values,
    )
    flags.DEFINE_bool("help", False, "Show this.", values, short_name="h")
    return values


def parse(arguments: Sequence[str]) -> tuple[flags.FlagValues, list[str]]:
    """The flags of a command line, and the words that belong to none.

    Raises:
        InputError: An unknown flag, a bad value, or words where the mode takes none.
    """
    values = define_flags()
    values.set_gnu_getopt(True)
    words = [GIN_BINDING.sub(r"--gin_bindings=\1", word, count=1) for word in arguments]
    try:
        _, *bare = values(["run.py", *words])
    except flags.Error as error:
        raise InputError(
            f"{str(error).removeprefix('ERROR:: ')}; --help lists the flags"
        ) from error
    if not values.help:
        refuse_stray(values.mode, bare)
        refuse_useless(values)
        refuse_empty(values)
    return values, bare


def refuse_stray(mode: str, bare: Sequence[str]) -> None:
    """Refuses words that belong to no flag, but for the two that are to be compared.

    Raises:
        InputError: There are such, or not two.
    """
    if mode == "diff":
        if len(bare) != 2:
            message = f"--mode=diff compares two runs or configuration files, not {len(bare)}"
            raise InputError(f"{message}: --mode=diff runs/latest fast-training.yaml")
    elif bare:
        raise InputError(f"{bare[0]!r} belongs to no flag; --help lists the flags")


def refuse_useless(values: flags.FlagValues) -> None:
    """Refuses flags that would silently do nothing in the chosen mode.

    Raises:
        InputError: There is one.
    """
    known = FLAGS_OF_MODE[values.mode]
    formats = FORMATS_OF_MODE.get(values.mode, FORMATS)
    if values.format not in formats:
        message = f"--format={values.format} does not apply to --mode={values.mode}"
        raise InputError(f"{message} (what does: {', '.join(formats)})")
    for name in sorted(set().union(*FLAGS_OF_MODE.values()) - known):
        if values[name].present:
            own = ", ".join(f"--{flag}" for flag in sorted(known))
            is_of_run = values.mode in ("evaluate", "sample") and name in CONFIGURATION
            reason = ": it takes the run's own configuration" if is_of_run else ""
            message = f"--{name} does not apply to --mode={values.mode}{reason}"
            raise InputError(f"{message} (what applies: {own})")


def refuse_empty(values: flags.FlagValues) -> None:
    """Refuses texts that are empty: the work of a shell variable that is not set.

    Raises:
        InputError: There is one.
    """
    for name in sorted(set(values) - {"help", "h"}):
        value = values[name].value
        given = value if isinstance(value, list) else [value]
        if "" in [word.text if isinstance(word, Given) else word for word in given]:
            raise InputError(f"--{name} is empty; give it a value, or leave it out")


def help_text() -> str:
    """What --help prints."""
    values = define_flags()
    lines = [__doc__.strip(), "", "Flags:"]
    for name in sorted(values):
        if name not in ("h", "max-steps"):
            # absl adds to the help of enums and of flags that repeat.
            text = values[name].help.split(";\n", 1)[0]
            lines += textwrap.wrap(
                text, HELP_WIDTH, initial_indent=f"  --{name}: ", subsequent_indent=" " * 6
            )
    return "\n".join(lines)


def import_modules(names: Sequence[str]) -> None:
    """Imports the modules that the user allows, from the working directory too.

    Raises:
        InputError: One cannot be imported.
    """
    if names:
        sys.path.append(str(Path.cwd()))
    for name in names:
        try:
            importlib.import_module(name)
        except LabError:
            raise
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {error}"
            raise InputError(f"--allow_gin_import={name}: cannot be imported: {reason}") from error


def sources(values: flags.FlagValues) -> ConfigSources:
    """Where the configuration comes from, in the order of the command line.

    Raises:
        InputError: A folder to search is none.
    """
    search_paths = [Path(folder).expanduser() for folder in values.gin_search_paths]
    for folder in search_paths:
        if not folder.is_dir():
            raise InputError(f"--gin_search_paths: {str(folder)!r} is no folder")
    overrides = {name: values[name].value for name in ("max_steps", "corpus")}
    given_files = sorted([*values.gin_file, *values.config])
    return ConfigSources(
        files=[FileArgument(given.flag, given.text) for given in given_files],
        bindings=[Binding(given.flag, given.text) for given in sorted(values.gin_bindings)],
        overrides={name: value for name, value in overrides.items() if value is not None},
        yaml_folders=[PROJECT / "configs"],
        gin_folders=[PROJECT / "gin_configs", *search_paths],
        allowed_imports=tuple(values.allow_gin_import),
    )


def request_of(values: flags.FlagValues, bare: Sequence[str]) -> Request:
    """What the command line asks for.

    Raises:
        InputError: A folder to search is none.
    """
    config = sources(values)
    if values.mode in ("evaluate", "sample"):
        config = ConfigSources(bindings=config.bindings, allowed_imports=config.allowed_imports)
    return Request(
        config=config,
        run_dir=None if values.run_dir is None else Path(values.run_dir).expanduser(),
        resume=values.resume,
        corpus=values.corpus,
        command_line=tuple(sys.argv),
        format=values.format,
        logs_all=values.log_config == "all",
        compared=tuple(bare),
    )


def run(values: flags.FlagValues, bare: Sequence[str]) -> None:
    """Does what the flags ask for."""
    try:
        Path.cwd()
    except OSError as error:
        raise MachineError("the working directory is no longer there; change to another") from error
    # Threads that wait should sleep soon: when other programs want the cores too, threads that
    # spin for long make all of them many times slower, and alone it costs nothing.
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    import_modules(values.allow_gin_import)
    request = request_of(values, bare)
    if values.mode in ("train", "plan") and not values.resume:
        # What is wrong with the configuration is told before PyTorch, a second later, is there.
        inspection.check(request.config)
    looks = {"config": inspection.show_config, "diff": inspection.show_difference}
    if values.mode in looks:
        looks[values.mode](request)
        return
    from lm_core import experiment, planning

    modes = {
        "train": experiment.train,
        "plan": planning.plan,
        "evaluate": experiment.evaluate,
        "sample": experiment.sample,
    }
    modes[values.mode](request)


def main(arguments: Sequence[str]) -> int:
    """Runs the program and returns its exit code; ``lm_core/errors.py`` says which there are."""
    # A shell starts background jobs with SIGINT ignored; whoever sends it means it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # It was closed before the program began.
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 -- for good
        # Names and samples may hold what a terminal's encoding lacks.
        getattr(sys, name).reconfigure(errors="backslashreplace")
    try:
        values, bare = parse(arguments)
        if values.help:
            print(help_text())
        else:
            run(values, bare)
        sys.stdout.flush()
    except StoppedError as error:
        say(error.message, sys.stderr)
        return error.exit_code
    except LabError as error:
        say(f"error: {error.message}", sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        say("stopped at once", sys.stderr)
        return INTERRUPTED
    except SystemExit as error:
        # The lab itself never raises it: without a word, a failed run would look like a good one.
        say(f"error: a hook ended the program: SystemExit({error.code!r})", sys.stderr)
        return 1
    except BrokenPipeError as error:
        # Whoever read the output has gone; there is nobody to tell.
        let_go(sys.stdout, error)
        return 1
    except OSError as error:
        say(f"error: {error}", sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
