"""Weights that a run begins with, of another run instead of random ones."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gin
import torch

from lm_core.config.resolution import ResolvedConfig
from lm_core.config.training_config import TrainingConfig
from lm_core.costs import model_arguments
from lm_core.data.tokenizer import Tokenizer, tokenizer_from_dict
from lm_core.errors import InputError, LabError, MachineError, shown
from lm_core.record import RunDirectory
from lm_core.recorded_config import read_record, resolved_path
from lm_core.results import result_of
from lm_core.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from lm_core.training.checkpoint_folder import newest_sound_checkpoint
from lm_core.training.restoring import restored_model
from lm_core.training.run_state import RunState
from lm_core.training.trained import tensors_of_start

# In the directory of an imported run, a configuration that begins with it.
FINE_TUNING = "fine-tune.yaml"
_POSITIONS = "position_embedding.weight"
# What need not be as in the model that weights are taken from.
_MAY_DIFFER = ("dropout", "max_seq_len")


class InitialWeights(NamedTuple):
    """What a run begins with.

    Attributes:
        tokenizer: The tokenizer of the model.
        arguments: What builds the model; none, for a run that goes on.
        weights: The weights by name; none, for a run that goes on: it has its own.
        record: What the manifest keeps: where they are from, and the SHA-256 of their file.
    """

    tokenizer: Tokenizer
    arguments: Mapping[str, Any]
    weights: dict[str, torch.Tensor]
    record: dict[str, Any]

    def require_fit(self, config: ResolvedConfig) -> None:
        """Refuses a configuration of another model or tokenizer, and tells all that differs.

        Raises:
            InputError: It is of another one.
        """
        there = {**self.arguments, "tokenizer": self.tokenizer.kind}
        del there["vocab_size"]
        here = {**model_arguments(config.values), "tokenizer": config.values.tokenizer}
        lines = [
            f"  {key}: {shown(there[key])} there, {shown(value)} here ({config.sources[key]})"
            for key, value in here.items()
            if there[key] != value and key not in _MAY_DIFFER
        ]
        longest, length = there["max_seq_len"], here["max_seq_len"]
        if here["position"] == "learned" and length > longest:
            source = config.sources["max_seq_len"]
            lines.append(
                f"  max_seq_len: {longest} there, {length} here ({source}), and no more can be had "
                "with position: learned"
            )
        if lines:
            path = Path(self.record["path"])
            files = [path / name for name in (FINE_TUNING, "config.yaml")]
            in_use = {Path(source.place).resolve() for source in config.sources.values()}
            there_is = [file for file in files if file.is_file()][:1]
            all_of_it = [
                f", or begin with --config={file}"
                for file in there_is
                if file.resolve() not in in_use
            ]
            message = f"init_from: {path} is of another model than this configuration asks for"
            hint = f"set these to what is there{all_of_it[0] if all_of_it else ''}"
            raise InputError("\n".join([f"{message}; {hint}:", *lines]))

    def cut_to(self, max_seq_len: int) -> dict[str, torch.Tensor]:
        """The weights of a model with a context that may be shorter."""
        weights = dict(self.weights)
        if _POSITIONS in weights:
            weights[_POSITIONS] = weights[_POSITIONS][:max_seq_len]
        return weights


@gin.configurable
def load_initial_weights(init_from: str | None = None) -> InitialWeights | None:
    """The weights that another run has come to.

    Args:
        init_from: A run directory, for its result (the best checkpoint where it may stop early,
            else the newest), or the folder of a checkpoint. None: there are none.

    Raises:
        InputError: There is no such thing.
        MachineError: It is damaged.
    """
    if init_from is None:
        return None
    checkpoint = _checkpoint_at(Path(init_from).expanduser())
    model, tokenizer = restored_model(checkpoint)
    # Without the optimizer, which takes twice as much memory, from here on.
    return InitialWeights(
        tokenizer, model.arguments, checkpoint.model, _record(init_from, checkpoint)
    )


def _checkpoint_at(path: Path) -> Checkpoint:
    try:
        if (path / "checksums.json").is_file():
            return load_checkpoint(path)
        if not path.is_dir():
            raise InputError(f"{path} is no folder")
        run = RunDirectory.open(path)
        return result_of(run, read_record(run).values)
    except InputError as error:
        raise InputError(f"init_from: {error.message}") from error
    except OSError as error:
        raise InputError(f"init_from: {path} cannot be read: {error.strerror}") from error


def _record(path: str, checkpoint: Checkpoint) -> dict[str, Any]:
    file = Path(checkpoint.path or "") / "model.safetensors"
    try:
        with file.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise MachineError(f"{file} cannot be read: {error.strerror}") from error
    return {"path": resolved_path(path), "step": checkpoint.step, "sha256": sha256}


def weights_begun_with(run: RunDirectory, path: str | None) -> InitialWeights | None:
    """What a run began with, as far as it needs it to go on.

    That is the tokenizer, which its checkpoints have. Where it has none yet, the weights are read
    again where they were.

    Args:
        run: The run.
        path: Where its weights were from; None: they were random.

    Raises:
        InputError: They are read again, and are not those any more.
        MachineError: No checkpoint is sound.
    """
    if path is None:
        return None
    record = run.manifest.get("init_from")
    if not isinstance(record, dict) or not isinstance(record.get("sha256"), str):
        raise InputError(f"{run.path}/manifest.json does not tell what the run began with")
    checkpoint = newest_sound_checkpoint(run.checkpoints, lambda message: None)
    if checkpoint is not None:
        try:
            tokenizer = tokenizer_from_dict(checkpoint.state["tokenizer"])
        except (LabError, KeyError) as error:
            raise MachineError(f"{checkpoint.path} has no tokenizer") from error
        return InitialWeights(tokenizer, {}, {}, record)
    found = load_initial_weights(init_from=path)
    if found is None or found.record["sha256"] != record["sha256"]:
        message = f"init_from: {path} has other weights than {run.path} began with"
        raise InputError(f"{message}, and that has no checkpoint yet: begin anew in another one")
    return found


def save_start(
    run: RunDirectory, arguments: Mapping[str, Any], initial: InitialWeights, values: TrainingConfig
) -> None:
    """Saves a model before its first step, so that a run needs nothing but itself to go on.

    Args:
        run: The run.
        arguments: What builds the model of the run.
        initial: The weights that it begins with, which several processes may have parted since;
            they are let go of.
        values: The run's configuration.

    Raises:
        MachineError: It cannot be saved.
    """
    state = {"seed": values.seed, "model": dict(arguments)}
    state |= {"tokenizer": initial.tokenizer.to_dict(), **RunState().to_json()}
    weights = initial.cut_to(arguments["max_seq_len"])
    tensors = tensors_of_start(weights, averages=values.ema_decay is not None)
    save_checkpoint(run.checkpoints, Checkpoint(step=0, state=state, **tensors))
    # Whoever trains has weights of its own by now, and memory may be short.
    initial.weights.clear()
