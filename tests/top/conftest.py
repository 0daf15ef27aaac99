"""A frame for each test."""

from typing import Any

import live_frame
import pytest


@pytest.fixture(name="frame")
def _frame() -> dict[str, Any]:
    return live_frame.frame()
