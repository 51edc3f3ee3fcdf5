"""The jobs of a sweep, composed from their overrides. Imports no torch.

Hydra needs a tenth of a second to compose a job. The jobs of a sweep differ mostly in plain values, so each combination
of options is composed only once, and the values are then set on the result.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import HydraContext
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.launch.cli import checked, typed, unchecked
from experiments.settings import Settings

# Errors from setting a value that Hydra would refuse or compose differently.
IMPOSSIBLE = (OmegaConfBaseException, LookupError, AttributeError, TypeError, ValueError)


class Composer:
    """Composes the jobs of one sweep. The sweeper checks them with it, and the launcher runs them."""

    def __init__(self, hydra_context: HydraContext, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self._parser = OverridesParser.create(hydra_context.config_loader)
        self._parsed: dict[str, Override] = {}
        self._composed: dict[tuple[str, ...], DictConfig] = {}
        self._bases: dict[tuple[str, ...], _Base] = {}
        self._settings: dict[tuple[str, ...], Settings] = {}
        self._groups: dict[str, bool] = {}

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        """The config that Hydra itself composes."""
        key = tuple(overrides)
        if key not in self._composed:
            self._composed[key] = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        return self._composed[key]

    def parse(self, overrides: Sequence[str]) -> list[Override]:
        """The overrides, parsed by Hydra."""
        for text in overrides:
            if text not in self._parsed:
                (self._parsed[text],) = self._parser.parse_overrides([text])
        return [self._parsed[text] for text in overrides]

    def settings(self, overrides: Sequence[str]) -> Settings:
        """The checked settings of a job: the same as `typed` gives for the config that Hydra composes.

        Raises:
            ConfigError: for a setting that cannot be used.
            OmegaConfBaseException: for a setting that does not exist, or a value of the wrong type.
        """
        key = tuple(overrides)
        if key not in self._settings:
            self._settings[key] = self._quickly(overrides) or typed(self(overrides))
        return self._settings[key]

    def _quickly(self, overrides: Sequence[str]) -> Settings | None:
        """The settings of a job, if its overrides are only options and plain values; otherwise None."""
        parted = self._parted(overrides)
        if parted is None:
            return None
        base, values = parted
        try:
            config = base.settings_with(values)
        except IMPOSSIBLE:
            return None  # Hydra says what is wrong with it
        checked(config)
        return config

    def plain(self, overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The config of a job as Hydra composes it, in plain Python: its own settings and Hydra's.

        The settings must have been composed before.
        """
        parted = self._parted(overrides)
        base, values = parted or (_Base(self(overrides)), {})
        own, hydra = base.plain_with(values)
        own_overrides = [o for o in self.parse(overrides) if not o.is_hydra_override()]
        hydra["hydra"]["overrides"]["task"] = [str(o.input_line) for o in own_overrides]
        style = base.cfg.hydra.job.config.override_dirname
        hydra["hydra"]["job"]["override_dirname"] = get_overrides_dirname(
            overrides=own_overrides, kv_sep=style.kv_sep, item_sep=style.item_sep, exclude_keys=style.exclude_keys
        )
        return own, hydra

    def _parted(self, overrides: Sequence[str]) -> tuple[_Base, dict[str, Any]] | None:
        """The combination of options, and the values to set on it; None if their order matters."""
        parsed = self.parse(overrides)
        values = {o.key_or_group: o.value() for o in parsed if self._is_value(o)}
        options = [o for o in parsed if not self._is_value(o)]
        if any(f"{key}.".startswith(f"{o.key_or_group}.") for key in values for o in options if not self._is_group(o)):
            return None  # the order matters
        key = tuple(str(o.input_line) for o in options)
        if key not in self._bases:
            self._bases[key] = _Base(self(key))
        return self._bases[key], values

    def _is_group(self, override: Override) -> bool:
        """Whether an override picks an option of a group."""
        key = override.key_or_group
        if key not in self._groups:
            found = self.hydra_context.config_loader.get_group_options(key, results_filter=ObjectType.CONFIG)
            self._groups[key] = bool(found)
        return self._groups[key]

    def _is_value(self, override: Override) -> bool:
        """Whether an override sets a plain value of a setting."""
        plain = not (override.is_add() or override.is_force_add() or override.is_delete() or override.package)
        fixed = "${" not in str(override.input_line) and not isinstance(override.value(), dict)
        return plain and fixed and not override.is_hydra_override() and not self._is_group(override)


@dataclass(frozen=True, eq=False)
class _Base:
    """A combination of options as Hydra composes it."""

    cfg: DictConfig

    @cached_property
    def own(self) -> DictConfig:
        """Its settings with their types, without Hydra's."""
        own = OmegaConf.masked_copy(self.cfg, [str(key) for key in self.cfg if key != "hydra"])
        return OmegaConf.merge(OmegaConf.structured(Settings), own)  # type: ignore[return-value]

    @cached_property
    def refers(self) -> bool:
        """Whether any setting refers to another one, whose value may be set."""
        return "${" in OmegaConf.to_yaml(self.own)

    @cached_property
    def settings(self) -> Settings:
        return unchecked(self.own)

    @cached_property
    def plain(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Its own settings and Hydra's in plain Python, references unresolved."""
        whole: Any = OmegaConf.to_container(self.cfg, resolve=False, enum_to_str=True)
        return {key: value for key, value in whole.items() if key != "hydra"}, {"hydra": whole["hydra"]}

    @cached_property
    def known(self) -> dict[tuple[str, str], Any]:
        """Values that were converted before, by key and given value."""
        return {}

    def plain_with(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """`plain` with these values.

        Raises:
            IMPOSSIBLE: if a value cannot be set.
        """
        own, hydra = copy.deepcopy(self.plain)
        for key, value in values.items():
            _put(own, key, self._converted(key, value))
        return own, hydra

    def settings_with(self, values: Mapping[str, Any]) -> Settings:
        """The settings with these values, not checked.

        Raises:
            IMPOSSIBLE: if a value cannot be set.
        """
        if self.refers:
            return unchecked(OmegaConf.create(self.plain_with(values)[0]))
        config = copy.deepcopy(self.settings)
        for key, value in values.items():
            _put(config, key, self._converted(key, value))
        return config

    def _converted(self, key: str, value: Any) -> Any:
        """A value, converted to the type of its setting.

        Raises:
            IMPOSSIBLE: if there is no such setting, or the value cannot be converted.
        """
        place = key, repr(value)
        if place not in self.known:
            node: Any = self.own
            for part in key.split("."):
                node = node._get_node(part) if isinstance(node, DictConfig) and part in node else None
            if node is None or isinstance(node, DictConfig):
                raise KeyError(key)
            node = copy.deepcopy(node)
            node._set_value(value)
            self.known[place] = OmegaConf.to_container(node) if isinstance(node, ListConfig) else node._value()
        return copy.deepcopy(self.known[place])


def _put(settings: Any, key: str, value: Any) -> None:
    """Sets a value by its dotted name in nested dataclasses or dictionaries."""
    *path, name = key.split(".")
    for part in path:
        settings = settings[part] if isinstance(settings, dict) else getattr(settings, part)
    if isinstance(settings, dict):
        settings[name] = value
    else:
        setattr(settings, name, value)
