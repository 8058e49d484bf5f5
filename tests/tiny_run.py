"""A run of a moment, asked for as the command line asks, but in this process."""

from lm_core import experiment
from lm_core.config.resolution import Binding, ConfigSources, FileArgument
from lm_core.hooks import UpdateHook, update_hook
from lm_core.request import Request
from tests.config_sources import PROJECT

TINY = {
    "Transformer.n_layers": 1,
    "Transformer.d_model": 16,
    "Transformer.n_heads": 2,
    "Transformer.d_ff": 32,
    "Transformer.max_seq_len": 16,
    "Transformer.dropout": 0.0,
    "Trainer.batch_size": 4,
    "Trainer.max_steps": 3,
}


@update_hook("test_with_a_table")
class WithATable(UpdateHook):
    """Has an option that may hold anything."""

    def __init__(self, table: dict):
        self.table = table


def request(path, resume=False, **bindings):
    """A request for a run in a folder; ``Trainer__max_steps=9`` binds ``Trainer.max_steps``."""
    table = {name.replace("__", "."): value for name, value in bindings.items()}
    texts = [f"{name} = {value!r}" for name, value in {**TINY, **table}.items()]
    folder = path / "configs"
    folder.mkdir(exist_ok=True)
    (folder / "base.gin").write_text("")
    config = ConfigSources(
        bindings=[Binding("--gin_bindings", text) for text in texts], gin_folders=[folder]
    )
    return Request(config, run_dir=path / "run", resume=resume)


def looking_at(path, corpus=None):
    """A request about the run in a folder."""
    return Request(ConfigSources(), run_dir=path / "run", corpus=corpus)


def asked(*files, bindings=(), overrides=None, **fields):
    """A request about files: YAML by --config, gin by --gin_file."""
    flags = {".gin": "--gin_file", ".yaml": "--config"}
    config = ConfigSources(
        files=[FileArgument(flags["." + name.rsplit(".")[-1]], name) for name in files],
        bindings=[Binding("--gin_bindings", text) for text in bindings],
        overrides=overrides,
        yaml_folders=[PROJECT / "configs"],
        gin_folders=[PROJECT / "gin_configs"],
    )
    return Request(config, **fields)


def train(path, monkeypatch, **bindings):
    """A run in a folder, which becomes the working directory."""
    monkeypatch.chdir(path)
    experiment.train(request(path, **bindings))
