import json

import pytest

from lm_core import experiment, record
from tests.tiny_run import request


def train(path, max_steps, resume=True):
    experiment.train(request(path, resume=resume, Trainer__max_steps=max_steps))


def manifest(path):
    return json.loads((path / "run" / "manifest.json").read_text())


def max_steps_of(path):
    texts = [(path / "run" / name).read_text() for name in ("config.yaml", "config.gin")]
    return [int(text.split("max_steps", 1)[1].lstrip(": =").split(maxsplit=1)[0]) for text in texts]


@pytest.mark.parametrize("name", ["config.yaml", "config.gin"])
def test_after_a_kill_between_the_two_forms_of_the_record_they_agree_again(
    tmp_path, monkeypatch, name
):
    train(tmp_path, 2)
    replace_file = record.replace_file

    def killed(path, data):
        if path.name == name:
            raise KeyboardInterrupt
        replace_file(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(record, "replace_file", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, 3)
    train(tmp_path, 3)
    assert max_steps_of(tmp_path) == [3, 3]


def test_a_resume_that_changes_nothing_keeps_the_sources_in_the_record(tmp_path):
    train(tmp_path, 2)
    before = (tmp_path / "run" / "config.gin").read_bytes()
    assert b"# --gin_bindings" in before
    train(tmp_path, 2)
    assert (tmp_path / "run" / "config.gin").read_bytes() == before


def test_the_history_keeps_how_every_earlier_attempt_ended(tmp_path, monkeypatch):
    def interrupted(self, rows):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(record.RunDirectory, "append_metrics", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, 2)
    train(tmp_path, 2)
    train(tmp_path, 3)
    now = manifest(tmp_path)
    first, second = now["resumed"]
    assert first["before"]["outcome"] == "stopped at once"
    assert second["before"]["outcome"] == now["outcome"] == "completed"
    assert (second["step"], second["before"]["last_step"], now["last_step"]) == (2, 2, 3)
    assert None not in (first["before"]["end"], second["before"]["end"], now["end"])
    assert not {"outcome", "end", "last_step"} & (set(first) | set(second))
    assert now["start"] <= first["start"] <= second["start"] <= now["end"]
