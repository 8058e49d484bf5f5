import hashlib
import importlib
import subprocess
from pathlib import Path

from lm_core import manifest
from lm_core.manifest import describe_world


def test_the_world_names_versions_and_numerics():
    world = describe_world()
    assert {"python", "torch", "numpy", "gin-config", "lm_core"} <= set(world["versions"])
    assert set(world["numerics"]) == {"torch", "threads", "cpu_capability", "precision"}
    assert world["numerics"]["threads"] >= 1


def test_the_world_names_the_code_of_modules_that_the_user_brings(tmp_path, monkeypatch):
    (tmp_path / "test_brought.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("test_brought")
    world = describe_world(["test_brought", "sys"])
    assert world["modules"] == {
        "test_brought": hashlib.sha256(b"x = 1\n").hexdigest(),
        "sys": None,
    }
    assert world["working_directory"] == str(Path.cwd())


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
