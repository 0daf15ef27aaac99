"""TLS to the receiver, over both transports: whom we trust, and who we say we are."""

import time
from contextlib import AbstractContextManager
from pathlib import Path

import certifi
import pytest
import trustme
from otlp_receiver import Identity, Received, grpc_receiver, http_receiver
from otlp_records import Export, Make

from inferwatch_collectors.otlp.export import OtlpExport


class Papers:
    """Certificate files of one authority."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.authority = folder / "authority.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        self.server = self._issue(authority, folder / "server", "127.0.0.1")
        self.client = self._issue(authority, folder / "client", "client.example")

    @staticmethod
    def _issue(authority: trustme.CA, path: Path, name: str) -> Identity:
        issued = authority.issue_cert(name)
        found = Identity(path.with_suffix(".pem"), path.with_suffix(".key"))
        issued.private_key_pem.write_to_path(str(found.key))
        for number, blob in enumerate(issued.cert_chain_pems):
            blob.write_to_path(str(found.chain), append=bool(number))
        return found


@pytest.fixture(scope="module", name="papers")
def _papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


@pytest.fixture(params=["http/protobuf", "grpc"], name="protocol")
def _protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def receiver(protocol: str, identity: Identity) -> AbstractContextManager[tuple[str, Received]]:
    return grpc_receiver(identity) if protocol == "grpc" else http_receiver(identity=identity)


def fails(exported: OtlpExport) -> bool:
    """Wait until it is known what became of the only span."""
    box = exported._traces
    assert box is not None
    due_s = time.monotonic() + 15
    while not box.exported + box.failed and time.monotonic() < due_s:
        time.sleep(0.02)
    return box.failed == 1


def test_a_receiver_with_a_certificate_of_a_known_authority(
    export: Export, record: Make, papers: Papers, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTEL_EXPORTER_OTLP_CERTIFICATE names the authority, for all signals or for one; whomever the host trusts else."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
    for name in ("OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE"):
        with monkeypatch.context() as only, receiver(protocol, papers.server) as (url, received):
            only.setenv("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "")
            only.setenv(name, str(papers.authority))
            export(traces=True, endpoint=url, protocol=protocol).record(record())

            assert received.wait("spans", 1)


def test_a_receiver_whose_authority_is_not_known(export: Export, record: Make, papers: Papers, protocol: str) -> None:
    """Gets nothing; the span is counted as failed."""
    with receiver(protocol, papers.server) as (url, received):
        exported = export(traces=True, endpoint=url, protocol=protocol)
        exported.record(record())

        assert fails(exported)
        assert not received.spans


@pytest.mark.parametrize("shown", [True, False], ids=["shown", "not shown"])
def test_a_receiver_that_asks_for_our_certificate(
    export: Export, record: Make, papers: Papers, protocol: str, monkeypatch: pytest.MonkeyPatch, shown: bool
) -> None:
    """It is OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE, with its key; without one nothing is taken."""
    asking = papers.server._replace(clients=papers.authority)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(papers.authority))
    if shown:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", str(papers.client.chain))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", str(papers.client.key))
    with receiver(protocol, asking) as (url, received):
        exported = export(traces=True, endpoint=url, protocol=protocol)
        exported.record(record())

        assert fails(exported) is not shown
        assert len(received.spans) == shown
