"""What a resumed run may be told differently from the run it continues."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from htfcli.config.base import Config
from htfcli.errors import ConfigError

C = TypeVar("C", bound=Config)


def merged(config: C, saved: dict[str, Any], may_change: set[str]) -> C:
    """The saved settings, with what `config` was explicitly given.

    Raises:
        ConfigError: if that changes what the run is, or is nothing to it: the learning rate of a second-order fit.
    """
    before = type(config).checked(saved)
    given = {name: getattr(config, name) for name in config.model_fields_set}
    changed = {n: v for n, v in given.items() if v != getattr(before, n) and n not in may_change}
    if changed:
        name, value = next(iter(changed.items()))
        flag = "--" + name.replace("_", "-")
        raise ConfigError(
            f"{flag} cannot change when a run is resumed",
            got=value,
            allowed=getattr(before, name),
            next_step="Leave it out.",
        )
    return type(config).checked({**saved, **given})  # what is given has to suit the rest of it


def absolute(data: str | None) -> str | None:
    """An input that can be found again from another folder; stdin cannot."""
    return None if data is None or data == "-" else str(Path(data).resolve())
