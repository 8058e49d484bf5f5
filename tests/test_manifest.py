import hashlib
import importlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from lm_core import manifest
from lm_core.manifest import describe_world


def test_the_world_names_versions_and_numerics():
    world = describe_world()
    assert {"python", "torch", "numpy", "numba", "gin-config", "lm_core"} <= set(world["versions"])
    assert set(world["numerics"]) == {
        "torch",
        "numpy",
        "numba",
        "processes",
        "threads",
        "cpu_capability",
        "processor",
        "variables",
        "device",
        "precision",
        "probe",
    }
    assert world["numerics"]["threads"] >= 1
    assert describe_world()["numerics"] == world["numerics"]


def numerics_of_a_process(**environment):
    program = (
        "import json; from lm_core import manifest as m; print(json.dumps(m.describe_world()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)["numerics"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the variables are of x86 processors")
def test_what_makes_a_library_compute_other_bits_is_in_the_fingerprint():
    plain = numerics_of_a_process(MKL_CBWR="AUTO")
    assert plain["variables"]["MKL_CBWR"] == "AUTO"
    other = numerics_of_a_process(MKL_CBWR="AUTO", ATEN_CPU_CAPABILITY="default")
    assert other["cpu_capability"] != plain["cpu_capability"]
    assert other["probe"] != plain["probe"]


def test_a_processor_has_a_name_wherever_it_is_told(tmp_path):
    told = tmp_path / "cpuinfo"
    told.write_text("model name\t: A 9\nstepping\t: 2\nflags: x\n\nmodel name\t: B\n")
    assert manifest.processor(told) == "A 9 2"
    assert manifest.processor(tmp_path / "missing")


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
