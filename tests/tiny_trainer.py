"""A trainer that learns a sentence in a moment, and what it leaves behind."""

import json
import math

import torch

from benchmarks import stateful_hooks  # noqa: F401 -- makes its hooks known
from lm_core.data.tokenizer import ByteTokenizer
from lm_core.evaluation import Evaluator
from lm_core.hooks import ForwardHook, forward_hook
from lm_core.model.transformer import Transformer
from lm_core.parallel.group import Group
from lm_core.record import RunDirectory
from lm_core.sampling import Sampler
from lm_core.training.checkpoint_folder import list_checkpoints
from lm_core.training.objective import Loss
from lm_core.training.optimizer import OptimizerSettings, build_optimizer
from lm_core.training.trainer import Trainer

TEXT = "the quick brown fox jumps over the lazy dog. " * 30


TOKENIZER = ByteTokenizer()


ALONE = Group()


TOKENS = TOKENIZER.encode(TEXT)


SIZES = {"n_layers": 2, "d_model": 16, "n_heads": 2, "d_ff": 32, "max_seq_len": 8}


# The arguments of a model that ``build`` hands on.
CHOICES = (
    "position",
    "norm",
    "activation",
    "qk_norm",
    "tie_embeddings",
    "bias",
    "logit_softcap",
)


HOOKS = {
    "forward": [
        {"name": "activation_noise", "std": 0.01, "sites": "embedding"},
        {"name": "activation_stats", "every": 3, "sites": "final_norm"},
        {"name": "test_mean_everywhere", "sites": "final_norm"},
        {"name": "faults_counts_looks", "sites": "embedding"},
    ],
    "update": [
        {"name": "gradient_noise", "std": 0.001},
        {"name": "faults_running_mean"},
        {"name": "identity"},
    ],
}


@forward_hook("test_mean_everywhere")
class MeanEverywhere(ForwardHook):
    """Reports in training, evaluation and sampling alike."""

    in_evaluation = True

    def on_activations(self, site, activations, context):
        self.report(f"mean/{site.name}", activations.mean())


def optimizer_of(model, name="adamw", dtype=torch.float32, **settings):
    defaults = {
        "learning_rate": 1e-3,
        "weight_decay": 0.1,
        "beta1": 0.9,
        "beta2": 0.95,
        "muon_learning_rate": 0.02,
        "muon_momentum": 0.95,
    }
    return build_optimizer(model, OptimizerSettings(name, **defaults | settings), dtype)


# A trainer of choices that are far from the defaults.
MODERN = {
    "position": "rope",
    "norm": "rmsnorm",
    "activation": "swiglu",
    "qk_norm": True,
    "tie_embeddings": False,
    "bias": False,
    "logit_softcap": 5.0,
    "optimizer": "muon",
    "learning_rate_schedule": "cosine",
    "warmup_steps": 3,
    "decay_steps": 10,
    "max_grad_norm": 1.0,
    "accumulation_steps": 2,
    "ema_decay": 0.8,
    "label_smoothing": 0.1,
    "z_loss": 1e-4,
    "data_order": "shuffled",
}


def build(dropout=0.1, with_parts=True, group=ALONE, **settings):
    choices = {name: settings.pop(name) for name in CHOICES if name in settings}
    model = Transformer(TOKENIZER.vocab_size, **SIZES, dropout=dropout, seed=4, **choices)
    precision = settings.get("precision", "float32")
    held_out = TOKENS[-100:], TOKENIZER, precision, group
    evaluate = Evaluator(model, *held_out) if with_parts else None
    sample = Sampler(model, TOKENIZER, prompt="the", max_length=5) if with_parts else None
    defaults = {"seed": 4, "batch_size": 4, "max_steps": 6, "learning_rate": 1e-3}
    parts = model, TOKENS[:-100], evaluate, sample, TOKENIZER
    return Trainer(*parts, group=group, **{**defaults, **settings})


def poisoned(trainer, *steps, value=math.nan):
    """The trainer with losses that are not finite in these steps."""
    update = trainer._steps._update
    loss_of = update._loss

    def poisoned_loss(inputs, targets, key):
        loss = loss_of(inputs, targets, key)
        return Loss(*(part * value for part in loss)) if key.step in steps else loss

    update._loss = poisoned_loss
    return trainer


class Shown:
    """Progress for nobody, which remembers what it was told."""

    def __init__(self):
        self.steps, self.notes, self.seconds_of_looks = [], [], []

    def update(self, step, loss, tokens_per_second, seconds_of_looks=0.0):
        self.steps.append(step)
        self.seconds_of_looks.append(seconds_of_looks)

    def note(self, text):
        self.notes.append(text)


def new_run(path):
    return RunDirectory.create(path, "", "", {"corpus": {"sha256": ""}})


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_speed(path):
    return [{k: v for k, v in row.items() if k != "tokens_per_second"} for row in rows(path)]


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def saved_steps(run):
    return [step for step, _ in list_checkpoints(run.checkpoints)]
