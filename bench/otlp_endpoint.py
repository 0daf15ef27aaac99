"""An OTLP endpoint that can be ill, in a process of its own: `python -m bench.otlp_endpoint PORT PROTOCOL CONDITION`.

PROTOCOL is http or grpc. CONDITION is one of

* `well`: takes what comes;
* `silent`: accepts connections and never says a word;
* `slow`: takes what comes, and answers SLOW_S later, just before the exporter gives up;
* `refusing`: answers 500, or INTERNAL over gRPC.

A dead one is no process at all. When it is ended it prints how many spans it took.
"""

import gzip
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

# The time-out is OpenTelemetry's ten seconds.
SLOW_S: Final = 9.0

TRACES: Final = "/v1/traces"
_SERVICES: Final = "opentelemetry.proto.collector."
_TRACES_METHOD: Final = f"/{_SERVICES}trace.v1.TraceService/Export"


class Taken:
    """What was taken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.spans = 0

    def count(self, body: bytes) -> None:
        """Count the spans of an ExportTraceServiceRequest."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest  # noqa: PLC0415

        request = ExportTraceServiceRequest.FromString(body)
        spans = sum(len(scope.spans) for each in request.resource_spans for scope in each.scope_spans)
        with self._lock:
            self.spans += spans


def serve_http(port: int, condition: str, taken: Taken) -> Callable[[], None]:
    """Serve; returns what ends it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            if condition == "slow":
                time.sleep(SLOW_S)
            if condition != "refusing" and self.path == TRACES:
                taken.count(body)
            self.send_response(500 if condition == "refusing" else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.shutdown


def serve_grpc(port: int, condition: str, taken: Taken) -> Callable[[], None]:
    """Serve; returns what ends it. All three services answer with an empty message."""
    import grpc  # noqa: PLC0415

    def answer(method: str) -> Callable[[bytes, Any], bytes]:
        def export(body: bytes, context: Any) -> bytes:
            if condition == "slow":
                time.sleep(SLOW_S)
            if condition == "refusing":
                context.abort(grpc.StatusCode.INTERNAL, "no")
            if method == _TRACES_METHOD:
                taken.count(body)
            return b""

        return export

    class Everything(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(answer(details.method))  # bytes in, bytes out

    server = grpc.server(ThreadPoolExecutor(max_workers=8), handlers=(Everything(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return lambda: server.stop(None)


def serve_silence(port: int) -> Callable[[], None]:
    """Accept and read, and never answer."""
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)

    def read(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=read, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return lambda: None


def main() -> None:
    """Serve until SIGTERM."""
    port, protocol, condition = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    taken = Taken()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # before the threads, which inherit it
    if condition == "silent":
        stop = serve_silence(port)
    else:
        stop = (serve_http if protocol == "http" else serve_grpc)(port, condition, taken)
    print("ready", flush=True)
    signal.sigwait({signal.SIGTERM})
    stop()
    print(taken.spans, flush=True)
    os._exit(0)  # answers that are still being held back are nobody's concern


if __name__ == "__main__":
    main()
