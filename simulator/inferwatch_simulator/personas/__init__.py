"""One persona per engine: what it accepts, and the bytes it answers with. vLLM's, the oldest, has routes of its own."""
