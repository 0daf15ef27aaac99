"""One scanner for all: compiling the patterns takes longer than any test."""

import base64
from pathlib import Path

import pytest
from privacy_keys import KEY

from inferwatch_collectors.privacy.entities import chosen
from inferwatch_collectors.privacy.keys import Keys
from inferwatch_collectors.privacy.pseudonyms import Pseudonyms
from inferwatch_collectors.privacy.redaction import Redactor
from inferwatch_collectors.privacy.scanner import Scanner


@pytest.fixture(scope="session")
def scanner() -> Scanner:
    return Scanner(chosen())


@pytest.fixture(scope="session")
def redactor(scanner: Scanner) -> Redactor:
    return Redactor(scanner, Pseudonyms(Keys({"k1": KEY}, 90)))


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "privacy.keys"
    path.write_text(f"k1 {base64.b64encode(KEY).decode()}\n")
    return path
