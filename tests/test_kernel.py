"""Functions that are compiled: when, and what becomes of what was compiled before."""

import importlib.util
import shutil
from pathlib import Path

import numba
import numpy as np
import pytest
import torch

from lm_core.kernels import kernel as module
from lm_core.kernels.kernel import Kernel, kernel, kernels_of_types

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
    monkeypatch.setattr(module, "_SOURCES", "0" * 12)
    assert load()(2) == 4
    assert len(kept(tmp_path)) == 2


def test_the_digest_is_one_of_all_files_of_the_folder():
    folder = Path(module.__file__).parent
    digest = module._digest_of_sources
    before = digest()
    assert before == digest()
    assert len(before) == 12
    assert (folder / "tiles.py").is_file()


def test_a_change_in_any_file_of_the_folder_changes_the_digest(tmp_path, monkeypatch):
    shutil.copytree(Path(module.__file__).parent, tmp_path / "kernels")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "kernels" / "kernel.py"))
    digest = module._digest_of_sources
    before = digest()
    with (tmp_path / "kernels" / "tiles.py").open("a") as file:
        file.write("# changed\n")
    assert digest() != before


@pytest.mark.parametrize("setting", ["CPU_FEATURES", "BOUNDSCHECK", "OPT"])
def test_another_setting_of_numba_changes_the_digest(setting, monkeypatch):
    before = module._digest_of_sources()
    monkeypatch.setattr(module.numba.config, setting, "another")
    assert module._digest_of_sources() != before


def in_the_middle(data):
    return data[: len(data) // 2] + bytes(64) + data[len(data) // 2 + 64 :]


@pytest.mark.parametrize("suffix", ["nbi", "nbc", "json"])
@pytest.mark.parametrize(
    "damage", [lambda data: b"\x80garbage", in_the_middle, lambda data: data[:-9], lambda data: b""]
)
def test_damage_to_what_is_kept_is_noticed_and_mended(load, tmp_path, monkeypatch, suffix, damage):
    load()(1)
    (path,) = (tmp_path / "kept").rglob(f"*.{suffix}")
    path.write_bytes(damage(path.read_bytes()))
    assert load()(3) == 6
    double = load()
    monkeypatch.setattr(numba.core.compiler, "compile_extra", None)
    assert double(4) == 8


def test_what_was_kept_without_its_checksums_is_made_anew(load, tmp_path):
    load()(1)
    for path in (tmp_path / "kept").rglob("*.json"):
        path.unlink()
    (kept_code,) = kept(tmp_path)
    kept_code.write_bytes(b"")
    assert load()(3) == 6
    assert kept_code.stat().st_size > 0


def test_the_sources_that_count_are_those_that_were_imported(load, monkeypatch):
    double = load()
    monkeypatch.setattr(module, "__file__", "/nowhere/kernel.py")
    assert double(2) == 4
    assert module._SOURCES in double._function.__qualname__


# What asks for the number of threads cannot be kept.
@pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaWarning")
def test_pytorch_keeps_its_number_of_threads():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)

        @kernel("void(int64[:])", parallel=True)
        def fill(x):
            for i in numba.prange(len(x)):
                x[i] = numba.get_num_threads()

        numbers = np.zeros(10, np.int64)
        fill(numbers)
        assert torch.get_num_threads() == 1
        assert (numbers == 1).all()
    finally:
        torch.set_num_threads(before)
        numba.set_num_threads(min(before, numba.config.NUMBA_NUM_THREADS))


def add_product(x, y, z, total):
    for i in range(len(x)):
        total[i] = x[i] * y[i] + z[i]


@pytest.mark.parametrize("exact", [False, True])
def test_what_is_exact_rounds_each_operation(exact):
    """By as much as the product of two numbers that one rounding would lose."""
    signature = "void(float32[::1], float32[::1], float32[::1], float32[::1])"
    x = np.full(64, 1 + 2.0**-12, np.float32)
    z, total = np.full(64, -1 - 2.0**-11, np.float32), np.empty(64, np.float32)
    Kernel(add_product, signature, parallel=False, exact=exact)(x, x, z, total)
    possible = {0.0} if exact else {0.0, 2.0**-24}
    assert set(total.tolist()) <= possible


def twice(x, y):
    for i in numba.prange(len(x)):
        y[i] = 2 * x[i]


def test_what_is_kept_of_a_function_is_another_list_for_each_type(load, tmp_path):
    """Two processes that compile for two types at once write no list that is wrong for both."""
    load()(1)
    load(SOURCE.replace("int64(int64)", "float64(float64)"))(1.5)
    assert len(list((tmp_path / "kept").rglob("*.nbi"))) == 2


def test_there_is_a_kernel_for_each_type_of_memory():
    kernels = kernels_of_types(twice, "void({0}[::1], {1}[::1])")
    assert list(kernels) == ["float32", "float64"]
    for name, twice_of_type in kernels.items():
        y = np.empty(2, name)
        twice_of_type(np.array([1, 0.1], name), y)
        assert y.tolist() == [2, 2 * y.dtype.type(0.1)]
    both = kernels_of_types(twice, "void({0}[::1], {1}[::1])", bfloat16=True)["bfloat16"]
    numbers = np.empty(2, np.float32)
    both(np.array([3, 4], np.uint16), numbers)
    assert numbers.tolist() == [6, 8]


def test_without_a_place_to_keep_it_it_is_compiled_each_time(load, tmp_path):
    (tmp_path / "kept").write_text("a file where the folder would be")
    assert load()(3) == 6


def test_a_mistake_in_a_kernel_is_told():
    @kernel("int64(int64)")
    def wrong(x):
        return x + object()

    with pytest.raises(numba.core.errors.NumbaError):
        wrong(1)


@pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaWarning")
def test_the_work_is_divided_among_the_threads():
    @kernel("void(int64[:], int64[:])", parallel=True)
    def count(x, threads):
        for i in numba.prange(len(x)):
            x[i], threads[i] = i, numba.get_thread_id()

    numbers, threads = np.zeros((2, 1000), np.int64)
    count(numbers, threads)
    assert (numbers == range(1000)).all()
    assert len(set(threads)) == numba.get_num_threads()
