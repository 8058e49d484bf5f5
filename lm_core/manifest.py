"""What a run has to say about the world it ran in."""

import hashlib
import platform
import subprocess
import sys
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

# A checkout on a slow disk must not keep a run from starting.
_GIT_TIMEOUT_SECONDS = 5
_PACKAGES = ("torch", "numpy", "gin-config", "safetensors", "lm_core")


def describe_world(modules: Collection[str] = ()) -> dict[str, Any]:
    """Versions, the state of the project's git checkout, and the numerics fingerprint.

    Two runs of one configuration are equal bit for bit where their fingerprints are.

    Args:
        modules: Modules that the user has allowed, such as one with hooks; they are imported.
    """
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
        },
        "platform": platform.platform(),
        # What the paths in the sources of a configuration are relative to.
        "working_directory": str(Path.cwd()),
        "modules": {name: _sha256_of_module(name) for name in modules},
        "git": _git_state(Path(__file__).resolve().parents[1]),
        "numerics": {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "precision": "float32",
        },
    }


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
