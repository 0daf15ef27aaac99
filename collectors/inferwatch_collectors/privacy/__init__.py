"""What is personal in a text, and what stands in its place: detection in linear time, and keyed pseudonyms.

Needs the extra `privacy`. Nothing outside imports a module of this package before the configuration asks for it.
"""
