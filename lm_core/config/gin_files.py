"""Gin files and bindings as statements about hyperparameters.

Gin's own parser reads the syntax and tells the line of every statement; what the statements may
say is decided here, because gin itself checks no types, keeps no sources, and runs what it is
asked to import.
"""

import io
import re
import tokenize
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gin import config_parser

from lm_core.config.gin_mappings import repeated_names
from lm_core.config.names import unknown_parameter, unused_macro
from lm_core.config.statements import (
    DEEPEST,
    MOST_VALUES,
    YAML_SUFFIXES,
    Reading,
    Source,
    Statement,
    chain,
    display_name,
    find_config,
)
from lm_core.config.table import KEY_OF_GIN_PARAMETER
from lm_core.config.yaml_files import read_yaml
from lm_core.errors import InputError, shown, unknown

_BARE_WORD = re.compile(r"\s*(?P<name>[\w./]+)\s*=\s*(?P<word>[A-Za-z_]\w*)\s*", re.ASCII)
# What no statement is without.
_STATEMENT = re.compile(r"=|^\s*(include|import|from)\b", re.ASCII)
# What YAML calls by a word that gin calls by another.
_WORDS_OF_YAML = {"null": "None", "true": "True", "false": "False"}
# What gin's parser says, its beginning, and what that means here.
_SENTENCES = {
    "Couldn't parse statement": "a line is NAME = VALUE, as in `Transformer.n_layers = 4`",
    "Expected newline": "more follows after the value; a text needs quotes, a fraction a point, "
    "a further statement its own line or flag",
    "Malformatted scope or selector": "the name holds a space, or a sign that no name has",
    "Unable to parse value": "there is no value after the =, or none that gin knows",
    "Unexpected token": "a line begins with a name, as in `Transformer.n_layers = 4`",
}
_BAD_TOKEN = re.compile(r"malformed node.*\n +Failed to parse token '(.*)'", re.DOTALL)
_SYNTAX_ERRORS = (SyntaxError, tokenize.TokenError, TypeError, ValueError, RecursionError)


class Macro(NamedTuple):
    """A use of a macro, ``%name``, until it is resolved."""

    name: str


class Reference(NamedTuple):
    """A use of a configurable as a value, ``@name`` or ``@name()``."""

    text: str


class _Delegate(config_parser.ParserDelegate):
    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        return Reference(f"@{scoped_configurable_name}{'()' if evaluate else ''}")

    def macro(self, macro_name: str) -> Macro:
        return Macro(macro_name)


class GinReader:
    """Reads gin sources one after the other into one reading; macros are shared by all of them.

    Args:
        reading: Takes the statements and what is wrong.
        folders: Where an include looks after the including file's own folder and the working
            directory. What is included has to lie below one of all these, or beside a file that
            ``read_file`` was given.
        allowed_imports: Modules that a gin file may import; they are already imported.
    """

    def __init__(
        self, reading: Reading, folders: Sequence[Path], allowed_imports: Collection[str] = ()
    ) -> None:
        self._reading = reading
        self._folders = [Path(), *folders]
        self._own_folders = {folder.resolve() for folder in self._folders}
        self._allowed_imports = allowed_imports
        self._macros: dict[str, tuple[Any, Source]] = {}
        self._used_macros: set[str] = set()
        # In the order of their use; a dict keeps it, and each once.
        self._used_here: dict[str, None] = {}
        self._including: list[Path] = []
        self._n_values = 0

    def read_file(self, path: Path) -> None:
        """Reads a gin file and what it includes.

        Raises:
            InputError: The file cannot be read as text.
        """
        self._own_folders.add(path.resolve().parent)
        self._read_file(path)

    def _read_file(self, path: Path) -> None:
        text = self._reading.open(path)
        self._including.append(path)
        self._read(text, display_name(path), path.parent)
        self._including.pop()

    def read_binding(self, text: str, flag: str) -> None:
        """Reads the text given to a flag such as ``--gin_bindings``.

        One bare word is taken as a text: a shell has already eaten the quotes of
        ``Tokenizer.kind='byte'``.
        """
        match = _BARE_WORD.fullmatch(text)
        if match and match["word"] in _WORDS_OF_YAML:
            word = _WORDS_OF_YAML[match["word"]]
            message = f"{match['name']}: {match['word']} is YAML; gin has {word}"
            self._reading.problem(Source(flag), message)
            return
        is_value = not match or match["word"] in _WORDS_OF_YAML.values()
        if not is_value and match["name"] in KEY_OF_GIN_PARAMETER:
            text = f"{match['name']} = {match['word']!r}"
        if not _STATEMENT.search(text) or not self._read(text, flag, None):
            message = f"{text!r} binds nothing; write NAME=VALUE, as in Transformer.n_layers=6"
            self._reading.problem(Source(flag), message)

    def resolve_macros(self) -> None:
        """Puts the values of macros into the statements; call it when all sources are read."""
        statements = self._reading.statements
        for index, statement in enumerate(statements):
            self._n_values, self._used_here = 0, {}
            try:
                value = self._resolved(statement.value, ())
            except InputError as error:
                problem = f"{statement.name}: {error.message}"
                self._reading.problem(statement.source, problem)
                statements[index] = statement._replace(key="")
            else:
                macros = ", ".join(self._used_here)
                source = statement.source._replace(macros=macros)
                statements[index] = statement._replace(value=value, source=source)
        self._reading.statements = [statement for statement in statements if statement.key]
        for name, (_, source) in self._macros.items():
            if name not in self._used_macros:
                self._reading.problem(source, unused_macro(name))

    def _resolved(self, value: Any, within: tuple[str, ...], depth: int = 0) -> Any:
        self._n_values += 1
        if self._n_values > MOST_VALUES or depth > DEEPEST:
            raise InputError("is far too large or deep once its macros are expanded")
        if isinstance(value, Reference):
            message = f"{value.text} is a reference; a hyperparameter takes a plain value"
            raise InputError(message)
        if isinstance(value, Macro):
            if value.name in within:
                raise InputError(f"%{value.name} is defined by itself")
            self._used_macros.add(value.name)
            if value.name not in self._macros:
                raise InputError(f"%{value.name}: {unknown(value.name, self._macros, 'macro')}")
            definition, source = self._macros[value.name]
            self._used_here[f"%{value.name} from {source}"] = None
            return self._resolved(definition, (*within, value.name), depth + 1)
        if isinstance(value, dict):
            return self._resolved_dict(value, within, depth)
        if isinstance(value, (list, tuple)):
            return [self._resolved(item, within, depth + 1) for item in value]
        return value

    def _resolved_dict(
        self, value: dict[Any, Any], within: tuple[str, ...], depth: int
    ) -> dict[Any, Any]:
        resolved: dict[Any, Any] = {}
        for written, item in value.items():
            key = self._resolved(written, within, depth + 1)
            if isinstance(key, (dict, list)):
                raise InputError(f"{shown(key)} is no name, as the key of a mapping must be")
            if key in resolved:
                raise InputError(f"{shown(key)} is set twice")
            resolved[key] = self._resolved(item, within, depth + 1)
        return resolved

    def _read(self, text: str, place: str, folder: Path | None) -> bool:
        """Reads the text of a file in a folder, or of a flag, which has no lines to tell.

        Returns:
            Whether there was anything in it, right or wrong.
        """
        seen: dict[str, Source] = {}
        statement = None
        for name, line, first in repeated_names(text):
            source = Source(place, line if folder else None)
            where = f", first in line {first}" if folder else ""
            self._reading.problem(source, f"{name}: set twice in one mapping{where}")
        try:
            for statement in config_parser.ConfigParser(io.StringIO(text), _Delegate()):
                line = statement.location.line_num if folder else None
                self._take(statement, Source(place, line), folder or Path(), seen)
        except _SYNTAX_ERRORS as error:
            if isinstance(error, InputError):
                raise
            line = _error_line(error) if folder else None
            quoted = "" if folder else f"{text!r}: "
            self._reading.problem(Source(place, line), f"{quoted}not valid gin: {_in_words(error)}")
            return True
        return statement is not None

    def _take(self, statement: Any, source: Source, folder: Path, seen: dict[str, Source]) -> None:
        if isinstance(statement, config_parser.IncludeStatement):
            self._include(statement.filename, source, folder)
        elif isinstance(statement, config_parser.ImportStatement):
            module = statement.module
            if statement.is_from:  # Gin's parser joins `from package import module`.
                module = module.rpartition(".")[0]
            if module.split(".")[0] == "__gin__":
                message = "there is no dynamic registration here, and no need for it"
                self._reading.problem(source, f"{statement.format()}: {message}; leave it out")
            elif not {module, statement.module} & set(self._allowed_imports):
                message = f"{statement.format()}: a configuration may run no code of its own"
                flag = f"--allow_gin_import={module} allows this module"
                self._reading.problem(source, f"{message}; {flag}")
        elif isinstance(statement, config_parser.BindingStatement):
            self._bind(statement, source, seen)

    def _include(self, name: str, source: Source, folder: Path) -> None:
        who = f"{source}: include"
        try:
            path = find_config(name, [folder, *self._folders], who)
            resolved = path.resolve()
            if not any(resolved.is_relative_to(own) for own in self._own_folders):
                message = f"{name!r} lies outside the folders of this configuration"
                flag = f"--gin_search_paths={display_name(resolved.parent)} allows its folder"
                raise InputError(f"{who}: {message}; {flag}")
            if resolved in [file.resolve() for file in self._including]:
                circle = chain((*self._including, path))
                raise InputError(f"{who}: the files include each other in a circle: {circle}")
            if path.suffix in YAML_SUFFIXES:
                read_yaml(path, self._reading)
            else:
                self._read_file(path)
        except InputError as error:
            self._reading.failure(error, source)

    def _bind(
        self, statement: config_parser.BindingStatement, source: Source, seen: dict[str, Source]
    ) -> None:
        selector, argument = statement.selector, statement.arg_name
        name = f"{selector}.{argument}" if argument else selector
        scoped = f"{statement.scope}/{name}" if statement.scope else name
        if statement.scope:
            message = "a scope has no place here: one run has one value for each hyperparameter"
            advice = f"; write {name}" if name in KEY_OF_GIN_PARAMETER else ""
            self._reading.problem(source, f"{scoped}: {message}{advice}")
        elif not argument:
            self._define(selector, statement.value, source, seen)
        elif name not in KEY_OF_GIN_PARAMETER:
            self._reading.problem(source, f"{name}: {unknown_parameter(selector, argument)}")
        else:
            key = KEY_OF_GIN_PARAMETER[name]
            self._reading.add(Statement(key, name, statement.value, source, {}), seen)

    def _define(self, name: str, value: Any, source: Source, seen: dict[str, Source]) -> None:
        # No hyperparameter begins with %, so that both kinds of name share one record.
        if source.line is not None and f"%{name}" in seen:
            first = seen[f"%{name}"].line
            self._reading.problem(source, f"{name}: set twice in this file, first in line {first}")
        seen[f"%{name}"] = source
        self._macros[name] = (value, source)


def _in_words(error: Exception) -> str:
    message = str(error.args[0] if error.args else error)
    token = _BAD_TOKEN.search(message)
    if token:
        # Python's own words in front of it hold an address in memory.
        if token[1] in _WORDS_OF_YAML:
            return f"{token[1]} is YAML; gin has {_WORDS_OF_YAML[token[1]]}"
        return f"{shown(token[1])} is no value; a text needs quotes"
    for beginning, sentence in _SENTENCES.items():
        if message.startswith(beginning):
            return sentence
    return message.splitlines()[0].strip()


def _error_line(error: Exception) -> int | None:
    location = error.args[1] if len(error.args) > 1 else None
    if isinstance(location, config_parser.Location):
        return location.line_num
    # tokenize gives (file, line, ...) with a SyntaxError and (line, column) with a TokenError.
    numbers = [part for part in location or () if isinstance(part, int)]
    return numbers[0] if numbers else None
