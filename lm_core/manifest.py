"""What a run has to say about the world it ran in."""

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from lm_core.parallel.group import Group
from lm_core.randomness import keyed_generator

# A process without others.
_ALONE = Group()
# A checkout on a slow disk must not keep a run from starting.
_GIT_TIMEOUT_SECONDS = 5
_PACKAGES = ("torch", "numpy", "numba", "gin-config", "safetensors", "tokenizers", "lm_core")
# Environment variables by which MKL and oneDNN, which PyTorch computes with, choose other
# instructions, and so other bits: https://www.intel.com/content/www/us/en/docs/onemkl and
# https://uxlfoundation.github.io/oneDNN, "CPU Dispatcher Control".
_VARIABLES = (
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
)
# What Linux tells of a processor; names alone are shared by many.
_CPU_FIELDS = ("model name", "cpu family", "model", "stepping")
# The probe multiplies matrices of this shape: large enough for all threads and vectors, and done
# in some milliseconds.
_PROBE_SHAPE = (256, 256)
# Any number will do, as long as it is always the same one.
_PROBE_SEED = 0
# 64 bits in hexadecimal: no two machines that differ share them by chance.
_PROBE_DIGITS = 16


def describe_world(
    modules: Collection[str] = (),
    device: str = "cpu",
    precision: str = "float32",
    group: Group = _ALONE,
    is_exact: bool = False,
) -> dict[str, Any]:
    """Versions, the state of the project's git checkout, and the numerics fingerprint.

    Two runs of one configuration are equal bit for bit where their fingerprints are.

    Args:
        modules: Modules that the user has allowed, such as one with hooks; they are imported.
        device: Where the model is.
        precision: What its matrix products are computed in.
        group: The processes that train it together.
        is_exact: Whether their number makes no difference to the bits, nor that of threads.
    """
    return {
        "processes": group.n_processes,
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
        },
        "platform": platform.platform(),
        # What the paths in the sources of a configuration are relative to.
        "working_directory": str(Path.cwd()),
        "modules": {name: _sha256_of_module(name) for name in modules},
        "git": _git_state(Path(__file__).resolve().parents[1]),
        "numerics": _numerics(device, precision) | _of_sums(group, is_exact),
    }


def _of_sums(group: Group, is_exact: bool) -> dict[str, Any]:
    """How sums are divided, which decides about their last bits.

    Where they are exact, there is one thread, and the number of processes makes no difference.
    """
    n_threads = torch.get_num_threads()
    return {"threads": n_threads} | ({} if is_exact else {"processes": group.n_processes})


def _numerics(device: str, precision: str) -> dict[str, Any]:
    """The fingerprint: what decides about the last bits of a result."""
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "numba": _version("numba"),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "processor": processor(),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "device": _device_name(device),
        "precision": precision,
        "probe": _probe(),
    }


def _device_name(device: str) -> str:
    """The kind of device, and of a CUDA device the name."""
    return f"{device}, {torch.cuda.get_device_name()}" if device == "cuda" else device


def processor(information: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, and on Linux its family, model and stepping."""
    try:
        first = information.read_text().split("\n\n")[0]
        fields = dict(line.split(":", 1) for line in first.splitlines() if ":" in line)
        fields = {name.strip(): value.strip() for name, value in fields.items()}
        known = [fields[name] for name in _CPU_FIELDS if name in fields]
    except (OSError, ValueError):
        known = []
    return " ".join(known) or platform.processor() or platform.machine()


def _probe() -> str:
    """A digest of the bits of a small computation by PyTorch, forward and backward.

    It tells machines apart that go by the same names, and what no name stands for. Compiled loops
    are not in it: they would first have to be compiled, and follow from Numba and the processor.
    """
    generator = keyed_generator(_PROBE_SEED, "initialisation")
    x = torch.from_numpy(generator.standard_normal(_PROBE_SHAPE)).float()
    w = torch.from_numpy(generator.standard_normal(_PROBE_SHAPE)).float().requires_grad_()
    y = F.layer_norm(F.gelu(x @ w), _PROBE_SHAPE[-1:])
    y = F.scaled_dot_product_attention(y[None], x[None], y[None], is_causal=True)[0]
    loss = F.cross_entropy(y @ w, torch.arange(len(x)))
    loss.backward()
    digest = hashlib.sha256(y.detach().numpy().tobytes())
    digest.update(w.grad.numpy().tobytes())
    return digest.hexdigest()[:_PROBE_DIGITS]


def _sha256_of_module(name: str) -> str | None:
    """SHA-256 of a module's file; None for a module that is none."""
    file = getattr(sys.modules.get(name), "__file__", None)
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None
    except OSError:
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_state(project: Path) -> dict[str, Any] | None:
    """Commit and dirtiness of the checkout the lab runs from; None where it is no checkout."""
    if not (project / ".git").exists():
        return None
    commit = _git(project, "rev-parse", "HEAD")
    changes = _git(project, "status", "--porcelain")
    if commit is None or changes is None:
        return None
    return {"commit": commit.strip(), "dirty": bool(changes.strip())}


def _git(project: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(project), *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
