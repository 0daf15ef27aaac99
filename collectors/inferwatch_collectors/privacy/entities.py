"""All entities, and which of them a configuration chooses."""

from collections.abc import Iterable
from typing import Final

from inferwatch_collectors.privacy.base import Entity
from inferwatch_collectors.privacy.general import GENERAL
from inferwatch_collectors.privacy.national import NATIONAL

ALL: Final[tuple[Entity, ...]] = (*GENERAL, *NATIONAL)

NAMES: Final = tuple(dict.fromkeys(entity.name for entity in ALL))


def chosen(names: Iterable[str] = (), without: Iterable[str] = ()) -> tuple[Entity, ...]:
    """Return the entities of these names, all that are on by default if there are none, and none of `without`.

    Raises:
        ValueError: there is no entity of that name.
    """
    wanted, unwanted = set(names), set(without)
    for name in sorted(wanted | unwanted):
        if name not in NAMES:
            raise ValueError(f"there is no entity `{name}`")
    return tuple(
        entity
        for entity in ALL
        if (entity.name in wanted if wanted else entity.default) and entity.name not in unwanted
    )
