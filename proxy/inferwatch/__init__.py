"""Inferwatch: a sidecar that watches self-hosted language models."""

__version__ = "0.1.0"
