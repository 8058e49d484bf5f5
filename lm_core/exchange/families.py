"""The architectures of transformers that models of ours are exchanged with."""

from collections.abc import Mapping
from typing import Any, Protocol

from lm_core.errors import InputError, shown
from lm_core.exchange import gpt2, llama
from lm_core.exchange.json_files import Fields
from lm_core.exchange.parts import Part


class Family(Protocol):
    """What a module about an architecture has to tell.

    Attributes:
        MODEL_TYPE: Its name in ``config.json``.
        NAME: Its name for people.
        PREFIX: Of the names of the weights, which some folders leave out.
        CHOICES: For each choice of ours, which of its values it can be.
        IGNORED: Ends of the names of tensors that are no weights.
    """

    MODEL_TYPE: str
    NAME: str
    PREFIX: str
    CHOICES: dict[str, tuple[Any, ...]]
    IGNORED: tuple[str, ...]

    def config_of(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What ``config.json`` says of a model of ours."""

    def arguments_of(self, config: Fields) -> dict[str, Any]:
        """What builds a model of ours that is the one of a ``config.json``."""

    def outer_parts(self, arguments: Mapping[str, Any], config: Fields | None = None) -> list[Part]:
        """The weights outside of the blocks."""

    def block_parts(
        self, layer: int, arguments: Mapping[str, Any], config: Fields | None = None
    ) -> list[Part]:
        """The weights of a block."""


FAMILIES: tuple[Family, ...] = (gpt2, llama)


def family_for(arguments: Mapping[str, Any]) -> Family:
    """The architecture that a model of ours is one of.

    Args:
        arguments: What builds the model.

    Raises:
        InputError: It is none; tells which choices would make it one.
    """
    ways = []
    for family in FAMILIES:
        others = [
            (name, arguments[name], values)
            for name, values in family.CHOICES.items()
            if arguments[name] not in values
        ]
        if not others:
            return family
        ways.append((len(others), family, others))
    ways.sort(key=lambda way: way[0])
    message = "transformers has no architecture like this model, which is neither GPT-2 nor Llama"
    lines = [f"  {family.NAME} needs {_needed(others)}" for _, family, others in ways]
    raise InputError(
        "\n".join([f"{message}; a run that is trained with other choices is:", *lines])
    )


def _needed(others: list[tuple[str, Any, tuple[Any, ...]]]) -> str:
    return ", ".join(
        f"{name}: {' or '.join(map(_word, values))} (here {_word(value)})"
        for name, value, values in others
    )


def _word(value: Any) -> str:
    return value if isinstance(value, str) else shown(value)


def family_named(config: Fields) -> Family:
    """The architecture of a ``config.json``.

    Raises:
        InputError: The lab has no such models.
    """
    for family in FAMILIES:
        if config.get("model_type") == family.MODEL_TYPE:
            return family
    known = ", ".join(family.MODEL_TYPE for family in FAMILIES)
    config.refuse("model_type", f"is none that the lab imports (what is: {known})")


def all_parts(
    family: Family, arguments: Mapping[str, Any], config: Fields | None = None
) -> list[Part]:
    """All weights of a model.

    Args:
        family: Its architecture.
        arguments: What builds our model.
        config: Of the other program; None: as our model.
    """
    blocks = (family.block_parts(i, arguments, config) for i in range(arguments["n_layers"]))
    return [*family.outer_parts(arguments, config), *(part for block in blocks for part in block)]
