"""What the tests of embeddings share."""

from collections.abc import AsyncIterator

import pytest
from embedding_endpoint import Endpoint


@pytest.fixture(name="endpoint")
async def _endpoint() -> AsyncIterator[Endpoint]:
    endpoint = Endpoint()
    await endpoint.server.start_server()
    yield endpoint
    await endpoint.server.close()
