"""One persona per engine: what it accepts, and the bytes it answers with."""
