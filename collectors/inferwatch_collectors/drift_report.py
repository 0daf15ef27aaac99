"""What `/drift` says: of the traffic, and of the model that the canary probes. As data and in words; pure."""

import msgspec

from inferwatch_collectors.canary.words import Canary
from inferwatch_collectors.canary.words import lines as canary_lines
from inferwatch_collectors.drift import words


class Report(words.Report, frozen=True, kw_only=True, omit_defaults=True):
    """Both."""

    canary: Canary | None = None  # None: not enabled


def joined(drift: words.Report, canary: Canary | None) -> Report:
    """Return both as one."""
    return Report(**msgspec.structs.asdict(drift), canary=canary)


def of_tenant(report: Report, tenant: str) -> Report:
    """Return what there is of one tenant: neither all together nor the canary, which are of everybody."""
    streams = tuple(each for each in report.streams if each.tenant == tenant)
    return msgspec.structs.replace(report, tenant=tenant, streams=streams, together=None, canary=None)


def as_text(report: Report) -> str:
    """Return it for a terminal."""
    text = words.as_text(report)
    return text if report.canary is None else text + "\n" + "\n".join(canary_lines(report.canary)) + "\n"
