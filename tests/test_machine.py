import os
from types import SimpleNamespace

import pytest

from lm_core.machine import (
    control_group_limits,
    keep_freed_memory,
    most_memory,
    set_up_process,
)


@pytest.mark.parametrize(
    ("membership", "files", "limits"),
    [
        ("0::/\n", {"memory.max": "4096\n"}, [4096]),
        ("0::/\n", {"memory.max": "max\n"}, []),
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "99\n"}, [99]),
        ("0::/a\n", {"a/memory.max": "7\n", "b/memory.max": "1\n"}, [7]),
        (
            "5:memory:/job\n2:cpu,cpuacct:/\n",
            {"memory/job/memory.limit_in_bytes": "5\n", "memory/memory.limit_in_bytes": "9\n"},
            [5, 9],
        ),
        ("0::/gone\n", {}, []),
    ],
)
def test_the_limits_of_containers_and_clusters_count(tmp_path, membership, files, limits):
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text)
    found = control_group_limits(tmp_path / "root", tmp_path / "membership")
    assert sorted(found) == sorted(limits)


def test_a_system_without_control_groups_sets_no_limit(tmp_path):
    assert control_group_limits(tmp_path, tmp_path / "membership") == []


def test_the_machine_has_some_memory():
    assert most_memory() > 2**28


def test_freed_memory_is_kept_where_the_c_library_can(monkeypatch):
    asked = []
    library = SimpleNamespace(mallopt=lambda parameter, value: asked.append((parameter, value)))
    monkeypatch.setattr("ctypes.CDLL", lambda name: library)
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    keep_freed_memory()
    assert asked == []
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.36"))
    keep_freed_memory()
    # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h.
    assert [parameter for parameter, _ in asked] == [-1, -3]
    assert len({value for _, value in asked}) == 1


def test_what_the_environment_says_of_threads_stays(monkeypatch):
    monkeypatch.setattr("lm_core.machine.keep_freed_memory", lambda: None)
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    set_up_process()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    set_up_process()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"


@pytest.mark.parametrize(
    ("told", "threads"), [("3", "3"), ("", None), ("0", None), ("2,1", None), ("two", None)]
)
def test_compiled_loops_take_as_many_threads_as_pytorch_is_told_to(monkeypatch, told, threads):
    # Both are put back in the end.
    for name in ("GOMP_SPINCOUNT", "NUMBA_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.delenv("NUMBA_NUM_THREADS")
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    set_up_process()
    assert os.environ.get("NUMBA_NUM_THREADS") == threads
    monkeypatch.setenv("NUMBA_NUM_THREADS", "5")
    set_up_process()
    assert os.environ["NUMBA_NUM_THREADS"] == "5"
