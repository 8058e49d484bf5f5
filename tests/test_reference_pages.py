import shutil
import subprocess
import sys

import pytest

from lm_core.config.hyperparameters import KEYS
from lm_core.reference import __main__ as command
from lm_core.reference.pages import configuration, expected, page
from lm_core.reference.tables import PROJECT, comment_lines, value_line


@pytest.mark.parametrize(
    ("path", "text"), list(expected(PROJECT)), ids=lambda given: getattr(given, "name", "")
)
def test_what_is_made_from_the_code_is_up_to_date(path, text):
    assert path.read_text() == text, "python -m lm_core.reference brings it up to date"


def test_a_stale_part_of_a_page_is_made_anew_and_the_rest_stays():
    stale = "before\n<!-- generated: counts -->\nold\n<!-- end -->\nafter\n"
    fresh = page(stale)
    assert fresh.startswith("before\n<!-- generated: counts -->\n")
    assert fresh.endswith("<!-- end -->\nafter\n")
    assert f"- {len(KEYS)} hyperparameters" in fresh
    assert "old" not in fresh
    assert page(fresh) == fresh


def test_the_comments_of_a_configuration_are_made_anew_and_its_own_words_stay():
    stale = "# head\n\n# --- Training ---\n# old\n# Here: because.\n#   Really.\nbeta1: 0.8\n"
    assert configuration(stale).splitlines() == [
        "# head",
        "",
        "# --- Training ---",
        *comment_lines("beta1"),
        "# Here: because.",
        "#   Really.",
        value_line("beta1", "0.8"),
    ]
    assert configuration(configuration(stale)) == configuration(stale)


def test_the_command_names_and_mends_what_is_stale(tmp_path, monkeypatch, capsys):
    for name in ("README.md", "configs", "docs", "lm_core", "run.py"):
        source = PROJECT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    monkeypatch.setattr(command, "PROJECT", tmp_path)
    readme = tmp_path / "README.md"
    good = readme.read_text()
    readme.write_text(good.replace("| `n_layers` |", "| `n_lairs` |"))
    (tmp_path / "configs" / "schema.json").unlink()
    assert command.main(["--check"]) == 1
    assert capsys.readouterr().out == "README.md is stale\nconfigs/schema.json is stale\n"
    assert command.main([]) == 0
    assert command.main(["--check"]) == 0
    assert readme.read_text() == good
    assert command.main(["--nope"]) == 2


def test_the_command_runs_as_a_module():
    words = [sys.executable, "-m", "lm_core.reference", "--check"]
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
