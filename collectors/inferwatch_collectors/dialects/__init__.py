"""Wire formats, one module each: bytes in, token counts and classes out. No I/O, no clock."""
