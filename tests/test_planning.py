"""What a run would take, asked for as the command line asks but in this process."""

import json
import re
from dataclasses import replace

import pytest

from lm_core import experiment, planning
from lm_core.config.resolution import resolve
from lm_core.costs import count_parameters, flops_a_step
from lm_core.errors import InputError
from lm_core.record import RunDirectory
from tests.tiny_run import request


def planned(capsys, path, **bindings):
    planning.plan(replace(request(path, **bindings), format="json"))
    return json.loads(capsys.readouterr().out)


def test_a_plan_counts_what_the_run_then_has(tmp_path, capsys):
    plan = planned(capsys, tmp_path, Trainer__max_steps=3)
    experiment.train(request(tmp_path, Trainer__max_steps=3))
    run = RunDirectory.open(tmp_path / "run")
    assert plan["parameters"]["total"] == run.manifest["n_parameters"]
    parts = [n for part, n in plan["parameters"].items() if part != "total"]
    assert sum(parts) == plan["parameters"]["total"]
    assert plan["step"]["tokens"] == 4 * 16
    assert plan["run"]["tokens"] == 3 * 4 * 16
    size = sum(f.stat().st_size for f in (run.checkpoints / "step-00000003").glob("*.safetensors"))
    assert plan["disk"]["checkpoint"] <= size < plan["disk"]["checkpoint"] + 10_000


def test_a_plan_adds_up(tmp_path, capsys):
    plan = planned(
        capsys,
        tmp_path,
        Trainer__max_steps=10,
        Trainer__eval_cadence=3,
        Trainer__sampling_cadence=5,
        Trainer__checkpoint_cadence=2,
        Trainer__keep_checkpoints=None,
    )
    # Evaluations after 3, 6, 9 and 10; samples after 5 and 10; checkpoints after 2, 4, 6, 8, 10,
    # and at evaluations after 3 and 9.
    assert plan["run"]["evaluations"] == 4
    assert plan["run"]["samples"] == 2
    assert plan["disk"]["checkpoints"] == 7
    assert plan["disk"]["total"] == 7 * plan["disk"]["checkpoint"]
    seconds = plan["seconds"]
    total = 10 * seconds["step"] + 4 * seconds["evaluation"] + 2 * seconds["sample"]
    assert seconds["run"] == pytest.approx(total)
    assert min(seconds.values()) > 0
    memory = plan["memory"]
    names = ("program", "weights", "gradients", "optimizer", "activations", "fragments")
    assert memory["total"] == sum(memory[name] for name in names)


@pytest.mark.parametrize(
    ("cadences", "keep", "n_checkpoints"),
    [
        ((None, None), None, 1),
        ((None, 2), None, 1),
        ((4, None), None, 3),
        ((1, 1), None, 10),
        ((20, 20), None, 1),
        # One more is there while it is written, and the best one besides where there may be one.
        ((1, None), 3, 4),
        ((1, 1), 3, 5),
        ((4, None), 3, 3),
    ],
)
def test_the_number_of_checkpoints_is_the_most_there_can_be(
    tmp_path, capsys, cadences, keep, n_checkpoints
):
    checkpoint_cadence, eval_cadence = cadences
    plan = planned(
        capsys,
        tmp_path,
        Trainer__max_steps=10,
        Trainer__eval_cadence=eval_cadence,
        Trainer__checkpoint_cadence=checkpoint_cadence,
        Trainer__keep_checkpoints=keep,
    )
    assert plan["disk"]["checkpoints"] == n_checkpoints


def test_a_plan_tells_both_learning_rates_of_muon(tmp_path, capsys):
    table = {"Trainer__optimizer": "muon", "Trainer__muon_learning_rate": 0.25}
    (*_, last) = planned(capsys, tmp_path, **table)["learning_rate"]
    assert last == {"step": 3, "learning_rate": 3e-4, "muon_learning_rate": 0.25}
    planning.plan(request(tmp_path, **table))
    assert re.search(r"^  of Muon +0\.25 +likewise$", capsys.readouterr().out, re.MULTILINE)


def test_a_plan_knows_of_the_best_checkpoint_of_a_run_that_may_stop_early(tmp_path, capsys):
    table = {"eval_cadence": 2, "early_stopping_evaluations": 2, "checkpoint_cadence": None}
    table = {f"Trainer__{name}": value for name, value in table.items()}
    plan = planned(capsys, tmp_path, Trainer__max_steps=40, Trainer__keep_checkpoints=1, **table)
    assert plan["disk"]["checkpoints"] == 3


@pytest.mark.parametrize("max_steps", [1, 3, 40, 41, 1000])
def test_a_plan_draws_the_learning_rate(tmp_path, capsys, max_steps):
    table = {
        "Trainer__max_steps": max_steps,
        "Trainer__learning_rate": 0.5,
        "Trainer__learning_rate_schedule": "linear",
        "Trainer__min_learning_rate_ratio": 0.0,
        "Trainer__warmup_steps": 1,
    }
    ask = request(tmp_path, **table)
    planning.plan(replace(ask, format="json"))
    points = json.loads(capsys.readouterr().out)["learning_rate"]
    assert points[-1]["step"] == max_steps
    assert 1 <= len(points) <= 40
    for point in points:
        share = (max_steps - point["step"]) / (max_steps - 1) if max_steps > 1 else 1
        assert point["learning_rate"] == pytest.approx(0.5 * share)
    planning.plan(ask)
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("learning rate")]
    assert re.search(r"0\.5 +at most; [▁▂▃▄▅▆▇█]+$", line)


def test_a_plan_is_read_by_people(tmp_path, capsys):
    planning.plan(request(tmp_path))
    printed = capsys.readouterr().out
    for word in ("parameters", "attention", "FLOP", "passes over", "peak of memory", "tokens/s"):
        assert word in printed
    assert "of the built-in corpus" in printed


@pytest.mark.parametrize(
    ("flops", "words"),
    [
        (999, "0.0 MFLOP"),
        (1_250_000, "1.2 MFLOP"),
        (10**9, "1.0 GFLOP"),
        (999_949_000_000, "999.9 GFLOP"),
        (1_234_567 * 10**12, "1,234,567.0 TFLOP"),
    ],
)
def test_arithmetic_is_told_in_a_unit_that_suits_it(tmp_path, capsys, monkeypatch, flops, words):
    monkeypatch.setattr(planning, "flops_a_step", lambda *given: flops)
    planning.plan(request(tmp_path))
    assert f"  {words}  " in capsys.readouterr().out


def test_a_plan_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = request(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    planning.plan(asked)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_does_not_fit_is_planned_and_not_tried(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(planning, "most_memory", lambda: 10**6)
    monkeypatch.setattr(planning, "build_trainer", lambda *given: pytest.fail("it was built"))
    assert planned(capsys, tmp_path)["seconds"] is None
    planning.plan(request(tmp_path))
    assert "it does not fit into the memory of this machine" in capsys.readouterr().out


def test_a_plan_of_a_model_of_billions_takes_no_memory(tmp_path, capsys):
    sizes = {"n_layers": 96, "d_model": 12_288, "n_heads": 96, "d_ff": 49_152}
    plan = planned(capsys, tmp_path, **{f"Transformer__{k}": v for k, v in sizes.items()})
    # GPT-3's size, without its vocabulary: Brown et al. 2020, table 2.1.
    assert 1.73e11 < plan["parameters"]["total"] < 1.75e11
    assert plan["memory"]["weights"] == 4 * plan["parameters"]["total"]
    assert plan["seconds"] is None


def test_hooks_and_samples_are_part_of_what_is_measured(tmp_path, capsys):
    hooks = {"update": [{"name": "clip_gradient_value", "limit": 0.5}]}
    plan = planned(capsys, tmp_path, Trainer__hooks=hooks, Trainer__sampling_cadence=2)
    assert plan["seconds"]["sample"] > 0


def test_all_samples_of_a_step_are_planned_for_one_batch_after_the_other(
    tmp_path, capsys, monkeypatch
):
    written = []

    def counted(self):
        written.append((self.num_samples, self.max_length))

    monkeypatch.setattr(planning.Sampler, "__call__", counted)
    times = iter(range(100))
    monkeypatch.setattr(planning.time, "perf_counter", lambda: next(times))
    settings = {"Trainer__sampling_cadence": 2, "Sampler__num_samples": 65}
    plan = planned(capsys, tmp_path, **settings, Sampler__max_length=40)
    assert written == [(32, 16), (32, 16)]
    assert plan["seconds"]["sample"] == pytest.approx(3 * 40 / 16)
    assert plan["run"]["samples_each_time"] == 65


def test_what_cannot_be_built_is_told_with_its_source(tmp_path):
    prompt = {"Sampler__prompt": "né", "Tokenizer__kind": "char"}
    with pytest.raises(InputError, match=r"--gin_bindings: Sampler.prompt: line 1, column 2"):
        planning.plan(request(tmp_path, **prompt))


def test_the_text_of_the_plan_may_be_any(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("a" * 2000)
    plan = planned(capsys, tmp_path, load_corpus__path=str(tmp_path / "text.txt"))
    assert plan["run"]["passes"] == pytest.approx(3 * 64 / 1900)


def test_costs_in_a_plan_are_those_of_the_configuration(tmp_path, capsys):
    values = resolve(request(tmp_path).config).values
    plan = planned(capsys, tmp_path)
    assert plan["step"]["flops"] == flops_a_step(values, 128)
    assert plan["parameters"]["total"] == count_parameters(values, 128)


def test_a_text_that_is_too_short_is_told(tmp_path):
    (tmp_path / "short.txt").write_text("much too short a text for one window")
    settings = {"load_corpus__path": str(tmp_path / "short.txt"), "split_corpus__train_ratio": 0.01}
    with pytest.raises(InputError, match="the training part of the corpus has 0 tokens"):
        planning.plan(request(tmp_path, **settings))
