"""Functions that are compiled: when, and what becomes of what was compiled before."""

import importlib.util
import shutil
from pathlib import Path

import numba
import numpy as np
import pytest

from lm_core.kernels import kernel as module
from lm_core.kernels.kernel import kernel

SOURCE = '''
from lm_core.kernels.kernel import kernel

@kernel("int64(int64)")
def double(x):
    """Twice x."""
    return 2 * x
'''


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads a file with one kernel anew, with what is kept of it in a folder of the test."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "kept"))

    def loaded(source=SOURCE):
        path = tmp_path / "a_kernel.py"
        path.write_text(source)
        specification = importlib.util.spec_from_file_location("a_kernel", path)
        loaded = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(loaded)
        return loaded.double

    return loaded


def kept(tmp_path):
    return sorted((tmp_path / "kept").rglob("*.nbc"))


def test_it_is_compiled_when_it_is_first_called_and_kept(load, tmp_path):
    double = load()
    assert double.__doc__ == "Twice x."
    assert not kept(tmp_path)
    assert double(21) == 42
    assert len(kept(tmp_path)) == 1


def test_what_is_kept_is_taken_again_and_not_compiled(load, tmp_path, monkeypatch):
    load()(1)
    before = kept(tmp_path)[0].stat().st_mtime_ns
    double = load()
    monkeypatch.setattr(numba.core.compiler, "compile_extra", None)
    assert double(4) == 8
    assert kept(tmp_path)[0].stat().st_mtime_ns == before


def test_other_sources_of_any_kernel_compile_all_anew(load, tmp_path, monkeypatch):
    load()(1)
    monkeypatch.setattr(module, "_digest_of_sources", lambda: "0" * 12)
    assert load()(2) == 4
    assert len(kept(tmp_path)) == 2


def test_the_digest_is_one_of_all_files_of_the_folder():
    folder = Path(module.__file__).parent
    digest = module._digest_of_sources.__wrapped__
    before = digest()
    assert before == digest()
    assert len(before) == 12
    assert (folder / "tiles.py").is_file()


def test_a_change_in_any_file_of_the_folder_changes_the_digest(tmp_path, monkeypatch):
    shutil.copytree(Path(module.__file__).parent, tmp_path / "kernels")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "kernels" / "kernel.py"))
    digest = module._digest_of_sources.__wrapped__
    before = digest()
    with (tmp_path / "kernels" / "tiles.py").open("a") as file:
        file.write("# changed\n")
    assert digest() != before


@pytest.mark.parametrize("suffix", ["*.nbi", "*.nbc"])
def test_damage_to_what_is_kept_is_no_harm(load, tmp_path, suffix):
    load()(1)
    for path in (tmp_path / "kept").rglob(suffix):
        path.write_bytes(b"\x80garbage")
    assert load()(3) == 6


def test_without_a_place_to_keep_it_it_is_compiled_each_time(load, tmp_path):
    (tmp_path / "kept").write_text("a file where the folder would be")
    assert load()(3) == 6


def test_a_mistake_in_a_kernel_is_told():
    @kernel("int64(int64)")
    def wrong(x):
        return x + object()

    with pytest.raises(numba.core.errors.NumbaError):
        wrong(1)


def test_what_divides_its_work_finds_the_same():
    @kernel("void(int64[:])", parallel=True)
    def count(x):
        for i in numba.prange(len(x)):
            x[i] = i

    numbers = np.zeros(1000, np.int64)
    count(numbers)
    assert (numbers == range(1000)).all()
