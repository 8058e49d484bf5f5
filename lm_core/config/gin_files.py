"""Gin files and bindings as statements about hyperparameters.

What the statements may say is decided here, because gin itself checks no types, keeps no sources,
and runs what it is asked to import.
"""

import ast
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from gin import config_parser

from lm_core.config.files import chain, display_name, find_config, is_yaml
from lm_core.config.gin_macros import Macros, UnknownMacroError
from lm_core.config.gin_syntax import WORDS_OF_YAML, Macro, Mistake, parse
from lm_core.config.names import unknown_parameter, unused_macro
from lm_core.config.statements import Reading, Source, Statement
from lm_core.config.table import KEY_OF_GIN_PARAMETER, value_types
from lm_core.config.yaml_files import read_yaml
from lm_core.errors import InputError, shown

_BINDING_OF_A_WORD = re.compile(
    r"\s*(?P<name>[A-Za-z_][A-Za-z0-9_./]*)\s*=\s*(?P<word>[^\s'\"%@=([{][^\s'\"]*)\s*"
)
# What no statement is without.
_STATEMENT = re.compile(r"=|^\s*(include|import|from)\b", re.ASCII)


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
        for folder in self._folders:
            reading.take_from(folder)
        self._allowed_imports = allowed_imports
        self._macros = Macros()
        self._including: list[Path] = []

    def read_file(self, path: Path) -> None:
        """Reads a gin file and what it includes.

        Raises:
            InputError: The file cannot be read as text.
        """
        self._reading.take_from(path.parent)
        self._reading.take_from(path.resolve().parent)
        self._read_file(path)

    def _read_file(self, path: Path) -> None:
        text = self._reading.open(path)
        self._including.append(path)
        self._read(text, display_name(path), path.parent)
        self._including.pop()

    def read_binding(self, text: str, flag: str) -> None:
        """Reads the text given to a flag such as ``--gin_bindings``.

        One bare word is taken as a text, and so is a path where a text is wanted: a shell has
        already eaten the quotes of ``Tokenizer.kind='byte'``.
        """
        match = _BINDING_OF_A_WORD.fullmatch(text)
        if match:
            name, word = match["name"], match["word"]
            types = value_types(KEY_OF_GIN_PARAMETER[name]) if name in KEY_OF_GIN_PARAMETER else ()
            takes_any_word = str in types and type(None) not in types
            if word in WORDS_OF_YAML and not takes_any_word:
                message = f"{name}: {word} is YAML; gin has {WORDS_OF_YAML[word]}"
                self._reading.problem(Source(flag), message)
                return
            if (str in types or word.isidentifier()) and not _is_literal(word):
                text = f"{name} = {word!r}"
        if not _STATEMENT.search(text) or not self._read(text, flag, None):
            message = f"{text!r} binds nothing; write NAME=VALUE, as in Transformer.n_layers=6"
            self._reading.problem(Source(flag), message)

    def resolve_macros(self) -> None:
        """Puts the values of macros into the statements; call it when all sources are read."""
        resolved = []
        for statement in self._reading.statements:
            found = self._resolved(statement.value, statement.name, statement.source)
            if found is None:
                self._reading.unread.add(statement.key)
            else:
                value, macros = found
                source = statement.source._replace(macros=macros)
                resolved.append(statement._replace(value=value, source=source))
        self._reading.statements = resolved
        for name, source, unknown in self._macros.overridden():
            self._tell_unknown(unknown, name, source)
        # Where something cannot be read, it may be what uses them.
        for name, source in self._macros.unused() if self._reading.is_complete else ():
            self._reading.problem(source, unused_macro(name))

    def _resolved(self, value: Any, name: str, source: Source) -> tuple[Any, str] | None:
        """A plain value and its macros in words; None for what has none, which is told."""
        try:
            return self._macros.resolve(value)
        except UnknownMacroError as error:
            self._tell_unknown(error, name, source)
        except InputError as error:
            self._reading.problem(source, f"{name}: {error.message}")
        return None

    def _tell_unknown(self, error: UnknownMacroError, name: str, source: Source) -> None:
        # Where something cannot be read, it may be what defines it.
        if self._reading.is_complete and not self._macros.is_unread(error.name):
            self._reading.problem(source, f"{name}: {error.message}")

    def _read(self, text: str, place: str, folder: Path | None) -> bool:
        """Reads the text of a file in a folder, or of a flag, which has no lines to tell.

        Returns:
            Whether there was anything in it, right or wrong.
        """
        seen: dict[str, Source] = {}
        is_empty = True
        for piece in parse(text):
            is_empty = False
            source = Source(place, piece.line if folder else None)
            if isinstance(piece, Mistake):
                quoted = "" if folder else f"{shown(text)}: "
                self._reading.problem(source, f"{quoted}not valid gin: {piece.message}")
                self._pass_over(piece)
                continue
            for name, line, first in piece.repeated:
                where = f", first in line {first}" if folder else ""
                message = f"{name}: set twice in one mapping{where}"
                self._reading.problem(Source(place, line if folder else None), message)
            self._take(piece.statement, source, folder, seen)
        return not is_empty

    def _pass_over(self, mistake: Mistake) -> None:
        """Remembers what nobody knows for a mistake, so that no more is made of it."""
        self._reading.is_complete &= not mistake.hides_more
        for name in mistake.names:
            if name in KEY_OF_GIN_PARAMETER:
                self._reading.unread.add(KEY_OF_GIN_PARAMETER[name])
            elif "." not in name:
                self._macros.pass_over(name)
        self._macros.use([Macro(name) for name in mistake.macros])

    def _take(
        self, statement: Any, source: Source, folder: Path | None, seen: dict[str, Source]
    ) -> None:
        if isinstance(statement, config_parser.IncludeStatement):
            self._include(statement.filename, source, folder or Path())
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
            self._reading.require_own(path, name, who)
            if path.resolve() in [file.resolve() for file in self._including]:
                circle = chain((*self._including, path))
                raise InputError(f"{who}: the files include each other in a circle: {circle}")
            if is_yaml(path):
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
        if argument:  # Also where it is refused: its macros are then not what is wrong.
            self._macros.use(statement.value)
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
        self._macros.define(name, value, source)


def _is_literal(word: str) -> bool:
    try:
        ast.literal_eval(word)
    except (SyntaxError, ValueError):
        return False
    return True
