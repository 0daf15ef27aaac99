"""Files and variables that the configuration names: keys, certificates, price lists."""

import asyncio
import contextlib
import ssl
import stat
import time
from pathlib import Path
from typing import Final

from inferwatch.doctor.finding import Finding, Level
from inferwatch.doctor.patient import Patient
from inferwatch.secret_file import variable
from inferwatch.tenants import MIN_SECRET_BYTES, read_table

# Issuers renew at 30 days before the end; later than this nobody will.
CERTIFICATE_DAYS: Final = 14

SECONDS_PER_DAY: Final = 86_400


async def tenants(patient: Patient) -> list[Finding]:
    """Whether the keys of tenants can be read, and by whom else."""
    return await asyncio.to_thread(_tenants, patient)


def _tenants(patient: Patient) -> list[Finding]:
    known = patient.config.tenants.known
    if not known:
        what = "none are configured: each API key is a tenant of its own, under a hash"
        return [Finding(check="tenants", level=Level.NOTE, what=what, remedy="name them under `tenants.known`")]
    try:
        _ = read_table(patient.config.tenants, bytes(MIN_SECRET_BYTES))
    except ValueError as error:  # a ConfigError: it names the key and never quotes one
        return [Finding(check="tenants", level=Level.FAULT, what=str(error), remedy="correct it, then reload")]
    found = [Finding(check="tenants", level=Level.OK, what=f"{len(known)} with names")]
    for index, tenant in enumerate(known):
        if tenant.keys_file and Path(tenant.keys_file).stat().st_mode & stat.S_IROTH:
            what = f"tenants.known[{index}].keys_file can be read by everybody on this host"
            remedy = f"chmod o-r {tenant.keys_file}"
            found.append(Finding(check="tenants", level=Level.WARNING, what=what, remedy=remedy))
    return found


async def keys(patient: Patient) -> list[Finding]:
    """Whether the variables are set that hold keys of the engine and of embeddings."""
    canary, embeddings = patient.config.canary, patient.config.drift.embeddings
    named = {
        "canary.key_env": canary.key_env if canary.enabled else "",
        "drift.embeddings.key_env": embeddings.key_env if embeddings.is_used else "",
    }
    return [
        Finding(
            check="keys",
            level=Level.WARNING,
            what=f"{key}: there is no environment variable `{name}` here, or it is empty",
            remedy="set it where `serve` is started, and here",
        )
        for key, name in named.items()
        if name and not variable(name)
    ]


async def certificate(patient: Patient) -> list[Finding]:
    """Whether clients will be shown a certificate that is still good for a while."""
    if not patient.config.tls.cert_file:
        return []
    return await asyncio.to_thread(_certificate, patient)


def _certificate(patient: Patient) -> list[Finding]:
    tls = patient.config.tls
    remedy = "give the PEM chain in `tls.cert_file` and its own key in `tls.key_file`"
    try:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(tls.cert_file, tls.key_file or None)
        left = _days_left(server, tls.cert_file)
    except ssl.SSLCertVerificationError as error:
        what = f"the certificate in tls.cert_file: {error.verify_message}"
        return [Finding(check="tls", level=Level.FAULT, what=what, remedy="renew it, then restart")]
    except OSError as error:  # ssl.SSLError is one
        reason = getattr(error, "reason", None) or error.strerror or "not a PEM certificate"
        return [Finding(check="tls", level=Level.FAULT, what=f"tls.cert_file: {reason}", remedy=remedy)]
    if left < CERTIFICATE_DAYS:
        what = f"the certificate ends in {left:.0f} days"
        return [Finding(check="tls", level=Level.WARNING, what=what, remedy="renew it, then restart")]
    return [Finding(check="tls", level=Level.OK, what=f"the certificate is good for {left:.0f} days")]


def _days_left(server: ssl.SSLContext, chain_file: str) -> float:
    """Return the days until the certificate that `server` shows ends, by shaking hands with it in memory.

    Only a verified certificate tells its dates, so the client trusts the file itself.

    Raises:
        ssl.SSLError: it is not valid any more, or not yet.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(chain_file)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours, theirs = client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)
    for _ in range(2):  # hello, answer, verdict
        for side in (ours, theirs):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    shown = ours.getpeercert() or {}
    return (ssl.cert_time_to_seconds(str(shown["notAfter"])) - time.time()) / SECONDS_PER_DAY


async def prices(patient: Patient) -> list[Finding]:
    """Whether what is served has a price."""
    config = patient.config
    if not config.prices.rules and config.cost.hourly_dollars is None and config.cost.purchase_dollars is None:
        what = "neither prices nor the cost of the hardware are configured: no money is shown"
        return [
            Finding(check="prices", level=Level.NOTE, what=what, remedy="set `cost.hourly_dollars` or `prices.rules`")
        ]
    return []
