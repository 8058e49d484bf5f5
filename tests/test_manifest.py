import subprocess

from hypothesis import given
from hypothesis import strategies as st

from lm_core import manifest
from lm_core.config.hyperparameters import TrainingConfig
from lm_core.manifest import config_hash, describe_world

TABLE = TrainingConfig().model_dump()


def test_the_world_names_versions_and_numerics():
    world = describe_world()
    assert {"python", "torch", "numpy", "gin-config", "lm_core"} <= set(world["versions"])
    assert set(world["numerics"]) == {"torch", "threads", "cpu_capability", "precision"}
    assert world["numerics"]["threads"] >= 1


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_commit_and_dirtiness_are_those_of_the_checkout(tmp_path):
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "x")
    state = manifest._git_state(tmp_path)
    assert len(state["commit"]) == 40
    assert state["dirty"] is False
    (tmp_path / "new").write_text("x")
    assert manifest._git_state(tmp_path)["dirty"] is True


def test_another_projects_checkout_around_an_installation_is_not_ours(tmp_path):
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "x")
    (tmp_path / "site-packages").mkdir()
    assert manifest._git_state(tmp_path / "site-packages") is None


def test_without_git_the_state_is_unknown_and_nothing_fails(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", "")
    assert manifest._git_state(tmp_path) is None


def test_the_hash_ignores_where_the_corpus_lies_but_not_what_it_says():
    here, there = {**TABLE, "corpus": "/here"}, {**TABLE, "corpus": "/there"}
    assert config_hash(here, "abc") == config_hash(there, "abc")
    assert config_hash(here, "abc") != config_hash(here, "abd")


@given(st.sampled_from(["n_layers", "learning_rate", "sampling_prompt", "seed"]))
def test_the_hash_sees_every_other_value(key):
    changed = {**TABLE, key: 77}
    assert config_hash(changed, "abc") != config_hash(TABLE, "abc")


def test_the_hash_does_not_depend_on_the_order_of_keys():
    assert config_hash(dict(reversed(TABLE.items())), "abc") == config_hash(TABLE, "abc")
