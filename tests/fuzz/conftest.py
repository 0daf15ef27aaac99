"""The relay's harness, for the fuzzers."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import uvloop

_HERE = Path(__file__).parent
sys.path[:0] = [str(_HERE), str(_HERE.parent / "relay")]  # importlib mode keeps helpers off the path


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """uvloop, as in production, unless told otherwise."""
    if os.environ.get("INFERWATCH_TEST_LOOP") == "asyncio":
        return {"asyncio": asyncio.new_event_loop}
    return {"uvloop": uvloop.new_event_loop}
