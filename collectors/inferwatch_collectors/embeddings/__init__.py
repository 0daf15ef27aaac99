"""Embeddings of prompts, from an endpoint: asked for, projected under a key, and forgotten."""
