"""A study: the configuration of its trials, what is searched, and how."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lm_core.config.hyperparameters import KEYS
from lm_core.config.rendering import canonical, yaml_value
from lm_core.config.resolution import ResolvedConfig
from lm_core.config.statements import Source
from lm_core.config.table import default
from lm_core.config.training_config import TrainingConfig
from lm_core.data.corpus import absolute_path
from lm_core.data.text_files import described, find_files, reason_of
from lm_core.errors import InputError, shown
from lm_core.randomness import draw_seed
from lm_core.search.space import plain_space
from lm_core.search.study_file import StudySettings


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        config: The configuration of every trial, but for what is searched.
        settings: What is searched, and how.
        sources: Where each key of the study was set.
    """

    config: ResolvedConfig
    settings: StudySettings
    sources: Mapping[str, Source]

    @property
    def base(self) -> ResolvedConfig:
        """The configuration of every trial as a file has it that is used from anywhere."""
        corpus = self.values.corpus
        if corpus is None:
            return self.config
        return self.config.with_value(
            "corpus", absolute_path(corpus), self.config.sources["corpus"]
        )

    @property
    def values(self) -> TrainingConfig:
        """The values of every trial, but for what is searched."""
        return self.config.values

    @property
    def seed(self) -> int:
        """The seed of every trial, and of what is drawn for the study itself."""
        seed = self.values.seed
        if seed is None:
            raise ValueError("the study's seed is not drawn yet")
        return seed

    def with_seed(self, recorded: Mapping[str, Any] | None) -> "Study":
        """The study with a seed: its own, the recorded one, or one that is drawn now.

        Args:
            recorded: The definition of the study in the storage; None: there is none yet.
        """
        if self.values.seed is not None:
            return self
        seed = None if recorded is None else recorded.get("values", {}).get("seed")
        source = Source("the study's own record")
        if type(seed) is not int:
            seed, source = draw_seed(), Source("drawn")
        return replace(self, config=self.config.with_value("seed", seed, source))

    def definition(self) -> dict[str, Any]:
        """What makes it this study and no other, as plain data."""
        values = self.values.to_dict()
        return {
            "values": {key: values[key] for key in KEYS if key not in self.settings.space},
            "search": plain_space(self.settings.space),
            "sampler": self.settings.sampler,
            "pruner": self.settings.pruner,
            # A study may be moved together with its text, and be given with either name of it.
            "corpus": self.base.values.corpus,
        }

    def require_text(self) -> None:
        """Looks whether there is the text that is to be trained on, without reading it.

        Raises:
            InputError: There is none; says what training would.
        """
        corpus = self.values.corpus
        if corpus is None:
            return
        try:
            n_bytes = sum(described(file).size for file in find_files(corpus))
        except InputError as error:
            raise InputError(self.config.with_places(error.message)) from error
        except (OSError, ValueError, RuntimeError) as error:
            message = f"corpus: {corpus!r} cannot be read: {reason_of(error)}"
            raise InputError(self.config.with_places(message)) from error
        if not n_bytes:
            raise InputError(self.config.with_places(f"corpus: {corpus!r} is empty"))

    def values_of(self, searched: Mapping[str, Any], seed: int | None = None) -> TrainingConfig:
        """The whole configuration of a trial.

        Args:
            searched: Its own values.
            seed: Its seed; None: the study's.

        Raises:
            InputError: They do not fit each other.
        """
        own = dict(searched) if seed is None else {**searched, "seed": seed}
        return TrainingConfig.from_dict(self.values.to_dict() | own)


def require_same_study(recorded: Mapping[str, Any], study: Study, where: str) -> None:
    """Refuses to go on with another study than the one that is there.

    Args:
        recorded: The definition of the one that is there.
        study: The one that was asked for.
        where: Words that say where it is, such as ``studies/a holds``.

    Raises:
        InputError: They differ; tells in what.
    """
    now = study.definition()
    before_values = recorded.get("values", {})
    # A hyperparameter that the lab did not have then had the value that is now its default.
    pairs = {
        key: (before_values.get(key, default(key)), value, study.config.sources[key])
        for key, value in now["values"].items()
        if key not in recorded.get("search", {})
    }
    if recorded.get("corpus") == now["corpus"] is not None:
        pairs.pop("corpus", None)
    before_space, space = recorded.get("search", {}), now["search"]
    for key in [*before_space, *(key for key in space if key not in before_space)]:
        source = study.config.sources[key] if key in space else study.sources["search"]
        pairs[f"search.{key}"] = before_space.get(key), space.get(key), source
    for key in ("sampler", "pruner"):
        pairs[key] = recorded.get(key), now[key], study.sources.get(key, Source("default"))
    differences = [
        f"{key}: {_told(key, before)} there, {_told(key, after)} now ({source})"
        for key, (before, after, source) in pairs.items()
        if canonical(before) != canonical(after)
    ]
    if differences:
        lines = "\n  ".join(differences)
        message = f"{where} another study; --run_dir names another folder"
        raise InputError(f"{message}:\n  {lines}")


def _told(key: str, value: Any) -> str:
    if key.startswith("search."):
        return "not searched" if value is None else yaml_value(value)
    return shown(value)
