"""What is kept of a comment: content, so as much as `privacy.content` allows its tenant, and nothing if that fails.

A fault in looking at it costs the comment, not the vote.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from inferwatch.settings.privacy import Privacy
from inferwatch_collectors.fence import Fence
from inferwatch_collectors.privacy.start import redactor

if TYPE_CHECKING:  # it needs the extra `privacy`
    from inferwatch_collectors.privacy.redaction import Redactor

# Results, the label values of `inferwatch_feedback_comments_total`.
KEPT: Final = "kept"
DROPPED: Final = "dropped"
FAILED: Final = "failed"
RESULTS: Final = (KEPT, DROPPED, FAILED)

STAGE: Final = "comment"


class Comments:
    """Says what is kept, and counts. Looks at texts in a thread of its own: a scan may take a second."""

    def __init__(self, settings: Privacy, fault: Callable[[str], None]) -> None:
        """`fault` takes the stage of each fault of ours."""
        self._fence = Fence(fault)
        self._settings = settings
        self._modes = {own.tenant: own.content for own in settings.tenants}
        self._redactor: Redactor | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="comments")
        self.results: Counter[str] = Counter()

    async def kept(self, comment: str, tenant: str, wall_s: float) -> str:
        """Return what is kept of a comment of this tenant's."""
        if not comment:
            return ""
        mode = self._modes.get(tenant, self._settings.content)
        if mode == "none":
            self.results[DROPPED] += 1
            return ""
        loop = asyncio.get_running_loop()
        looked = loop.run_in_executor(self._thread, self._looked_at, comment, mode, tenant, wall_s)
        await asyncio.wait([looked])
        text = self._fence.run(STAGE, time.monotonic_ns(), looked.result)  # here: counting is the loop's
        self.results[FAILED if text is None else KEPT] += 1
        return text or ""

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _looked_at(self, comment: str, mode: str, tenant: str, wall_s: float) -> str | None:
        from inferwatch_collectors.privacy.base import ScanTimeoutError  # noqa: PLC0415 - the extra

        if self._redactor is None:
            self._redactor = redactor(self._settings)
        look = self._redactor.fingerprint if mode == "fingerprint" else self._redactor.hashed
        try:
            return look(comment, tenant, wall_s).text
        except ScanTimeoutError:
            return None
