"""What is said of a request without an answer: the kind of fault, and nothing of a peer's."""

from types import SimpleNamespace

import aiohttp
import pytest

from inferwatch.http_words import why

KEY = SimpleNamespace(host="h", port=1, ssl=True, is_ssl=True)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (aiohttp.ClientConnectorCertificateError(KEY, ValueError("s3cret")), "the certificate is not trusted"),
        (aiohttp.ClientConnectorSSLError(KEY, OSError(1, "s3cret")), "no TLS connection"),
        (aiohttp.ClientConnectorDNSError(KEY, OSError(-2, "s3cret")), "the host's name is not known"),
        (aiohttp.ClientConnectorError(KEY, ConnectionRefusedError(111, "s3cret")), "Connection refused"),
        (aiohttp.ClientConnectorError(KEY, OSError("s3cret")), "no connection"),
        (aiohttp.ServerDisconnectedError("s3cret"), "the connection was closed without an answer"),
        (aiohttp.ClientResponseError(None, (), message="s3cret"), "the answer is not HTTP"),  # type: ignore[arg-type]
        (aiohttp.ClientPayloadError("s3cret"), "ClientPayloadError"),
        (ValueError("s3cret"), "ValueError"),
    ],
)
def test_each_fault(error: Exception, words: str) -> None:
    """A certificate is also a connection's fault, and a name is: the closer word wins."""
    assert why(error) == words
