"""Whether what reaches into aiohttp's internals fits the installed aiohttp, or its portable counterpart must do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

Wanted = Literal["auto", "portable"]
"""`[server] aiohttp`"""

logger = logging.getLogger(__name__)


def fits(wanted: Wanted, part: str, check: Callable[[], None]) -> bool:
    """Whether `part` may use what `check`, which raises where it is not so, has found to be there. The log is told where it
    may not although it should."""
    if wanted == "portable":
        return False
    try:
        check()
    except Exception as exc:  # what an aiohttp that nobody knows does is unknown
        logger.warning(
            "the fast %s does not fit the installed aiohttp, the portable one is used: %s",
            part,
            exc,
            extra={"fields": {"event": "aiohttp_unknown", "part": part, "reason": str(exc)}},
        )
        return False
    return True
