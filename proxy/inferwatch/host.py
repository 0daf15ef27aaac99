"""What `serve` needs of the machine: listening sockets, a folder of its own, and a secret. Each fault names its key."""

import contextlib
import fcntl
import hashlib
import os
import resource
import secrets
import socket
from pathlib import Path
from typing import Final

from inferwatch import board, config
from inferwatch.config import Config, ConfigError

SECRET_BYTES: Final = 32

# As many as the systemd unit allows; beyond the streams that any host of GPUs serves.
MAX_OPEN_FILES: Final = 65_536

# In the state folder: where the admin port of the running Inferwatch is.
ADMIN_NOTE: Final = "admin.address"

# sun_path has 108 bytes with the closing zero.
MAX_SOCKET_PATH_BYTES: Final = 107


def forbid_core_dumps() -> None:
    """Have the kernel write no image of our memory after a crash, nor of our children's: prompts are in it."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def allow_open_files() -> None:
    """Take as many files as are to be had, up to MAX_OPEN_FILES; our children inherit it.

    Each open stream is two sockets, and shells and Docker begin with 1,024: engines raise it, and we must not be the
    narrow place in front of one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def bind(key: str, address: str, count: int) -> list[socket.socket]:
    """Bind `count` listening sockets to one address.

    Raises:
        ConfigError: naming `key`.
    """
    host, port = config.parse_address(key, address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if count > 1:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((host, port))
            port = sock.getsockname()[1]
            sock.listen(4096)
            sock.setblocking(False)
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise ConfigError(f"{key}: cannot listen on {address}: {error.strerror or error}") from None
    return sockets


def state_path(loaded: Config) -> Path:
    """Return where the state folder is, whether it exists or not.

    Raises:
        ConfigError: it is in the home directory of somebody who has none.
    """
    port = config.parse_address("listen", loaded.listen)[1]
    chosen = loaded.state_dir or os.environ.get("STATE_DIRECTORY", "")
    if not chosen:
        home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        chosen = str(Path(home) / "inferwatch" / str(port))
    try:
        return Path(chosen).expanduser()
    except RuntimeError:
        raise ConfigError(f"state_dir: {chosen}: there is no such home directory; name a folder") from None


def state_dir(loaded: Config) -> Path:
    """Return a writable folder that is ours alone.

    Raises:
        ConfigError: it cannot be made, or another Inferwatch uses it.
    """
    folder = state_path(loaded)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held until the process ends
    except BlockingIOError:
        raise ConfigError(f"state_dir: {folder} is in use by another Inferwatch") from None
    except OSError as error:
        raise ConfigError(f"state_dir: {folder}: {error.strerror or error}") from None
    return folder


def note_admin(state: Path, admin: tuple[str, int]) -> None:
    """Note in the state folder where the admin port is, for health checks. A disk that is full is no reason to stop."""
    note = state / ADMIN_NOTE
    try:
        fresh = note.with_suffix(".new")
        fresh.write_text(config.address_text(*admin) + "\n", encoding="ascii")
        fresh.replace(note)
    except OSError:
        forget_admin(state)


def forget_admin(state: Path) -> None:
    """Nobody listens there any more."""
    with contextlib.suppress(OSError):
        (state / ADMIN_NOTE).unlink(missing_ok=True)


def noted_admin(state: Path) -> str:
    """Return where the admin port is of the Inferwatch that has this state folder, "" if that is not noted."""
    try:
        text = (state / ADMIN_NOTE).read_text(encoding="ascii").strip()
        _ = config.parse_address("admin", text)
    except (OSError, ValueError):  # ConfigError is one
        return ""
    return text


def socket_dir(state: Path) -> Path:
    """Return where the tap's socket goes: a Unix socket's path has 107 bytes at most, so not in a deep state folder."""
    if _fits(state):
        return state
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or "/run/user/0")
    if not os.access(runtime, os.W_OK):
        raise ConfigError(f"state_dir: {state} is too long for a Unix socket in it, and there is no XDG_RUNTIME_DIR")
    # Named after the state folder, which is locked: the next life of this Inferwatch finds and uses it again.
    folder = runtime / f"inferwatch-{hashlib.blake2b(str(state).encode(), digest_size=8).hexdigest()}"
    if not _fits(folder):
        raise ConfigError(f"state_dir: {state} is too long for a Unix socket in it, and so is {folder}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"state_dir: {folder} for the socket: {error.strerror}") from None
    return folder


def clean_board(state: Path, otherwise: Path) -> Path:
    """Return where the board of budgets goes, without what an earlier life left there.

    Raises:
        ConfigError: something is there that cannot be removed.
    """
    path = board.place(state, otherwise)
    try:
        board.clear(path)
    except OSError as error:
        raise ConfigError(f"state_dir: {path}, left by an earlier life: {error.strerror}") from None
    return path


def _fits(folder: Path) -> bool:
    return len(str(folder / "tap.sock").encode()) <= MAX_SOCKET_PATH_BYTES


def identity_secret(loaded: Config, state: Path) -> bytes:
    """Return the secret behind the hashes of API keys, making one at the first start.

    Raises:
        ConfigError: the file is unreadable or too short.
    """
    path = Path(loaded.identity.key_file) if loaded.identity.key_file else state / "identity.key"
    try:
        if not loaded.identity.key_file and not path.exists():
            fresh = path.with_suffix(".new")
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(SECRET_BYTES))
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(path)  # whole or not at all: half a key would change every tenant's name
        secret = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"identity.key_file: {path}: {error.strerror}") from None
    if len(secret.strip()) < 16:
        raise ConfigError(f"identity.key_file: {path} holds {len(secret.strip())} bytes, expected at least 16")
    return secret
