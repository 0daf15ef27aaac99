"""A Redis of our own for a test: started, killed, and started again with all, some or none of its data."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import redis
import trustme
from stack import free_ports, wait_until


class RedisServer:
    """One server process after another, on one port and in one folder; with an `authority` it speaks TLS alone."""

    def __init__(self, folder: Path, *flags: str, authority: trustme.CA | None = None) -> None:
        self.folder = folder
        self._flags = flags
        self._authority = authority
        (self.port,) = free_ports(1)
        self.url = f"{'redis' if authority is None else 'rediss'}://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "RedisServer":
        self.folder.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            [
                *("redis-server", "--bind", "127.0.0.1", "--dir", str(self.folder), *self._listening()),
                *("--appendonly", "yes", "--save", "", "--loglevel", "warning", *self._flags),
            ],
            stdout=subprocess.DEVNULL,
        )
        wait_until(self._answers, "Redis", 10)
        return self

    def _listening(self) -> list[str]:
        if self._authority is None:
            return ["--port", str(self.port)]
        cert, key, ca = (self.folder / name for name in ("cert.pem", "key.pem", "ca.pem"))
        issued = self._authority.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(cert)
        issued.private_key_pem.write_to_path(key)
        self._authority.cert_pem.write_to_path(ca)
        files = ["--tls-cert-file", str(cert), "--tls-key-file", str(key), "--tls-ca-cert-file", str(ca)]
        return ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no", *files]

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.exceptions.AuthenticationError:
            return True
        except redis.exceptions.ConnectionError:
            return False

    def client(self) -> Any:
        tls = {} if self._authority is None else {"ssl": True, "ssl_ca_certs": str(self.folder / "ca.pem")}
        return redis.Redis(host="127.0.0.1", port=self.port, protocol=2, **tls)

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
        with self.client() as client:
            return sum(
                msgspec.msgpack.decode(entry)[1]
                for key in client.keys(f"{{{namespace}}}:account:*")
                for entry in client.hvals(key)
            )
