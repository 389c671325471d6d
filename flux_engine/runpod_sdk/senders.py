"""What a running job sends to the platform: its progress, and the parts of a streamed answer."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import Any, Final

from flux_engine.openai.call import Stream
from flux_engine.progress import Send, Update

PART_CHARACTERS: Final = 450_000  # the platform takes 1 MB; JSON may double each
POST_TIMEOUT_S: Final = 10.0

log = logging.getLogger(__name__)


def progress_sender(job: Mapping[str, Any]) -> Send | None:
    """A sender to the platform's result URL, or None where there is no platform."""
    if not os.environ.get("RUNPOD_WEBHOOK_POST_OUTPUT"):
        return None
    import aiohttp
    from runpod.http_client import AsyncClientSession
    from runpod.serverless.modules import rp_http

    url = rp_http.JOB_DONE_URL.replace("$ID", str(job["id"])) + "&isStream=false"

    async def send(update: Update) -> None:
        body = json.dumps({"status": "IN_PROGRESS", "output": update}, ensure_ascii=False)
        headers = {"X-Request-ID": str(job["id"]), "Content-Type": "application/x-www-form-urlencoded"}
        timeout = aiohttp.ClientTimeout(total=POST_TIMEOUT_S)
        try:
            async with (
                AsyncClientSession() as session,
                session.post(url, data=body, headers=headers, timeout=timeout) as response,
            ):
                await response.read()
        except aiohttp.ClientError as error:
            raise OSError(type(error).__name__) from error

    return send


def part_sender(job: Mapping[str, Any]) -> Stream | None:
    """A sender to the platform's stream of `job`, or None where there is no platform.

    The SDK offers its stream to generator handlers alone; this is what it does for one. A text over the platform's
    limit of a part goes as several, to be put together by whoever reads them.
    """
    if not os.environ.get("RUNPOD_WEBHOOK_POST_STREAM"):
        return None
    from runpod.http_client import AsyncClientSession
    from runpod.serverless.modules import rp_http

    if not hasattr(rp_http, "stream_result"):
        log.warning("runpod SDK changed: streamed requests are answered in one piece")
        return None

    async def send(text: str) -> None:
        async with AsyncClientSession() as session:
            for start in range(0, len(text), PART_CHARACTERS):
                await rp_http.stream_result(session, {"output": text[start : start + PART_CHARACTERS]}, dict(job))

    return send
