"""What the documentation shows is what happens."""

import re
import shlex

import pytest

from lm_core.config.hyperparameters import KEYS
from lm_core.config.table import gin_parameter
from lm_core.hooks.registry import _FORWARD_HOOKS, _UPDATE_HOOKS
from lm_core.model.transformer import Transformer
from tests.end_to_end.command_line import PROJECT, run

PAGES = ["README.md", "configs/README.md", "docs/hooks.md"]


def blocks(page):
    """The fenced blocks of a page: language and lines."""
    text = (PROJECT / page).read_text()
    return [
        (language, body.splitlines())
        for language, body in re.findall(r"```(\w*)\n(.*?)```", text, re.S)
    ]


def commands(page):
    """The commands of a page that run the program, as lists of arguments."""
    lines = [line for language, body in blocks(page) if not language for line in body]
    runs = [line.split("#")[0] for line in lines if line.startswith("python run.py")]
    return [shlex.split(line)[2:] for line in runs]


def shortened(arguments):
    """The same command for a few steps, where it trains: what is shown is that it works."""
    if "--mode=evaluate" in arguments or "--mode=sample" in arguments:
        return arguments
    kept = [a for a in arguments if not a.startswith("--max_steps")]
    given = [int(a.split("=")[1]) for a in arguments if a.startswith("--max_steps")]
    return [
        *kept,
        f"--max_steps={min([2, *given]) if '--resume' not in arguments else given[0] // 50}",
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with the files that the pages speak of."""
    folder = tmp_path_factory.mktemp("newcomer")
    (folder / "my-text.txt").write_text("Über allen Gipfeln ist Ruh. " * 300, encoding="utf-8")
    (folder / "my.yaml").write_text("\n".join(yaml_example("README.md")))
    (folder / "path" / "to").mkdir(parents=True)
    (folder / "path" / "to" / "my.yaml").write_text("d_ff: 32\n")
    (folder / "my_hooks.py").write_text("\n".join(python_example()))
    return folder


def yaml_example(page):
    (example,) = [body for language, body in blocks(page) if language == "yaml"]
    return example


def python_example():
    (example,) = [body for language, body in blocks("docs/hooks.md") if language == "python"]
    return example


def test_every_command_of_the_readme_works_in_its_order(folder):
    found = commands("README.md")
    assert len(found) >= 9
    run("--config=fast-training.yaml", "--max_steps=2", cwd=folder, check=0)
    for arguments in found:
        run(*shortened(arguments), cwd=folder, check=0)


def test_every_command_about_configurations_works(folder):
    assert len(commands("configs/README.md")) == 2
    for arguments in commands("configs/README.md"):
        run(*shortened(arguments), cwd=folder, check=0)


def test_every_command_about_hooks_works_with_the_example_on_the_page(folder):
    assert len(commands("docs/hooks.md")) == 2
    for number, arguments in enumerate(commands("docs/hooks.md")):
        run(*shortened(arguments), f"--run_dir=hooks-{number}", cwd=folder, check=0)
    metrics = (folder / "hooks-1" / "metrics.jsonl").read_text()
    assert "clamped/blocks.0.mlp" in metrics


def test_the_table_of_hooks_in_yaml_works(folder):
    (folder / "hooks.yaml").write_text("\n".join(yaml_example("docs/hooks.md")))
    arguments = ["--config=fast-training.yaml", "--config=hooks.yaml", "--run_dir=from-yaml"]
    run(*arguments, "--max_steps=2", cwd=folder, check=0)


def test_the_messages_of_the_readme_are_the_real_ones(folder):
    (example,) = [
        body for _, body in blocks("README.md") if any("error: " in line for line in body)
    ]
    arguments = shlex.split(example[0].removeprefix("$ "))[2:]
    assert run(*arguments, cwd=folder, check=2).stderr.splitlines() == example[1:]


def test_the_messages_about_configurations_are_the_real_ones(folder):
    (example,) = [body for _, body in blocks("configs/README.md") if "error: " in body[1]]
    wrong = folder / "wrong"
    wrong.mkdir()
    (wrong / "my.yaml").write_text("n_layers: 6\nn_head: 2\ndropout: 1.5\n")
    arguments = shlex.split(example[0].removeprefix("$ "))[2:]
    assert run(*arguments, cwd=wrong, check=2).stderr.splitlines() == example[1:]


def test_the_two_commands_stand_in_the_readme_word_for_word():
    text = (PROJECT / "README.md").read_text()
    install = "python -m pip install -c constraints.txt -e"
    assert f"{install} . && python run.py --config=fast-training.yaml\n" in text
    assert f"{install} '.[test]' && pytest\n" in text


def test_the_readme_lists_every_flag(folder):
    listed = set(re.findall(r"^\| `--(\w+)`", (PROJECT / "README.md").read_text(), re.M))
    shown = set(re.findall(r"^  --(\w+):", run("--help", cwd=folder, check=0).stdout, re.M))
    assert listed == shown


def test_the_page_on_hooks_lists_every_hook_and_site():
    text = (PROJECT / "docs" / "hooks.md").read_text()
    ready = [
        name
        for name, hook in [*_FORWARD_HOOKS.items(), *_UPDATE_HOOKS.items()]
        if hook.__module__ == "lm_core.hooks.builtin"
    ]
    assert len(ready) == 8
    assert all(f"| `{name}` |" in text for name in ready)
    for name in Transformer(5, 1, 4, 1, 4).sites.names():
        assert f"| `{name.replace('.0', '.N')}` |" in text


def test_the_default_configuration_explains_every_key_and_names_its_gin_parameter():
    lines = (PROJECT / "configs" / "default.yaml").read_text().splitlines()
    for key in KEYS:
        (number,) = [i for i, line in enumerate(lines) if line.startswith(f"{key}:")]
        assert lines[number].endswith(f"# {gin_parameter(key)}")
        assert lines[number - 1].startswith("# ")


def test_pages_link_to_files_that_exist():
    for page in [*PAGES, "docs/architecture.md"]:
        path = PROJECT / page
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{page}: {target}"


@pytest.mark.exhaustive
def test_the_main_job_learns_what_the_readme_says(tmp_path):
    done = run(
        "--config=fast-training.yaml", "--gin.Trainer.seed=7", cwd=tmp_path, check=0, timeout=900
    )
    (loss,) = re.findall(r"final validation loss: (\d\.\d+) nats", done.stdout)
    (documented,) = re.findall(
        r"final validation loss: (\d\.\d+) nats", (PROJECT / "README.md").read_text()
    )
    # Other processors round otherwise, and other Pythons have another text.
    assert abs(float(loss) - float(documented)) < 0.1
