"""The flags of the command line: which there are, and in which mode each means something."""

import itertools
import re
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from absl import flags

from lm_core.config.files import FLAGS
from lm_core.config.names import meant_parameter, near_parameter
from lm_core.errors import InputError, nearest, shown

GIN_BINDING = re.compile(r"\A--?gin\.(.*)", re.DOTALL)
# What absl adds of its own: flags that nobody could see in a record, and such that do nothing.
OF_ABSL = ("flagfile", "undefok")
INTEGER = re.compile(r"[+-]?[0-9]{1,1000}", re.ASCII)
# The flags that say what the configuration is.
CONFIGURATION = {"gin_file", "config", "gin_bindings", "gin_search_paths", "corpus", "max_steps"}
# What each mode takes; flags that stand nowhere here apply to all.
FLAGS_OF_MODE = {
    "train": CONFIGURATION | {"verify_corpus", "run_dir", "resume", "log_config", "tensorboard"},
    "config": CONFIGURATION | {"run_dir", "format"},
    "plan": CONFIGURATION | {"verify_corpus", "format"},
    "diff": {"gin_search_paths", "format"},
    "compare": {"format"},
    "report": {"output", "figures"},
    "search": CONFIGURATION | {"run_dir", "storage", "workers"},
    "evaluate": {"run_dir", "checkpoint", "corpus", "verify_corpus", "gin_bindings"},
    "sample": {"run_dir", "checkpoint", "gin_bindings"},
    "export": {"run_dir", "checkpoint", "to"},
    "import": {"run_dir", "from"},
}
# The modes that take the configuration of the run that they look at.
MODES_OF_A_RUN = ("evaluate", "sample", "export")
FORMATS = ("table", "yaml", "gin", "json", "csv")
FORMATS_OF_MODE = {
    "config": ("table", "yaml", "gin", "json"),
    "plan": ("table", "json"),
    "diff": ("table", "json"),
    "compare": ("table", "json", "csv"),
}
# The modes that take words without a flag: what they do with them, with how many (None: with any
# number but none), and an example.
WORDS_OF_MODE = {
    "diff": ("compares two runs or configuration files", 2, "runs/latest fast-training.yaml"),
    "compare": ("compares runs", None, "runs/first runs/second"),
    "report": ("draws runs", None, "runs/latest"),
}
# Columns of --help, narrow enough for most terminals.
HELP_WIDTH = 96
# Columns that the lines of a flag are indented, so that the flags stand out.
HELP_INDENT = 6


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
    """Parses whole numbers; what is none is told with everything else that is wrong."""

    def parse(self, argument: Any) -> int | float | str:
        """The number, or the text where there is none."""
        text = str(argument)
        if INTEGER.fullmatch(text):
            return int(text)
        try:
            return text if "_" in text else float(text)
        except ValueError:
            return text


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
        "A folder to look for gin files in, after the working directory and gin_configs/, and from "
        "which files may be included and extended. Repeats.",
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
    flags.DEFINE_bool(
        "verify_corpus",
        False,
        "Read a text of more than 64 MiB again, and compare its tokens in the cache folder, where "
        "those of bpe are from 4 MiB on, with their checksums, instead of trusting what was noted "
        "about both.",
        values,
    )
    flags.DEFINE_string(
        "run_dir",
        None,
        "The run directory. A new run makes runs/NAME-TIME by default; evaluate, sample and export "
        "need it; --mode=config shows the configuration of the run in it. Of a search, the folder "
        "of the study, by default studies/NAME.",
        values,
    )
    flags.DEFINE_string(
        "storage",
        None,
        "The database in which a search keeps its trials, for several machines: "
        "postgresql://HOST/NAME. By default, a journal in the study's folder.",
        values,
    )
    flags.DEFINE(
        Integer(), "workers", None, "How many trials a search runs at once: 1, the default.", values
    )
    flags.DEFINE_string(
        "checkpoint",
        None,
        "Which checkpoint evaluate, sample and export take: newest, the default; best, that of the "
        "best validation loss, and the default of runs with early_stopping_evaluations; or the "
        "number of its step.",
        values,
    )
    flags.DEFINE_string(
        "to",
        None,
        "The folder that --mode=export makes, for AutoModelForCausalLM of transformers to load.",
        values,
    )
    flags.DEFINE_string(
        "from",
        None,
        "The folder with a GPT-2 or Llama of transformers that --mode=import makes a run of, for "
        "init_from to begin with.",
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
        "two runs or configuration files, named without a flag; compare, which compares the "
        "results of runs, and report, which draws them, both of runs that are named likewise, by "
        "patterns such as 'runs/*' too; search, which tries the values that a study states, and "
        "goes on where it was stopped; evaluate, which takes --run_dir, --corpus and a "
        "binding of load_corpus.text_key; sample, which takes --run_dir and bindings of the "
        "Sampler; export, which writes the model of --run_dir "
        "as a folder of transformers, --to; import, which makes a run of such a folder, --from.",
        values,
    )
    flags.DEFINE_enum(
        "format",
        "table",
        list(FORMATS),
        "How to print: table, the default, or json; --mode=config can do yaml and gin too, "
        "--mode=compare csv.",
        values,
    )
    flags.DEFINE_string(
        "output",
        None,
        "Where --mode=report writes its page. By default, that of one run is report.html in its "
        "directory, that of several report.html in the working directory.",
        values,
    )
    flags.DEFINE_string(
        "figures",
        None,
        "A folder in which --mode=report draws the curves too, as PNG and SVG.",
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
    flags.DEFINE_bool(
        "tensorboard",
        False,
        "Write metrics, samples and hyperparameters as events too, into tensorboard/ of the run "
        "directory: tensorboard --logdir=runs shows them. Needs the extra: pip install -c "
        "constraints.txt -e '.[tensorboard]'.",
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
    for name in (word.lstrip("-").split("=")[0] for word in arguments if word.startswith("-")):
        if name in OF_ABSL:
            raise InputError(f"unknown flag --{name}; --help lists the flags")
    try:
        _, *bare = values(["run.py", *_with_bindings(arguments)])
    except flags.UnrecognizedFlagError as error:
        name = error.flagname
        near = None if meant_parameter(name) else nearest(name, [*values])
        parameter = near_parameter(name)
        near = f"gin.{parameter}" if parameter and not near else near
        hint = f"did you mean --{near}?" if near else "--help lists the flags"
        raise InputError(f"unknown flag --{name}; {hint}") from error
    except flags.Error as error:
        message = str(error).removeprefix("ERROR:: ")
        # Of a boolean flag, absl shows the tuple that its exception holds.
        message = re.sub(r"\('(Non-boolean argument to boolean flag)', .*\)", r"\1", message)
        raise InputError(f"{message}; --help lists the flags") from error
    if not values.help:
        for word, value in itertools.pairwise(arguments):
            if GIN_BINDING.fullmatch(word) and "=" not in word and value in bare:
                raise InputError(f"{word} has no value; write {shlex.quote(f'{word}={value}')}")
        refuse_useless(values)
        refuse_stray(values.mode, bare)
        refuse_empty(values)
    return values, bare


def _with_bindings(words: Sequence[str]) -> list[str]:
    """The words with ``--gin.NAME=VALUE`` as ``--gin_bindings=NAME=VALUE``.

    Behind a ``--`` no word is a flag.
    """
    end = words.index("--") if "--" in words else len(words)
    flagged = [GIN_BINDING.sub(r"--gin_bindings=\1", word) for word in words[:end]]
    return [*flagged, *words[end:]]


def path_given(who: str, text: str) -> Path:
    """The path that a person means, with ``~`` for a home directory.

    Args:
        who: The flag that it was given to, for the message.
        text: What was given.

    Raises:
        InputError: The system takes no such path, or nobody has that name.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{who}: {shown(text)} is no path: {reason}") from error
    return path


def refuse_stray(mode: str, bare: Sequence[str]) -> None:
    """Refuses words that belong to no flag, but for what is to be compared or reported on.

    Raises:
        InputError: There are such, or too few of those.
    """
    if mode in WORDS_OF_MODE:
        what, n_words, example = WORDS_OF_MODE[mode]
        if not bare or n_words not in (None, len(bare)):
            message = f"--mode={mode} {what}, named without a flag, not {len(bare)}"
            raise InputError(f"{message}: --mode={mode} {example}")
    elif bare:
        raise InputError(f"{bare[0]!r} belongs to no flag; {_meant_by(bare[0])}")


def _meant_by(word: str) -> str:
    """What somebody may mean who writes a word that belongs to no flag."""
    flag = FLAGS.get(PurePath(word).suffix)
    if flag:
        return f"did you mean {flag}={shlex.quote(word)}? Each file needs a flag of its own"
    name = word.partition("=")[0]
    if "=" in word and "." in name and not word.startswith("-"):
        return f"did you mean --gin_bindings={shlex.quote(word)}?"
    return "a value with a space needs quotes; --help lists the flags"


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
            is_of_run = values.mode in MODES_OF_A_RUN and name in CONFIGURATION
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


def help_text(description: str) -> str:
    """What --help prints.

    Args:
        description: What stands above the flags.
    """
    values = define_flags()
    lines = [description.strip(), "", "Flags:"]
    for name in sorted(values):
        if name not in ("h", "max-steps"):
            # absl adds to the help of enums and of flags that repeat.
            text = values[name].help.split(";\n", 1)[0]
            lines += textwrap.wrap(
                text,
                HELP_WIDTH,
                initial_indent=f"  --{name}: ",
                subsequent_indent=" " * HELP_INDENT,
            )
    return "\n".join(lines)
