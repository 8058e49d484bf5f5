"""What the documentation shows is what happens."""

import re
import shlex
import shutil
import subprocess
import sys

import pytest
import torch

from lm_core.compute import chosen_precision
from lm_core.config.hyperparameters import KEYS
from lm_core.config.table import gin_parameter
from lm_core.hooks.registry import known_hooks, options_of
from lm_core.model.transformer import Transformer
from lm_core.run_lock import RunLock
from tests.config_sources import plain_yaml
from tests.end_to_end.command_line import PROJECT, run
from tests.pages import (
    PAGES,
    beginning,
    blocks,
    clone,
    commands,
    files,
    program,
    shortened,
    shown,
    subject,
    text_of,
    trainings,
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project, as a newcomer has it, with the files that the pages show."""
    folder = tmp_path_factory.mktemp("newcomer") / "lm_core"
    folder.mkdir()
    return clone(folder)


@pytest.fixture
def main(project, monkeypatch, capsys):
    """Runs the program in the newcomer's folder, in this process."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    main_of_copy = program(project)
    return lambda arguments: main_of_copy(arguments, capsys)


def test_every_command_of_the_readme_works_in_its_order(main):
    found = commands("README.md")
    assert len(found) >= 20
    assert main(["--config=fast-training.yaml", "--max_steps=2"])[0] == 0
    # A study takes minutes; tests/end_to_end/test_searching.py has small ones.
    for arguments in (words for words in found if "--mode=search" not in words):
        code, _, errors = main(shortened(arguments))
        assert code == 0, (arguments, errors)


@pytest.mark.parametrize("page", ["configs/README.md"])
def test_every_command_about_configurations_works(main, page):
    assert len(commands(page)) == 6
    for arguments in commands(page):
        code, _, errors = main(shortened(arguments))
        assert code == 0, (arguments, errors)


SHOWN = [(page, *example) for page in PAGES for example in shown(page)]


@pytest.mark.parametrize(
    ("page", "arguments", "lines"), SHOWN, ids=[f"{page}: {' '.join(a)}" for page, a, _ in SHOWN]
)
def test_what_a_page_says_is_printed_is_printed(main, page, arguments, lines):
    code, output, errors = main(arguments)
    assert [line.rstrip() for line in output + errors] == lines
    assert code == (2 if errors else 0)


def test_there_are_examples_of_what_is_printed():
    assert [page for page, _, _ in SHOWN] == (
        ["README.md"] * 5 + ["configs/README.md"] + ["docs/comparing.md"] * 2
    )


def test_what_the_readme_says_is_printed_before_the_first_step_is_printed(project):
    ((arguments, lines),) = trainings("README.md")
    printed = beginning(arguments, project)
    lines = [line for line in lines if line != "..." and not line.startswith("run directory")]
    if lines[0] != printed["corpus"]:  # Another Python has another documentation.
        lines = [line for line in lines if line.startswith(("model", "  "))]
    if chosen_precision("auto", torch.device("cpu")) != "bfloat16":  # Another processor.
        lines = [line for line in lines if not line.startswith(("configuration", "  precision"))]
    assert len(lines) >= 3
    for line in lines:
        assert printed[subject(line)] == line


@pytest.mark.exhaustive
def test_the_check_before_a_commit_passes_good_files_and_stops_at_wrong_ones(project):
    (hook,) = plain_yaml(files("README.md")[".pre-commit-config.yaml"])["repos"][0]["hooks"]
    entry = shlex.split(hook["entry"].replace("python", sys.executable))
    assert hook["pass_filenames"] is False

    def checked():
        ran = subprocess.run(entry, cwd=project, capture_output=True, text=True)
        return ran.returncode, ran.stderr

    assert checked() == (0, "")
    wrong = project / "configs" / "with typo.yaml"
    assert re.match(hook["files"], "configs/with typo.yaml")
    wrong.write_text("n_layer: 3\n")
    try:
        code, told = checked()
    finally:
        wrong.unlink()
    assert code == 2
    assert told.startswith("error: configs/with typo.yaml:1: n_layer: unknown hyperparameter")


def message_parts():
    (table,) = re.findall(
        r"^\| message \| what to do \|\n(.*?)\n\n", text_of("README.md"), re.M | re.S
    )
    cells = [line.split(" | ")[0] for line in table.splitlines()[1:]]
    return [part for cell in cells for part in re.findall(r"`([^`]*)`", cell)]


def test_every_command_about_comparisons_works(main):
    assert len(commands("docs/comparing.md")) == 5
    for arguments in commands("docs/comparing.md"):
        code, _, errors = main(arguments)
        assert code == 0, (arguments, errors)


def test_every_command_about_data_works_on_the_data_of_the_page(project, main):
    (program,) = [body for language, body in blocks("docs/data.md") if language == "python"]
    subprocess.run([sys.executable, "-c", "\n".join(program)], cwd=project, check=True)
    assert len(commands("docs/data.md")) == 4
    losses = []
    for arguments in commands("docs/data.md"):
        code, output, errors = main(shortened(arguments))
        assert code == 0, (arguments, errors)
        losses += [line.split("loss: ")[1] for line in output if "validation loss: " in line]
    assert losses[0] == losses[1] != losses[2]


def test_every_command_about_tokenizers_works_in_its_order(main):
    assert len(commands("docs/tokenizers.md")) == 4
    written = []
    for arguments in commands("docs/tokenizers.md"):
        code, output, errors = main(shortened(arguments))
        assert code == 0, (arguments, errors)
        written += output[:1] if "--mode=sample" in arguments else []
    assert [text.startswith("The répertoire of 猫") for text in written] == [True]


BROUGHT_ABOUT_BY = {
    "unknown hyperparameter; did you mean ...?": {"a.yaml": "n_layer: 3"},
    "'3e-4' is a text": {"a.yaml": "learning_rate: '3e-4'"},
    "10000.0 is no integer, write 10000": {"a.yaml": "max_steps: 1e4"},
    "set twice in this file": {"a.yaml": "seed: 1\nseed: 1"},
    "a macro that nothing uses; did you mean Transformer.n_layers?": {"a.gin": "n_layers = 6"},
    "is not a hyperparameter: the program itself gives it a value": {
        "a.gin": "Transformer.vocab_size = 6"
    },
    "a scope has no place here": {"a.gin": "a/Trainer.seed = 1"},
    "is a reference": {"a.gin": "Trainer.seed = @Sampler()"},
    "a configuration may run no code of its own": {"a.gin": "import os"},
    "lies outside the folders of this configuration": {"a.gin": "include '../outside.gin'"},
    "the files extend each other in a circle": {"a.yaml": "extends: a.yaml"},
    "the ascii tokenizer has no ...": {"a.yaml": "corpus: my-text.txt"},
    "cannot go on with another configuration": {"a.yaml": "n_layers: 3"},
    "is being written by process ...": {"a.yaml": "max_steps: 2"},
}


@pytest.mark.parametrize("message", message_parts())
def test_every_message_in_the_table_of_messages_is_a_real_one(project, main, message):
    ((name, content),) = BROUGHT_ABOUT_BY[message].items()
    (project.parent / "outside.gin").write_text("")
    (project / name).write_text(content)
    flag = "--config" if name.endswith(".yaml") else "--gin_file"
    arguments = [f"{flag}={name}", "--max_steps=1"]
    with RunLock() as lock:
        if "cannot go on" in message or "is being written" in message:
            run_dir = project / "runs" / message.split()[0]
            tiny = ["--config=fast-training.yaml", "--max_steps=1", f"--run_dir={run_dir}"]
            assert main(tiny)[0] == 0
            arguments += [f"--run_dir={run_dir}", "--resume"]
            if "is being written" in message:
                lock.take(run_dir)
        code, _, errors = main(arguments)
    assert code == 2
    pattern = re.escape(message).replace(re.escape("..."), ".*")
    assert re.search(pattern, "\n".join(errors)), errors


def test_every_message_of_the_table_is_brought_about():
    assert message_parts() == list(BROUGHT_ABOUT_BY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with the files that the page on hooks speaks of."""
    folder = tmp_path_factory.mktemp("hooks")
    (example,) = [body for language, body in blocks("docs/hooks.md") if language == "python"]
    (folder / "my_hooks.py").write_text("\n".join(example))
    (table,) = [body for language, body in blocks("docs/hooks.md") if language == "yaml"]
    (folder / "hooks.yaml").write_text("\n".join(table))
    return folder


def test_every_command_about_hooks_works_with_the_example_on_the_page(folder):
    assert len(commands("docs/hooks.md")) == 2
    for number, arguments in enumerate(commands("docs/hooks.md")):
        run(*shortened(arguments), f"--run_dir=hooks-{number}", cwd=folder, check=0)
    metrics = (folder / "hooks-1" / "metrics.jsonl").read_text()
    assert "clamped/blocks.0.mlp" in metrics


def test_the_table_of_hooks_in_yaml_works(folder):
    arguments = ["--config=fast-training.yaml", "--config=hooks.yaml", "--run_dir=from-yaml"]
    run(*arguments, "--max_steps=2", cwd=folder, check=0)


def test_the_two_commands_stand_in_the_readme_word_for_word():
    text = text_of("README.md")
    install = "python -m pip install -c constraints.txt -e"
    assert f"{install} . && python run.py --config=fast-training.yaml\n" in text
    assert f"{install} '.[test]' && pytest\n" in text


def test_the_readme_lists_every_flag(main):
    listed = set(re.findall(r"^\| `--(\w+)`", text_of("README.md"), re.M))
    _, printed, _ = main(["--help"])
    assert listed == set(re.findall(r"^  --(\w+):", "\n".join(printed), re.M))


def test_the_page_on_hooks_lists_every_hook_and_site():
    text = text_of("docs/hooks.md")
    ready = [
        name for name, hook in known_hooks().items() if hook.__module__ == "lm_core.hooks.builtin"
    ]
    assert len(ready) == 8
    for name in ready:
        ((options, _),) = re.findall(rf"^\| `{name}` \|([^|]*)\|(.*)\|$", text, re.M)
        stated = options_of(known_hooks()[name])
        assert re.findall(r"`(\w+)`", options) == list(stated)
        for option, parameter in stated.items():
            if parameter.default is not parameter.empty:
                assert re.search(
                    rf"`{option}` \(`?{re.escape(str(parameter.default))}`?\)", options
                )
    for name in Transformer(5, 1, 4, 1, 4).sites.names():
        assert f"| `{name.replace('.0', '.N')}` |" in text


def test_the_default_configuration_states_every_key_and_names_its_gin_parameter():
    lines = text_of("configs/default.yaml").splitlines()
    for key in KEYS:
        (number,) = [i for i, line in enumerate(lines) if line.startswith(f"{key}:")]
        assert lines[number].endswith(f"# {gin_parameter(key)}")
        assert lines[number - 1].startswith("# ")


@pytest.mark.parametrize("page", PAGES)
def test_pages_link_to_files_that_exist(page):
    path = PROJECT / page
    for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_links_into_a_page_lead_to_a_heading():
    for page in PAGES:
        for link, target in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", text_of(page)):
            linked = (PROJECT / page).parent / link if link else PROJECT / page
            assert target in anchors(linked.read_text()), f"{page}: {link}#{target}"


def anchors(text):
    """What links may lead to in a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def edits(page):
    """The edits that a page shows as diffs: file, what stands there, and what it becomes."""
    for language, body in blocks(page):
        if language == "diff":
            before = [line[1:] for line in body[1:] if line[:1] != "+"]
            after = [line[1:] for line in body[1:] if line[:1] != "-"]
            yield body[0].removeprefix("--- "), "\n".join(before), "\n".join(after)


# What has to do with the table. Of the documentation, not the test that this is for.
TESTS_OF_THE_TABLE = [
    *(
        f"tests/test_{name}.py"
        for name in (
            "architecture",
            "binding",
            "checks",
            "config_files",
            "config_messages",
            "costs",
            "gin_files",
            "hyperparameters",
            "inspection",
            "inspection_differences",
            "names",
            "recorded_config",
            "reference_constants",
            "reference_pages",
            "reference_tables",
            "rendering",
            "resolution",
            "training_config",
            "transformer",
        )
    ),
    "tests/end_to_end/test_looking.py",
    *(
        f"tests/test_documentation.py::test_what_{what}_is_printed"
        for what in (
            "a_page_says_is_printed",
            "the_readme_says_is_printed_before_the_first_step",
        )
    ),
]


@pytest.mark.exhaustive
def test_a_hyperparameter_is_added_by_following_the_page(tmp_path):
    page = "docs/adding-a-hyperparameter.md"
    ignored = shutil.ignore_patterns(".git", "runs", "__pycache__", ".*_cache", "*.egg-info")
    copy = shutil.copytree(PROJECT, tmp_path / "copy", ignore=ignored)
    found = list(edits(page))
    assert len({file for file, _, _ in found}) == 6
    for file, before, after in found:
        text = (copy / file).read_text()
        assert text.count(before + "\n") == 1, (file, before)
        (copy / file).write_text(text.replace(before + "\n", after + "\n" if after else ""))

    def done(*words):
        ran = subprocess.run([sys.executable, *words], cwd=copy, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    done("-m", "lm_core.reference")
    done("-m", "tests.pages")
    done("-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS_OF_THE_TABLE)
    (arguments,) = commands(page)
    printed = done("run.py", *shortened(arguments), "--run_dir=out")
    assert "  initial_std: 0.05 (--gin_bindings)" in printed
    assert "initial_std: 0.05" in (copy / "out" / "config.yaml").read_text()


@pytest.mark.exhaustive
def test_the_main_job_learns_what_the_readme_says(tmp_path):
    done = run(
        "--config=fast-training.yaml", "--gin.Trainer.seed=7", cwd=tmp_path, check=0, timeout=900
    )
    (loss,) = re.findall(r"final validation loss: (\d\.\d+) nats", done.stdout)
    (documented,) = re.findall(r"final validation loss: (\d\.\d+) nats", text_of("README.md"))
    # Other processors round otherwise, and other Pythons have another text.
    assert abs(float(loss) - float(documented)) < 0.1
