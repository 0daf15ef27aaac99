"""Real texts from Debian's packages, unpacked by `run.sh`: paragraphs of 200 to 1,500 characters, without repeats."""

import gzip
import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / ".work" / "texts"

MIN_CHARS: Final = 200
MAX_CHARS: Final = 1_500

_TAG: Final = re.compile(r"<[^>]*>")
_ROFF: Final = re.compile(r"\\f[A-Z(]|\\[&|^%]|\\-|\\\(..|^\.[A-Za-z]+ ?", re.MULTILINE)


def _files(package: str, pattern: str) -> Iterator[str]:
    for path in sorted((FOLDER / package).rglob(pattern)):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            try:
                yield (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8", "ignore")
            except (OSError, EOFError):
                continue


def _paragraphs(text: str, split: str = r"\n\s*\n") -> Iterator[str]:
    for part in re.split(split, text):
        body = re.sub(r"[ \t]+", " ", part).strip()
        if len(body) >= MIN_CHARS:
            yield body[:MAX_CHARS]


def _fortunes(package: str) -> Iterator[str]:
    for path in sorted((FOLDER / package).rglob("*")):
        if path.is_file() and not path.is_symlink() and "fortunes" in str(path.parent) and not path.suffix:
            text = path.read_bytes().decode("utf-8", "ignore")
            for part in re.split(r"\n%\n", text):
                if len(part.strip()) >= 60:
                    yield part.strip()[:MAX_CHARS]


def _manual(package: str) -> Iterator[str]:
    for text in _files(package, "*.gz"):
        if "/man" in package or ".TH" in text or ".SH" in text:
            yield from _paragraphs(_ROFF.sub("", text), r"\n\.(?:PP|P|TP|SH|SS|IP)[^\n]*\n|\n\s*\n")


def _pages(package: str) -> Iterator[str]:
    for text in _files(package, "*.html"):
        for part in re.findall(r"<p[ >].*?</p>", text, re.DOTALL):
            yield from _paragraphs(html.unescape(_TAG.sub("", part)))


def _pod(*, code: bool) -> Callable[[str], Iterator[str]]:
    def read(package: str) -> Iterator[str]:
        for text in _files(package, "*.pod"):
            for part in _joined(text) if code else re.split(r"\n\s*\n", text):
                if part.startswith(("    ", "\t")) == code and not part.startswith("="):
                    body = re.sub(r"[A-Z]<+([^<>]*)>+", r"\1", part).strip("\n")
                    if len(body) >= MIN_CHARS:
                        yield body[:MAX_CHARS]

    return read


def _joined(text: str) -> Iterator[str]:
    """Yield indented blocks with the blank lines in them."""
    yield from re.findall(r"(?:^(?:    |\t)[^\n]*\n(?:\s*\n)?){3,}", text, re.MULTILINE)


def _rst(package: str) -> Iterator[str]:
    for text in _files(package, "*.rst.txt"):
        yield from (part for part in _paragraphs(text) if not part.startswith((".. ", ":", "+", "=", "*")))


def _foldoc(package: str) -> Iterator[str]:
    for text in _files(package, "*.dict.dz"):
        yield from _paragraphs(text)


# name -> (package, reader). The first seven are those of the reference figures; the others were not looked at while the
# features were chosen.
SOURCES: Final[dict[str, tuple[str, Callable[[str], Iterator[str]]]]] = {
    "English short texts": ("fortunes", _fortunes),
    "German short texts": ("fortunes-de", _fortunes),
    "Russian short texts": ("fortunes-ru", _fortunes),
    "Italian short texts": ("fortunes-it", _fortunes),
    "Chinese short texts": ("fortunes-zh", _fortunes),
    "Python documentation": ("python3.11-doc", _rst),
    "English manual pages": ("manpages", _manual),
    "English Perl documentation": ("perl-doc", _pod(code=False)),
    "Perl code": ("perl-doc", _pod(code=True)),
    "French manual pages": ("manpages-fr", _manual),
    "Spanish manual pages": ("manpages-es", _manual),
    "Japanese manual pages": ("manpages-ja", _manual),
    "German manual pages": ("manpages-de", _manual),
    "French questions and answers": ("debian-faq-fr", _pages),
}


def whole(package: str) -> Iterator[str]:
    """Yield all that is text in a package as it stands there, with markup, tables and blanks."""
    yield from (text for text in _files(package, "*") if "\0" not in text)


def texts(name: str) -> list[str]:
    """Return the texts of a source, in an order that is always the same; empty if its package is not there."""
    package, read = SOURCES[name]
    found = list(dict.fromkeys(read(package)))
    if name == "English short texts":  # other packages put other languages into the same folder
        found = [text for text in found if text.isascii()]
    return found
