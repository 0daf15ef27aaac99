"""From the configuration to a redactor, or to the line that says why there is none. Imports the extra when called."""

import secrets
from typing import TYPE_CHECKING

from inferwatch.config import ConfigError
from inferwatch.settings.privacy import Privacy
from inferwatch_collectors.privacy import names
from inferwatch_collectors.privacy.keys import Keys, read_keys

if TYPE_CHECKING:
    from inferwatch_collectors.privacy.redaction import Redactor
    from inferwatch_collectors.privacy.scanner import Scanner


def check(settings: Privacy) -> None:
    """Look before anything is started. Blocking, for some 0.3 s; a model is looked for and not loaded.

    Raises:
        ConfigError: naming the key: an extra is not installed, a key or a pattern is none, an entity is unknown.
    """
    scanner(settings)
    keys(settings)
    if settings.names_model:
        names.check(settings.names_model, settings.ignore)


def redactor(settings: Privacy) -> "Redactor":
    """Return what says what is kept. Blocking, as above, and for seconds where it loads a model.

    Raises:
        ConfigError: as above, or the model cannot be loaded.
    """
    found = scanner(settings)
    from inferwatch_collectors.privacy.pseudonyms import Pseudonyms  # noqa: PLC0415
    from inferwatch_collectors.privacy.redaction import Redactor  # noqa: PLC0415

    pseudonyms = Pseudonyms(keys(settings))
    if not settings.names_model:
        return Redactor(found, pseudonyms)
    model = names.load(settings.names_model, settings.ignore)
    return Redactor(names.NamesScanner(found, model, settings.ignore), pseudonyms)


def keys(settings: Privacy) -> Keys:
    """Return the keys of the file; without one, a key that dies with this process, as `doctor` may use it.

    Raises:
        ConfigError: a line of the file is no key.
    """
    if settings.key_file:
        return read_keys(settings.key_file, settings.epoch_days)
    return Keys({"none": secrets.token_bytes(32)}, settings.epoch_days)


def scanner(settings: Privacy) -> "Scanner":
    """Return what finds the configured entities.

    Raises:
        ConfigError: as above.
    """
    try:
        from inferwatch_collectors.privacy import phones  # noqa: PLC0415
        from inferwatch_collectors.privacy.base import Entity, Tier, taken  # noqa: PLC0415
        from inferwatch_collectors.privacy.entities import chosen  # noqa: PLC0415
        from inferwatch_collectors.privacy.scanner import Scanner, check_pattern  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"privacy.content: needs {error.name}, which is in the extra `privacy`: pip install 'inferwatch[privacy]'"
        ) from None
    try:
        entities = list(chosen(settings.entities))
    except ValueError as error:
        raise ConfigError(f"privacy.entities: {error}") from None
    try:
        ignored = set(settings.ignore) - set(names.ENTITIES)
        _ = chosen(ignored)  # are there all of them?
    except ValueError as error:
        raise ConfigError(f"privacy.ignore: {error}") from None
    for place, pattern in (
        *((f"privacy.allow[{index}]", pattern) for index, pattern in enumerate(settings.allow)),
        *((f"privacy.custom[{index}].pattern", own.pattern) for index, own in enumerate(settings.custom)),
    ):
        try:
            check_pattern(pattern)
        except ValueError as error:
            raise ConfigError(f"{place}: {error}") from None
    for own in settings.custom:
        tier = Tier.CONTEXT if own.words else Tier.SHAPED
        entities.append(Entity(own.name, own.pattern, taken, tier, own.words, joined=True, rank=5))
    looked_for = [each for each in entities if each.name not in ignored]
    if any(each.check is phones.check for each in looked_for):
        phones.prepare()
    return Scanner(looked_for, allow=settings.allow)
