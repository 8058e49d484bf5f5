"""Importing: a folder of transformers as a run of ours, whose model others begin with."""

import re
import shlex
from datetime import UTC, datetime
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lm_core.atomic_files import write_synced
from lm_core.config.hyperparameters import KEYS
from lm_core.config.rendering import config_hash, gin_text, yaml_value
from lm_core.config.resolution import ResolvedConfig
from lm_core.config.statements import Source
from lm_core.config.training_config import TrainingConfig
from lm_core.costs import FLOAT32_BYTES, count_parameters, model_arguments
from lm_core.data.corpus import load_corpus
from lm_core.data.tokenizer import Tokenizer
from lm_core.errors import InputError, LabError, MachineError
from lm_core.exchange.families import Family, all_parts, family_named
from lm_core.exchange.json_files import Fields, read_json
from lm_core.exchange.occupied import refuse_occupied
from lm_core.exchange.parts import Piece, to_ours
from lm_core.exchange.tokenizer_files import read_tokenizer
from lm_core.exchange.weight_files import WeightFiles
from lm_core.initial_weights import FINE_TUNING, InitialWeights, save_start
from lm_core.machine import most_memory
from lm_core.manifest import describe_world
from lm_core.memory import memory_explained
from lm_core.model.transformer import Transformer
from lm_core.new_folders import new_folder
from lm_core.output import say
from lm_core.record import IMPORTED, RunDirectory, default_run_path
from lm_core.recorded_config import record_sources, record_tokenizer, record_yaml
from lm_core.request import Request

_CONFIG = "config.json"
# The name of the head in every family.
_HEAD = "lm_head.weight"
# A config.json has some thousand bytes.
_LARGEST_CONFIG = 2**20
# While a tensor is read it is there twice, and the largest is a part of the whole.
_COPIES = 2
# An imported run draws nothing; a run that begins with it has a seed of its own.
_SEED = 0
# In a record, nothing depends on the machine that imported.
_PRECISION = "float32"
# The kind of tokenizer whose size is a hyperparameter.
_LEARNED = "bpe"
# What may stand in the name of a run.
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class Imported(NamedTuple):
    """What a folder of transformers holds.

    Attributes:
        family: Its architecture.
        model: The model, in evaluation mode.
        tokenizer: Its tokenizer.
        files: Size and SHA-256 of the files of weights, by name.
    """

    family: Family
    model: Transformer
    tokenizer: Tokenizer
    files: dict[str, dict[str, int | str]]


def import_folder(request: Request) -> None:
    """Makes a run of a folder of transformers: of no steps, with one checkpoint.

    Raises:
        LabError: Anything a person should read; nothing half-made is left behind.
    """
    if request.source is None:
        raise InputError("--from is missing: it names the folder with config.json and the weights")
    imported = read_folder(request.source, who="--from")
    config = _config_of(imported, request.source)
    name = _UNSAFE.sub("-", request.source.resolve().name)
    path = request.run_dir or default_run_path(f"{name}-imported")
    forms = record_yaml(config, path), gin_text(config)
    model = imported.model
    initial = InitialWeights(imported.tokenizer, model.arguments, model.state_dict(), {})
    # Nobody sees the run before its checkpoint is in it.
    refuse = partial(refuse_occupied, "--run_dir")
    with new_folder(path, "run directory", "--run_dir", refuse) as folder:
        manifest = _manifest(request, imported, config)
        tokenizer_json = imported.tokenizer.to_dict().get("json")
        try:
            run = RunDirectory.create(folder, *forms, manifest, tokenizer_json=tokenizer_json)
            save_start(run, model.arguments, initial, config.values)
        except LabError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            # Its words are of a name that nobody knows, and of checkpoints before this one.
            raise error.__cause__ from None
        write_synced(folder / FINE_TUNING, _fine_tuning(config, path).encode())
    say(f"imported a {imported.family.NAME} of {model.n_parameters:,} parameters: {request.source}")
    say(f"tokenizer: {imported.tokenizer.kind}, {imported.tokenizer.vocab_size:,} tokens")
    say(f"run directory: {path}")
    say(f"to train it further: --config={path / FINE_TUNING}")


def read_folder(folder: str | PathLike[str], who: str = "folder") -> Imported:
    """The model and the tokenizer in a folder of transformers.

    Everything is compared with ``config.json`` before memory is taken for it.

    Args:
        folder: With ``config.json``, ``model.safetensors`` (or several files and their index) and
            ``tokenizer.json``.
        who: What named it, for messages: a flag, where there is one.

    Raises:
        InputError: It holds no model that the lab has; tells what is in the way.
        MachineError: The machine has too little memory.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{who}: {folder} is no folder")
    config = Fields(read_json(folder / _CONFIG, _LARGEST_CONFIG), str(folder / _CONFIG))
    config.require("quantization_config", None, "the lab reads no quantised weights")
    family = family_named(config)
    arguments = family.arguments_of(config)
    values = _checked(arguments, config.place)
    tokenizer = read_tokenizer(folder)
    if tokenizer.vocab_size != arguments["vocab_size"]:
        theirs, own = arguments["vocab_size"], tokenizer.vocab_size
        message = f"the model has {theirs:,} tokens, and its tokenizer.json {own:,}"
        raise InputError(f"{config.place}: {message}; the lab needs as many in both")
    files = WeightFiles(folder, family.PREFIX, family.IGNORED)
    if arguments["n_layers"] > len(files):
        n_layers = f"{arguments['n_layers']:,} layers"
        raise InputError(f"{config.place}: {n_layers}, and there are {len(files):,} tensors")
    parts = all_parts(family, arguments, config)
    pieces = [piece for part in parts for piece in part.pieces]
    second_head = _second_head(files, family, arguments)
    files.require([*pieces, *second_head])
    _require_memory(values, arguments["vocab_size"], folder)
    with memory_explained():
        for head in second_head:
            _require_embedding(files, family, arguments, head)
        weights = to_ours(parts, files.read)
        model = Transformer(**arguments, seed=None)
        model.load(weights)
    return Imported(family, model.eval(), tokenizer, files.digests())


def _checked(arguments: dict[str, Any], place: str) -> TrainingConfig:
    """The configuration of a model, if it can be one.

    Raises:
        InputError: The sizes cannot work.
    """
    sizes = {name: value for name, value in arguments.items() if name != "vocab_size"}
    try:
        return TrainingConfig.from_dict(sizes)
    except InputError as error:
        raise InputError(f"{place}: {error.message.splitlines()[0]}") from error


def _second_head(files: WeightFiles, family: Family, arguments: dict[str, Any]) -> list[Piece]:
    """A head that has to be the token embedding once more, where a folder has such a one."""
    if not arguments["tie_embeddings"] or _HEAD not in files:
        return []
    return [_embedding(family, arguments)._replace(name=_HEAD)]


def _embedding(family: Family, arguments: dict[str, Any]) -> Piece:
    return family.outer_parts(arguments)[0].pieces[0]


def _require_embedding(
    files: WeightFiles, family: Family, arguments: dict[str, Any], head: Piece
) -> None:
    """Refuses a head that is not the token embedding.

    Raises:
        InputError: It is another one.
    """
    if not torch.equal(files.read(_embedding(family, arguments).name), files.read(head.name)):
        message = "config.json says that the head is the token embedding, and lm_head.weight is not"
        raise InputError(f"{files.files[0].parent}: {message}")


def _require_memory(values: TrainingConfig, vocab_size: int, folder: Path) -> None:
    """Refuses what cannot fit: the system would end the process without a word."""
    needed = _COPIES * FLOAT32_BYTES * count_parameters(values, vocab_size)
    available = most_memory()
    if available is not None and needed > available:
        message = f"{folder} needs {needed:,} bytes of memory, this machine has {available:,}"
        raise MachineError(message)


def _config_of(imported: Imported, source: Path) -> ResolvedConfig:
    """The configuration of the run: the model's, and defaults for the rest."""
    arguments, place = imported.model.arguments, Source(f"{_CONFIG} of {source}")
    table = {name: value for name, value in arguments.items() if name != "vocab_size"}
    found = {**table, "tokenizer": imported.tokenizer.kind, "seed": _SEED, "precision": _PRECISION}
    if imported.tokenizer.kind == _LEARNED:
        found["vocab_size"] = imported.tokenizer.vocab_size
    sources = dict.fromkeys(KEYS, Source("default")) | dict.fromkeys(found, place)
    return ResolvedConfig(TrainingConfig.from_dict(found), sources, {key: key for key in KEYS}, {})


def _manifest(request: Request, imported: Imported, config: ResolvedConfig) -> dict[str, Any]:
    corpus, tokenizer = load_corpus(path=None), record_tokenizer(imported.tokenizer)
    return {
        **describe_world((), "cpu", _PRECISION),
        "command_line": list(request.command_line),
        "imported": {
            "path": str(Path(request.source or "").resolve()),
            "architecture": imported.family.MODEL_TYPE,
            "files": imported.files,
        },
        "corpus": {"path": corpus.path, "sha256": corpus.sha256, "bytes": corpus.n_bytes},
        "tokenizer": tokenizer,
        "config_hash": config_hash(config.values.to_dict(), corpus.sha256, tokenizer["sha256"]),
        "sources": record_sources(config),
        "n_parameters": imported.model.n_parameters,
        "start": _now(),
        "end": _now(),
        "outcome": IMPORTED,
        "reason": None,
    }


def _fine_tuning(config: ResolvedConfig, path: Path) -> str:
    """A configuration that begins with an imported model: what it has to be, and nothing else."""
    flag = shlex.quote(f"--config={path / FINE_TUNING}")
    lines = [f"# python run.py {flag} trains the imported model further"]
    keys = [*model_arguments(config.values), "tokenizer"]
    lines += [f"{key}: {yaml_value(getattr(config.values, key))}" for key in keys]
    lines.append(f"init_from: {yaml_value(str(path.resolve()))}")
    return "\n".join(lines) + "\n"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
