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
      prints how two runs or configuration files differ
  python run.py --mode=compare 'runs/*'
      prints what differs among runs, what came of them, and what of that is more than noise
  python run.py --mode=report 'runs/*'
      draws runs: writes report.html, with curves, samples and hyperparameters, to open anywhere
  python run.py --mode=search --config=search/learning-rate.yaml
      searches for the hyperparameters that learn best
  python run.py --mode=export --run_dir=runs/latest --to=exported
      writes the model of a run as a folder that transformers loads
  python run.py --mode=import --from=exported --run_dir=runs/imported
      makes a run of such a folder, for init_from to begin with

Every hyperparameter stands in configs/default.yaml, with its meaning.
"""

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

# The exit code by which shells know an end by Ctrl-C: 128 and the number of SIGINT.
INTERRUPTED = 130
# The exit code of what went well.
DONE = 0
if __name__ == "__main__":
    # The imports below take a moment, and Python's own answer to Ctrl-C is a page of traceback.
    # Nothing is written yet, so the program may just end; main() sets the handler that stays.
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(INTERRUPTED))

from absl import flags

from lm_core import inspection
from lm_core.command_line import MODES_OF_A_RUN, help_text, parse, path_given
from lm_core.config.resolution import Binding, ConfigSources, FileArgument
from lm_core.errors import (
    InputError,
    LabError,
    MachineError,
    StoppedAtOnce,
    StoppedError,
    ToldBefore,
    UnheardError,
    one_line,
)
from lm_core.machine import set_up_process
from lm_core.output import let_go, say
from lm_core.parallel.meeting import Meeting, meeting_here
from lm_core.parallel.world import leave_the_word, world_here
from lm_core.request import Request
from lm_core.training.signals import SIGNALS, stop_at_once_on_signals

PROJECT = Path(__file__).resolve().parent


def import_modules(names: Sequence[str]) -> None:
    """Imports the modules that the user allows, from the working directory too.

    Raises:
        InputError: One cannot be imported.
    """
    for name in names:
        # The module in the working directory is meant, not one of its name beside this program.
        here = str(Path.cwd())
        sys.path.insert(0, here)
        try:
            importlib.import_module(name)
        except LabError:
            raise
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {error}"
            if name.endswith(".py"):
                reason = "a module is named without .py"
            raise InputError(f"--allow_gin_import={name}: cannot be imported: {reason}") from error
        finally:
            sys.path.remove(here)
            # What it imports later, it still finds.
            sys.path.append(here)


def sources(values: flags.FlagValues) -> ConfigSources:
    """Where the configuration comes from, in the order of the command line.

    Raises:
        InputError: A folder to search is no path at all.
    """
    search_paths = [path_given("--gin_search_paths", name) for name in values.gin_search_paths]
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
        InputError: What is given as a path is none.
    """
    config = sources(values)
    if values.mode in MODES_OF_A_RUN:
        config = ConfigSources(bindings=config.bindings, allowed_imports=config.allowed_imports)
    return Request(
        config=config,
        run_dir=None if values.run_dir is None else path_given("--run_dir", values.run_dir),
        resume=values.resume,
        checkpoint=values.checkpoint,
        corpus=values.corpus,
        verify_corpus=values.verify_corpus,
        command_line=tuple(sys.argv),
        format=values.format,
        logs_all=values.log_config == "all",
        compared=tuple(bare),
        output=None if values.output is None else path_given("--output", values.output),
        figures=None if values.figures is None else path_given("--figures", values.figures),
        tensorboard=values.tensorboard,
        storage=values.storage,
        workers=values.workers,
        to=None if values.to is None else path_given("--to", values.to),
        source=None if values["from"].value is None else path_given("--from", values["from"].value),
    )


def run(values: flags.FlagValues, bare: Sequence[str], meeting: Meeting) -> None:
    """Does what the flags ask for, with all processes that were started for it."""
    try:
        Path.cwd()
    except OSError as error:
        raise MachineError("the working directory is no longer there; change to another") from error
    set_up_process()
    import_modules(values.allow_gin_import)
    world = meeting.world
    if values.mode == "search" and not world.is_alone:
        message = "--mode=search starts processes of its own, and cannot be one of several itself"
        raise InputError(f"{message}: start it without torchrun (--workers runs trials at once)")
    if values.mode != "train" and not world.is_first:
        # The first process does alone what is not training.
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            which = f"this is process {world.rank} of {world.n_processes} (RANK, WORLD_SIZE)"
            hint = f"the first one does --mode={values.mode}; alone, unset them"
            say(f"{which}: {hint}", sys.stderr, for_all=False)
        return
    request = request_of(values, bare)
    if values.mode in ("train", "plan") and not values.resume and world.is_first:
        # What is wrong with the configuration is told before PyTorch, a second later, is there.
        inspection.check(request.config)
    looks = {"config": inspection.show_config, "diff": inspection.show_difference}
    if values.mode in looks:
        looks[values.mode](request)
        return
    if values.mode in ("compare", "report"):
        from lm_core.analysis import printing
        from lm_core.report import reporting

        {"compare": printing.compare, "report": reporting.report}[values.mode](request)
        return
    if values.mode == "search":
        from lm_core.search.mode import search

        search(request)
        return
    if values.mode in ("export", "import"):
        from lm_core.exchange import exporting, importing

        {"export": exporting.export, "import": importing.import_folder}[values.mode](request)
        return
    from lm_core import examination, experiment, planning

    modes = {
        "train": partial(experiment.train, meeting=meeting),
        "plan": planning.plan,
        "evaluate": examination.evaluate,
        "sample": examination.sample,
    }
    modes[values.mode](request)


def meeting_for(arguments: Sequence[str]) -> Meeting:
    """The processes, which wait for each other where they train, or one tells all what is wrong."""
    world = world_here()
    with contextlib.suppress(InputError):
        values, _ = parse(arguments)
        if values.help or values.mode != "train":
            return Meeting(world)
    return meeting_here(world, lambda line: say(line, sys.stderr, for_all=False))


def told(error: LabError) -> str:
    """What a person reads of an error: the sentence, or a line for each of several problems."""
    lines = [one_line(line) for line in error.message.split("\n")]
    if isinstance(error, InputError) and len(lines) > 1 and not lines[1].startswith(" "):
        return "\n".join([f"error: {len(lines)} problems", *lines])
    return "\n".join([f"error: {lines[0]}", *lines[1:]])


def main(arguments: Sequence[str]) -> int:
    """Runs the program and returns its exit code; ``lm_core/errors.py`` says which there are."""
    stop_at_once_on_signals()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # It was closed before the program began.
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 -- for good
        # Names and samples may hold what a terminal's encoding lacks.
        getattr(sys, name).reconfigure(errors="backslashreplace")
    try:
        # Of several processes, one that fails from here on is heard by the others.
        with meeting_for(arguments) as meeting:
            meeting.require_a_way_on()
            values, bare = parse(arguments)
            if values.help:
                say(help_text(__doc__), for_all=False)
            else:
                run(values, bare, meeting)
        sys.stdout.flush()
    except ToldBefore as error:
        return error.exit_code
    except StoppedError as error:
        say(error.message, sys.stderr)
        return error.exit_code
    except LabError as error:
        say(told(error), sys.stderr, for_all=not isinstance(error, UnheardError))
        leave_the_word()
        return error.exit_code
    except KeyboardInterrupt as error:
        say("stopped at once", sys.stderr)
        return error.exit_code if isinstance(error, StoppedAtOnce) else INTERRUPTED
    except SystemExit as error:
        # The lab itself never raises it: without a word, a failed run would look like a good one.
        say(f"error: a hook ended the program: SystemExit({error.code!r})", sys.stderr)
        return MachineError.exit_code
    except BrokenPipeError as error:
        # Whoever read the output has gone; there is nobody to tell.
        let_go(sys.stdout, error)
        return MachineError.exit_code
    except OSError as error:
        say(f"error: {error}", sys.stderr)
        return MachineError.exit_code
    return DONE


if __name__ == "__main__":
    exit_code = main(sys.argv[1:])
    # All is said and written: from here on a signal may end the program as it ends any other.
    for signal_number in SIGNALS:
        signal.signal(signal_number, signal.SIG_DFL)
    sys.exit(exit_code)
