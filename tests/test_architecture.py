"""The building: which floor each part stands on, and that nothing reaches upwards."""

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]

# From the ground up. A file may import from its own floor's folder and from lower floors.
FLOORS = [
    ["errors"],
    ["parallel"],
    [
        "output",
        "notebook",
        "randomness",
        "atomic_files",
        "machine",
        "compute",
        "kernels",
        "event_files",
        "extras",
        "followers",
        "token_ids",
    ],
    ["config", "json_lines", "progress", "run_lock", "new_folders"],
    [
        "command_line",
        "data",
        "model",
        "metrics",
        "manifest",
        "record",
        "request",
        "training.cadences",
        "training.adamw",
        "training.averaging",
        "training.divergence",
        "training.muon",
        "training.objective",
        "training.run_state",
        "training.schedule",
        "training.signals",
        "training.tensor_files",
    ],
    [
        "training.reduction",
        "training.shared_signals",
        "tensorboard_events",
        "hooks",
        "costs",
        "training.checkpoint",
        "training.optimizer",
        "evaluation",
        "generation",
        "token_choice",
    ],
    [
        "sampling",
        "training.checkpoint_folder",
        "training.shared_checkpoint",
        "training.trained",
    ],
    [
        "training.looks",
        "training.recorder",
        "training.restoring",
        "training.update",
        "recorded_config",
    ],
    ["training.steps", "results"],
    ["training.trainer", "inspection", "memory", "analysis", "initial_weights"],
    ["resumption", "assembly", "report"],
    ["examination"],
    ["ending"],
    ["experiment", "planning", "search", "exchange", "library"],
    ["reference"],
]
PLACES = {place: floor for floor, places in enumerate(FLOORS) for place in places}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc", "util", "helper"}
LONGEST_FILE = 400
# The one table grows with every hyperparameter, and is read as a table.
ONE_TABLE = PROJECT / "lm_core" / "config" / "hyperparameters.py"


def source_files():
    return sorted((PROJECT / "lm_core").rglob("*.py"))


def module_of(path):
    parts = path.relative_to(PROJECT / "lm_core").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def place_of(module):
    for place in sorted(PLACES, key=len, reverse=True):
        if module == place or module.startswith(f"{place}."):
            return place
    return None


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lm_core"):
            base = node.module.removeprefix("lm_core").removeprefix(".")
            yield from ([base] if base else [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("lm_core."):
                    yield alias.name.removeprefix("lm_core.")


def is_for_types(path, name):
    """Whether a module is imported only where types are checked, and never runs for it."""
    blocks = [
        node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    nodes = [node for block in blocks for node in block.body]
    return f"lm_core.{name}" in [getattr(node, "module", None) for node in nodes]


@pytest.mark.parametrize("path", source_files(), ids=module_of)
def test_a_file_imports_only_from_lower_floors(path):
    module = module_of(path)
    if module in ("", "training", "parallel"):
        assert not [name for name in imported_modules(path) if not is_for_types(path, name)]
        return
    own = place_of(module)
    assert own, f"{module} stands on no floor; give it one in FLOORS"
    for imported in imported_modules(path):
        other = place_of(imported)
        assert other, f"{module} imports lm_core.{imported}, which stands on no floor"
        assert other == own or PLACES[other] < PLACES[own], f"{module} imports {imported}"


@pytest.mark.parametrize("path", source_files(), ids=module_of)
def test_relative_imports_do_not_hide_where_things_come_from(path):
    nodes = ast.walk(ast.parse(path.read_text()))
    assert not [n for n in nodes if isinstance(n, ast.ImportFrom) and n.level]


def test_every_name_says_what_it_holds():
    names = {path.stem for path in source_files()} | {path.parent.name for path in source_files()}
    assert not names & FORBIDDEN_NAMES


def test_every_floor_is_inhabited():
    inhabited = {place_of(module_of(path)) for path in source_files()}
    assert set(PLACES) <= inhabited


def test_files_hold_one_thing():
    files = [*source_files(), *(PROJECT / "tests").rglob("*.py"), PROJECT / "run.py"]
    long = [path for path in files if len(path.read_text().splitlines()) > LONGEST_FILE]
    assert set(long) <= {ONE_TABLE}


def test_the_entry_point_holds_flags_and_no_logic():
    text = (PROJECT / "run.py").read_text()
    assert "import torch" not in text
    assert "import gin" not in text
