"""Traces, metrics and logs by OTLP. Needs the extra `otlp` or `otlp-grpc`, and is imported only if configured."""
