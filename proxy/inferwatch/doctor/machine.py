"""This host: ports, folders, limits, clock, GPUs."""

import asyncio
import os
import resource
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Final

from inferwatch import admin_token, host
from inferwatch.board import SHARED_MEMORY
from inferwatch.config import Config, ConfigError, parse_address
from inferwatch.doctor.finding import Finding, Level
from inferwatch.doctor.patient import Patient

# Each open stream is two sockets. A GPU host serves some thousand streams. `serve` raises the soft limit by itself.
ENOUGH_FILES: Final = 16_384

# The ledger takes about 700 bytes a request: this is more than a million of them, and room for the spool.
ENOUGH_DISK_BYTES: Final = 2 * 2**30

# In place of the version of an Inferwatch that runs and wants a token that we do not have.
UNSAID: Final = "of a version that it does not say without a token"

# The clock's discipline is what timedatectl and chrony read as well.
_CLOCK_SYNCHRONISED: Final = Path("/run/systemd/timesync/synchronized")


async def ports(patient: Patient) -> list[Finding]:
    """Whether the ports are free, or held by an Inferwatch."""
    config = patient.config
    running = await running_version(patient)
    found = []
    for key, address in (("listen", config.listen), ("admin", config.admin)):
        where, port = parse_address(key, address)
        error = _bind_error(where, port)
        if not error:
            found.append(Finding(check="ports", level=Level.OK, what=f"{key} {address} is free"))
        elif running and key == "admin":
            found.append(Finding(check="ports", level=Level.OK, what=f"{key} {address}: Inferwatch {running} runs"))
        elif running:
            found.append(_held(address, error, running, await _listens(patient)))
        else:
            remedy = f"stop what has the port (`ss -ltnp 'sport = :{port}'`), or choose another with `--{key}`"
            found.append(Finding(check="ports", level=Level.FAULT, what=f"{key} {address}: {error}", remedy=remedy))
    if _is_loopback(parse_address("admin", config.admin)[0]):
        what = "the admin port listens on loopback: a Prometheus elsewhere cannot scrape it"
        remedy = "let Prometheus run here, or set `admin: 0.0.0.0:9480` with a token (`access.token_file`)"
        found.append(Finding(check="ports", level=Level.NOTE, what=what, remedy=remedy))
    return found


async def _listens(patient: Patient) -> str:
    """Return where the Inferwatch on our admin port has its data port, "" if it does not say."""
    reply = await patient.admin("/config")
    loaded = reply.json if reply.status == 200 else None
    address = loaded.get("listen") if isinstance(loaded, dict) else None
    return address if isinstance(address, str) else ""


def _held(address: str, error: str, running: str, its: str) -> Finding:
    """Return whether the data port is held by the Inferwatch that runs, which has its own at `its`."""
    port = parse_address("listen", address)[1]
    try:
        its_port = parse_address("listen", its)[1]
    except ConfigError:
        its_port = 0
    if not its_port:
        what = f"listen {address} is in use, and the Inferwatch that runs does not say whether by it"
        remedy = f"give its token (`--token-file`), or see who has the port: `ss -ltnp 'sport = :{port}'`"
        return Finding(check="ports", level=Level.NOTE, what=what, remedy=remedy)
    if its_port == port:
        return Finding(check="ports", level=Level.OK, what=f"listen {address}: Inferwatch {running} runs")
    what = f"listen {address}: {error}, and not by the Inferwatch that runs, which listens on {its}"
    remedy = f"stop what has the port (`ss -ltnp 'sport = :{port}'`), or choose another with `--listen`"
    return Finding(check="ports", level=Level.FAULT, what=what, remedy=remedy)


async def access(patient: Patient) -> list[Finding]:
    """Whether the tokens of the admin port can be read, and whether it needs one."""
    return await asyncio.to_thread(_access, patient)


def _access(patient: Patient) -> list[Finding]:
    try:
        digests = admin_token.digests(patient.config.access, patient.config.feedback)
    except ConfigError as error:
        remedy = "write a token there: `openssl rand -hex 32`; the user that runs Inferwatch must be able to read it"
        return [Finding(check="access", level=Level.FAULT, what=str(error), remedy=remedy)]
    if "admin" in digests:
        return [Finding(check="access", level=Level.OK, what="the admin port asks for a token")]
    if _is_loopback(parse_address("admin", patient.config.admin)[0]):
        return []
    what = f"whoever reaches {patient.config.admin} sees tenants and costs, and may reload: it asks for no token"
    remedy = "name a file with a token in `access.token_file`, or let nobody else reach that port"
    return [Finding(check="access", level=Level.WARNING, what=what, remedy=remedy)]


def _is_loopback(where: str) -> bool:
    return where in ("127.0.0.1", "::1", "localhost")


async def running_version(patient: Patient) -> str:
    """Return the version of the Inferwatch on our admin port, "" if there is none, UNSAID if it does not say."""
    reply = await patient.admin("/version")
    if reply.status == 401 and b"access.token_file" in reply.body:
        return UNSAID
    loaded = reply.json if reply.status == 200 else None
    version = loaded.get("version") if isinstance(loaded, dict) else None
    return version if isinstance(version, str) else ""


def _bind_error(where: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in where else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((where, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


async def state(patient: Patient) -> list[Finding]:
    """Whether the ledger's folder can be written, and has room."""
    return await asyncio.to_thread(_state, patient)


def _state(patient: Patient) -> list[Finding]:
    try:
        folder = host.state_path(patient.config)
    except ConfigError as error:
        remedy = "name a folder: `--state-dir`, or `state_dir` in the file"
        return [Finding(check="state folder", level=Level.FAULT, what=str(error), remedy=remedy)]
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent  # it is made at the start
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
        free = shutil.disk_usage(place).free
    except OSError as error:
        remedy = "give the user that runs Inferwatch a folder of its own: `--state-dir`, or mount a volume there"
        what = f"{folder} cannot be written: {error.strerror}"
        return [Finding(check="state folder", level=Level.FAULT, what=what, remedy=remedy)]
    if free < ENOUGH_DISK_BYTES:
        remedy = "make room, or shorten `ledger.retention_days`; when it is full, traffic goes on and records wait"
        what = f"{folder}: {free / 2**20:,.0f} MiB are free"
        return [Finding(check="state folder", level=Level.WARNING, what=what, remedy=remedy)]
    return [Finding(check="state folder", level=Level.OK, what=f"{folder}, {free / 2**30:,.0f} GiB free")]


async def limits(patient: Patient) -> list[Finding]:
    """File descriptors and shared memory."""
    return await asyncio.to_thread(_limits, patient)


def _limits(patient: Patient) -> list[Finding]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = []
    if hard != resource.RLIM_INFINITY and hard < ENOUGH_FILES:
        remedy = f"`ulimit -Hn {ENOUGH_FILES}`, `LimitNOFILE=` in a systemd unit, `ulimits: nofile` in compose"
        what = f"{hard} open files are allowed: about {hard // 2} streams"
        found.append(Finding(check="limits", level=Level.WARNING, what=what, remedy=remedy))
    else:
        allowed = "any number of" if hard == resource.RLIM_INFINITY else hard
        found.append(Finding(check="limits", level=Level.OK, what=f"{allowed} open files are allowed"))
    if patient.config.budgets.rules and not os.access(SHARED_MEMORY, os.W_OK):
        remedy = (
            "mount it (`--shm-size`, an emptyDir with `medium: Memory`): else budgets are on the state folder's disk"
        )
        what = f"{SHARED_MEMORY} cannot be written"
        found.append(Finding(check="limits", level=Level.WARNING, what=what, remedy=remedy))
    return found


async def clock(_: Patient) -> list[Finding]:
    """Whether the host's clock is kept by something, as far as that can be seen from here."""
    if await asyncio.to_thread(_CLOCK_SYNCHRONISED.exists):
        return [Finding(check="clock", level=Level.OK, what="kept by systemd-timesyncd")]
    return []  # chrony, a hypervisor or a container's host may keep it: unknown is not wrong


async def gpu(patient: Patient) -> list[Finding]:
    """Whether GPUs can be read."""
    if patient.config.gpu.source == "none":
        return [Finding(check="gpu", level=Level.NOTE, what="not read (`gpu.source: none`)")]
    return await asyncio.to_thread(_gpu, patient.config)


# source -> what to do if it has none.
_GPU_REMEDIES: Final = {
    "nvidia": "no NVIDIA GPU here: nothing to do, or set `gpu.source: none`. In a container: "
    "`NVIDIA_VISIBLE_DEVICES=all` and `NVIDIA_DRIVER_CAPABILITIES=utility`, or `gpu.nvml_library`",
    "amd": "install ROCm's amdsmi for the Python of Inferwatch, and give a container `/dev/kfd` and `/dev/dri`",
    "simulated": "put it before `inferwatch simulate` (`upstream.url`), or leave `gpu.source` at auto",
}


def _gpu(config: Config) -> list[Finding]:
    from inferwatch_collectors.gpu.base import SourceUnavailableError  # noqa: PLC0415 - pays for its import only here
    from inferwatch_collectors.gpu.monitor import sources_for  # noqa: PLC0415
    from inferwatch_collectors.gpu.nvml_reads import NO_LIBRARY  # noqa: PLC0415

    models: list[str] = []
    faults: dict[str, str] = {}
    for source in sources_for(config.gpu, config.upstream.url):
        try:
            models += [device.identity.model for device in source.open()]
        except SourceUnavailableError as error:
            faults[source.name] = str(error)
    if models:
        return [Finding(check="gpu", level=Level.OK, what=f"{len(models)}: {', '.join(sorted(set(models)))}")]
    # On auto, the first is what there would be most likely: of the others that they are not there is no news.
    name, what = next(iter(faults.items()))
    level = Level.NOTE if NO_LIBRARY in what else Level.WARNING
    return [Finding(check="gpu", level=level, what=what, remedy=_GPU_REMEDIES[name])]
