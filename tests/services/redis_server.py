"""A Redis of our own for a test: started, killed, and started again with all, some or none of its data."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import redis
from stack import free_ports, wait_until


class RedisServer:
    """One server process after another, on one port and in one folder."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder
        self._flags = flags
        (self.port,) = free_ports(1)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "RedisServer":
        self.folder.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            [
                *("redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
                *("--appendonly", "yes", "--save", "", "--loglevel", "warning", *self._flags),
            ],
            stdout=subprocess.DEVNULL,
        )
        wait_until(self._answers, "Redis", 10)
        return self

    def _answers(self) -> bool:
        try:
            return bool(self.client().ping())
        except redis.exceptions.AuthenticationError:
            return True
        except redis.exceptions.ConnectionError:
            return False

    def client(self) -> Any:
        return redis.Redis(port=self.port, protocol=2)

    def kill(self) -> None:
        """As the kernel would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def forget(self) -> None:
        """Lose what is on disk."""
        shutil.rmtree(self.folder)

    def spent(self, namespace: str = "inferwatch") -> int:
        """What Redis knows of all accounts and hosts."""
        client = self.client()
        return sum(
            msgspec.msgpack.decode(entry)[1]
            for key in client.keys(f"{{{namespace}}}:account:*")
            for entry in client.hvals(key)
        )
