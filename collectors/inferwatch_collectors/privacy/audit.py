"""`inferwatch doctor --privacy FILE`: what would be kept of a text, and what was found in it."""

import sys
import time
from pathlib import Path
from typing import Final

from inferwatch.config import Config, ConfigError
from inferwatch_collectors.privacy import start

# More than any configuration keeps of a request.
MAX_FILE_BYTES: Final = 16 * 1024 * 1024


def show(config: Config, path: str, tenant: str) -> int:
    """Print the text of `path` (`-`: standard input) as `hashed` keeps it; what was found goes to standard error.

    Returns the exit code: 0, or 1 where scanning failed and nothing would be kept.

    Raises:
        ConfigError: the file or the configuration cannot be used.
    """
    text = _read(path)
    keeper = start.redactor(config.privacy)
    from inferwatch_collectors.privacy.base import ScanTimeoutError  # noqa: PLC0415 - the command pays for its imports

    cut = text.encode("utf-8", "replace")[: config.privacy.max_text_bytes].decode("utf-8", "ignore")
    try:
        kept = keeper.hashed(cut, tenant, time.time())
    except ScanTimeoutError as error:
        sys.stderr.write(f"nothing would be kept: {error}\n")
        return 1
    sys.stdout.write(kept.text)
    say = sys.stderr.write
    if len(cut) < len(text):
        say(f"\ncut after privacy.max_text_bytes = {config.privacy.max_text_bytes}\n")
    say("\nfound: " + (", ".join(f"{name} {count}" for name, count in sorted(kept.found.items())) or "nothing") + "\n")
    if not config.privacy.key_file:
        say("privacy.key_file is not set: these pseudonyms are made with a key that nobody has\n")
    say(f"privacy.content is `{config.privacy.content}`: ")
    say({"none": "nothing of it is kept", "hashed": "this is kept"}.get(config.privacy.content, "only hashes are kept"))
    say("\n")
    return 0


def _read(path: str) -> str:
    try:
        if path == "-":
            data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"doctor --privacy: cannot read the file: {getattr(error, 'strerror', 'not a path')}"
        ) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"doctor --privacy: the file has more than {MAX_FILE_BYTES} bytes")
    return data.decode("utf-8", "replace")
