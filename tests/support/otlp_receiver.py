"""Receivers of OTLP, over HTTP and gRPC, made from opentelemetry-proto. Ill ones are `bench/otlp_endpoint.py`."""

import contextlib
import gzip
import socket
import socketserver
import ssl
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1 import common_pb2

_REQUESTS = {
    "/v1/traces": trace_service_pb2.ExportTraceServiceRequest,
    "/v1/metrics": metrics_service_pb2.ExportMetricsServiceRequest,
    "/v1/logs": logs_service_pb2.ExportLogsServiceRequest,
}


class Received:
    """What came, in the order in which it came."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests: dict[str, list[Any]] = {path: [] for path in _REQUESTS}
        self.raw = bytearray()  # all bytes, as sent
        self.headers: list[dict[str, str]] = []

    def take(self, path: str, body: bytes) -> None:
        with self._lock:
            self.raw += body
            self.requests[path].append(_REQUESTS[path].FromString(body))

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for request in self.requests["/v1/traces"]
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def trace(self, trace_id: str) -> list[Any]:
        """Return the spans of one trace."""
        return [span for span in self.spans if span.trace_id.hex() == trace_id]

    @property
    def logs(self) -> list[Any]:
        return [
            record
            for request in self.requests["/v1/logs"]
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    @property
    def collections(self) -> list[dict[str, Any]]:
        """Metrics by name, of each collection."""
        return [
            {
                metric.name: metric
                for resource in request.resource_metrics
                for scope in resource.scope_metrics
                for metric in scope.metrics
            }
            for request in self.requests["/v1/metrics"]
        ]

    @property
    def metrics(self) -> dict[str, Any]:
        """The latest of each name."""
        return {name: metric for collection in self.collections for name, metric in collection.items()}

    def wait(self, what: str, count: int = 1, timeout_s: float = 15.0) -> list[Any]:
        """Wait until so many `spans`, `logs` or `collections` have come."""
        due_s = time.monotonic() + timeout_s
        while len(found := getattr(self, what)) < count and time.monotonic() < due_s:
            time.sleep(0.02)
        assert len(found) >= count, f"{len(found)} {what}, expected {count}"
        return list(found)


def attributes(item: Any) -> dict[str, Any]:
    """Return the attributes of a span, an event, a link or a resource."""
    return {each.key: _value(each.value) for each in item.attributes}


def _value(value: common_pb2.AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None


class Identity(NamedTuple):
    """Certificate files of a receiver; `clients`: whose certificates it asks for, None: it asks for none."""

    chain: Path
    key: Path
    clients: Path | None = None


@contextlib.contextmanager
def http_receiver(identity: Identity | None = None) -> Iterator[tuple[str, Received]]:
    """Receive over HTTP, or HTTPS with an identity; yields (base URL, what came)."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            elif self.headers.get("content-encoding") == "deflate":
                body = zlib.decompress(body)
            received.headers.append(dict(self.headers.items()))
            received.take(self.path, body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Who hangs up, or does not trust us, is no fault of this side."""

    server = Server(("127.0.0.1", 0), Handler)
    if identity is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=identity.clients)
        context.load_cert_chain(identity.chain, identity.key)
        context.verify_mode = ssl.CERT_REQUIRED if identity.clients else ssl.CERT_NONE
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http{'s' if identity else ''}://127.0.0.1:{server.server_address[1]}", received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def listened_in(url: str) -> Iterator[tuple[str, bytearray]]:
    """Stand before a receiver without TLS; yields (another base URL for it, all bytes that were sent there).

    gRPC's servers do not tell how a message was compressed.
    """
    there = urlsplit(url)
    heard = bytearray()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((there.hostname, there.port)) as onward:
                back = threading.Thread(target=pass_on, args=(onward, self.request, bytearray()))
                back.start()
                pass_on(self.request, onward, heard)
                back.join()

    def pass_on(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                kept += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", heard
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def grpc_receiver(identity: Identity | None = None) -> Iterator[tuple[str, Received]]:
    """Receive over gRPC, with TLS if it has an identity; yields (base URL, what came)."""
    received = Received()
    server = grpc.server(ThreadPoolExecutor(max_workers=2))

    def service(path: str, answer: Any) -> Any:
        class Service:
            def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
                received.headers.append(dict(context.invocation_metadata()))
                received.take(path, request.SerializeToString())
                return answer()

        return Service()

    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(
        service("/v1/traces", trace_service_pb2.ExportTraceServiceResponse), server
    )
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(
        service("/v1/metrics", metrics_service_pb2.ExportMetricsServiceResponse), server
    )
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(
        service("/v1/logs", logs_service_pb2.ExportLogsServiceResponse), server
    )
    if identity is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        pairs = [(identity.key.read_bytes(), identity.chain.read_bytes())]
        clients = identity.clients.read_bytes() if identity.clients else None
        credentials = grpc.ssl_server_credentials(pairs, clients, require_client_auth=clients is not None)
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"http{'s' if identity else ''}://127.0.0.1:{port}", received
    finally:
        server.stop(None).wait()
