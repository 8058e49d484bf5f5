"""The wiring, called as the command line calls it but in this process."""

import json
import re

import pytest
import torch

from lm_core import experiment
from lm_core.config.resolution import Binding, ConfigSources
from lm_core.errors import MachineError
from lm_core.experiment import Request
from lm_core.hooks import ForwardHook, forward_hook
from lm_core.training.trainer import Trainer

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


@forward_hook("test_growing")
class Growing(ForwardHook):
    """Scales activations by the number of training passes it has seen."""

    in_evaluation = True

    def __init__(self):
        self.passes = torch.zeros(())

    def on_activations(self, site, activations, context):
        if context.training:
            self.passes = self.passes + 1
        return activations * (1 + self.passes)

    def state(self):
        return {"passes": self.passes}

    def load_state(self, state):
        self.passes = state["passes"]


def request(path, **bindings):
    table = {name.replace("__", "."): value for name, value in bindings.items()}
    texts = [f"{name} = {value!r}" for name, value in {**TINY, **table}.items()]
    folder = path / "configs"
    folder.mkdir(exist_ok=True)
    (folder / "base.gin").write_text("")
    config = ConfigSources(
        bindings=[Binding("--gin_bindings", text) for text in texts], gin_folders=[folder]
    )
    return Request(config, run_dir=path / "run")


def looking_at(path, corpus=None):
    return Request(ConfigSources(), run_dir=path / "run", corpus=corpus)


def validation_loss(output):
    return re.findall(r"validation loss: (.*)", output)[-1]


def test_evaluation_and_samples_see_what_hooks_remember(tmp_path, capsys):
    hooks = {"forward": [{"name": "test_growing", "sites": "final_norm"}]}
    experiment.train(request(tmp_path, Trainer__hooks=hooks, Trainer__sampling_cadence=3))
    trained = capsys.readouterr().out
    experiment.evaluate(looking_at(tmp_path))
    assert validation_loss(capsys.readouterr().out) == validation_loss(trained)
    experiment.sample(looking_at(tmp_path))
    recorded = json.loads((tmp_path / "run" / "samples.jsonl").read_text())
    assert capsys.readouterr().out == recorded["text"]


def test_a_lack_of_memory_says_what_needs_less(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "train", lambda self, *arguments: torch.empty(10**15))
    with pytest.raises(MachineError, match=r"batch_size need less .*DefaultCPUAllocator"):
        experiment.train(request(tmp_path))


def test_a_text_too_short_to_evaluate_on_says_how_long_it_must_be(tmp_path):
    experiment.train(request(tmp_path))
    (tmp_path / "short.txt").write_text("abc")
    with pytest.raises(ValueError, match=r"short.txt has 3 tokens; one window of .* needs 17"):
        experiment.evaluate(looking_at(tmp_path, str(tmp_path / "short.txt")))
