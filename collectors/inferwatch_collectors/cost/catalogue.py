"""Public list prices to compare with: data with a date, shipped beside this file, replaced by `prices.catalogue_file`.

What a comparison is not: the same text is a different number of tokens to another model, another provider's cache hits
are not ours, and writing to a cache has a price that no count of ours tells. It is our tokens at their price.
"""

import datetime as dt
import os
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Final, Literal

import msgspec

from inferwatch.config import ConfigError
from inferwatch.price_rates import Rates, has_something_to_price
from inferwatch.record import RequestRecord
from inferwatch.settings.prices import Prices, amount_fault, is_name

# A few thousand entries; the file is read whole.
MAX_FILE_BYTES: Final = 4 * 1024 * 1024

MAX_LISTED: Final = 5


class LongPrompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Prices of a request, all of it, whose prompt is longer than `above_tokens`."""

    above_tokens: int
    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    reasoning: Decimal | None = None


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one model costs at one provider: dollars per million tokens, dollars per request."""

    name: str
    provider: str
    as_of: dt.date  # the day on which it was the price
    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    reasoning: Decimal | None = None
    per_request: Decimal = Decimal(0)
    long_prompt: LongPrompt | None = None
    page: str = ""  # where to look it up


class Catalogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    format: Literal[1]
    date: dt.date
    currency: Literal["USD"]
    unit: Literal["per million tokens"]
    source: str
    entries: tuple[Entry, ...]


class Comparison:
    """One entry, ready to price requests."""

    def __init__(self, entry: Entry) -> None:
        self.name = entry.name
        self.as_of = entry.as_of
        self._rates = _rates(entry, entry.per_request)
        self._above_tokens = entry.long_prompt.above_tokens if entry.long_prompt else None
        self._long_rates = _rates(entry.long_prompt, entry.per_request) if entry.long_prompt else self._rates

    @property
    def rates(self) -> Rates:
        """The price list for prompts of ordinary length, for sums that no longer tell how long each was."""
        return self._rates

    def cost(self, record: RequestRecord) -> int | None:
        """Return what the request would have cost there in nano-dollars; None if its tokens are not known."""
        if not has_something_to_price(record):
            return None
        prompt = record.prompt_tokens
        long = self._above_tokens is not None and prompt is not None and prompt > self._above_tokens
        return (self._long_rates if long else self._rates).cost_of(record)


def parse(data: bytes) -> Catalogue:
    """Read a catalogue. Numbers may be JSON numbers or strings; both are taken as they are written.

    Raises:
        ValueError: what is wrong, with the place.
    """
    try:
        catalogue = msgspec.json.decode(data, type=Catalogue)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None
    seen: set[str] = set()
    for index, entry in enumerate(catalogue.entries):
        if not is_name(entry.name) or entry.name in seen:
            raise ValueError(f"entries[{index}].name: `{entry.name}` is no name, or there twice")
        seen.add(entry.name)
        _check_amounts(f"entries[{index}]", entry)
        if entry.long_prompt is not None:
            _check_amounts(f"entries[{index}].long_prompt", entry.long_prompt)
    return catalogue


def comparisons(prices: Prices) -> tuple[Comparison, ...]:
    """Read the catalogue and return the entries that `prices.compare` names, in that order. Blocking.

    Raises:
        ConfigError: naming the key: the file cannot be used, or has no such entry.
    """
    if not prices.compare and not prices.catalogue_file:
        return ()
    entries = {entry.name: entry for entry in _read(prices.catalogue_file).entries}
    for index, name in enumerate(prices.compare):
        if name not in entries:
            raise ConfigError(f"prices.compare[{index}]: `{name}` is not in the catalogue{_hint(name, entries)}")
    return tuple(Comparison(entries[name]) for name in prices.compare)


def _read(path: str) -> Catalogue:
    if not path:
        return parse(resources.files(__package__).joinpath("catalogue.json").read_bytes())
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"prices.catalogue_file: {path}: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"prices.catalogue_file: {path}: {size} bytes, expected at most {MAX_FILE_BYTES}")
    try:
        return parse(data)
    except ValueError as error:
        raise ConfigError(f"prices.catalogue_file: {path}: {error}") from None


def _hint(name: str, entries: dict[str, Entry]) -> str:
    """Name those that may have been meant: of the same provider, or the same model elsewhere."""
    provider, _, model = name.partition("/")
    near = [each for each in entries if each.startswith(f"{provider}/") or (model and each.endswith(f"/{model}"))]
    return f"; it has {', '.join(near[:MAX_LISTED])}" if near else ""


def _rates(entry: Entry | LongPrompt, per_request: Decimal) -> Rates:
    return Rates.of(
        input=entry.input,
        cached_input=entry.cached_input,
        output=entry.output,
        reasoning=entry.reasoning,
        per_request=per_request,
    )


def _check_amounts(place: str, entry: Entry | LongPrompt) -> None:
    for name in ("input", "cached_input", "output", "reasoning", "per_request"):
        amount: Decimal | None = getattr(entry, name, None)
        if amount is not None and (problem := amount_fault(amount, per_token=name != "per_request")):
            raise ValueError(f"{place}.{name}: {problem}")
