"""Gin's macros: a name with a value, and ``%name`` in the place of that value."""

from collections.abc import Iterable, Iterator
from typing import Any

from lm_core.config.gin_syntax import Macro, Reference
from lm_core.config.statements import DEEPEST, MOST_CHARACTERS, MOST_VALUES, Source
from lm_core.errors import InputError, shown, unknown


class UnknownMacroError(InputError):
    """A macro is used that is nowhere defined.

    Args:
        name: Its name.
        known: The macros that there are.
        within: The macro whose value uses it, if it is one.
    """

    def __init__(self, name: str, known: Iterable[str], within: Iterable[str] = ()) -> None:
        where = "".join(f", in the value of %{outer}" for outer in within)
        super().__init__(f"%{name}{where}: {unknown(name, known, 'macro')}")
        self.name = name


class Macros:
    """The macros of all gin sources of a configuration; what defines one later wins."""

    def __init__(self) -> None:
        self._definitions: dict[str, tuple[Any, Source]] = {}
        self._overridden: list[tuple[str, Any, Source]] = []
        self._uses: list[Any] = []
        self._unread: set[str] = set()

    def define(self, name: str, value: Any, source: Source) -> None:
        """Gives a macro its value, which may hold other macros."""
        if name in self._definitions:
            self._overridden.append((name, *self._definitions[name]))
        self._definitions[name] = (value, source)

    def use(self, value: Any) -> None:
        """Notes that something is set to a value, which may hold macros."""
        self._uses.append(value)

    def pass_over(self, name: str) -> None:
        """Notes that a macro is defined as what cannot be read."""
        self._unread.add(name)

    def resolve(self, value: Any) -> tuple[Any, str]:
        """A value with the values of its macros in their places.

        Args:
            value: A value as gin's parser gives it.

        Returns:
            The plain value, with lists for tuples; and its macros and where they were set, in
            words.

        Raises:
            UnknownMacroError: It uses a macro that there is not.
            InputError: It uses a configurable, or is too large.
        """
        expansion = _Expansion(self._definitions)
        return expansion.of(value, ()), ", ".join(expansion.used)

    def is_unread(self, name: str) -> bool:
        """Whether a macro is defined as what cannot be read."""
        return name in self._unread

    def overridden(self) -> Iterator[tuple[str, Source, UnknownMacroError]]:
        """The definitions that a later one overrides, where they use a macro that there is not."""
        for name, value, source in self._overridden:
            for used in sorted(self._within([value])):
                if used not in self._definitions:
                    yield name, source, UnknownMacroError(used, self._definitions)

    def unused(self) -> Iterator[tuple[str, Source]]:
        """The macros that nothing uses, with their places."""
        used = self._within(self._uses)
        for name, (_, source) in self._definitions.items():
            if name not in used:
                yield name, source

    def _within(self, values: list[Any]) -> set[str]:
        """The macros that some values are made of, however deep."""
        found: set[str] = set()
        waiting = [*values]
        while waiting:
            part = waiting.pop()
            if isinstance(part, Macro):
                if part.name not in found and part.name in self._definitions:
                    waiting.append(self._definitions[part.name][0])
                found.add(part.name)
            elif isinstance(part, dict):
                waiting += [*part.keys(), *part.values()]
            elif isinstance(part, (list, tuple)):
                waiting += part
        return found


class _Expansion:
    """One value on its way from gin's parser to plain data."""

    def __init__(self, definitions: dict[str, tuple[Any, Source]]) -> None:
        self._definitions = definitions
        self._n_values = 0
        self._n_characters = 0
        # In the order of their use; a dict keeps it, and each once.
        self.used: dict[str, None] = {}

    def of(self, value: Any, within: tuple[str, ...], depth: int = 0) -> Any:
        """The plain value.

        Args:
            value: What gin's parser gave.
            within: The macros that it is a part of.
            depth: How deep in lists, mappings and macros it stands.
        """
        self._n_values += 1
        self._n_characters += len(value) if isinstance(value, str) else 0
        is_large = self._n_values > MOST_VALUES or self._n_characters > MOST_CHARACTERS
        if is_large or depth > DEEPEST:
            raise InputError("is far too large or deep once its macros are expanded")
        if isinstance(value, Reference):
            raise InputError(f"{value.text} is a reference; a hyperparameter takes a plain value")
        if isinstance(value, Macro):
            return self._of_macro(value.name, within, depth)
        if isinstance(value, dict):
            return self._of_mapping(value, within, depth)
        if isinstance(value, (list, tuple)):
            return [self.of(item, within, depth + 1) for item in value]
        return value

    def _of_macro(self, name: str, within: tuple[str, ...], depth: int) -> Any:
        if name in within:
            raise InputError(f"%{name} is defined by itself")
        if name not in self._definitions:
            raise UnknownMacroError(name, self._definitions, within[-1:])
        definition, source = self._definitions[name]
        self.used[f"%{name} from {source}"] = None
        return self.of(definition, (*within, name), depth + 1)

    def _of_mapping(self, value: dict[Any, Any], within: tuple[str, ...], depth: int) -> Any:
        resolved: dict[Any, Any] = {}
        for written, item in value.items():
            key = self.of(written, within, depth + 1)
            if isinstance(key, (dict, list)):
                raise InputError(f"{shown(key)} is no name, as the key of a mapping must be")
            if key in resolved:
                raise InputError(f"{shown(key)} is set twice")
            resolved[key] = self.of(item, within, depth + 1)
        return resolved
