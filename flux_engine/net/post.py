"""Posting to a URL that a client named, under the same guard as fetching (door.py): webhooks.

No redirect is followed: it would carry a signed body to an address that nobody has named. Nothing of the answer is read
but its status, so that a webhook is no way to look at what another service answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from flux_engine.errors import InputFetchFailed
from flux_engine.net.door import AddressRefused, Door


@dataclass(frozen=True, slots=True)
class Answer:
    """How a post ended: the status, or why there is none. `reason` holds no address."""

    status: int | None
    reason: str = ""


class Poster(Door):
    """Posts for clients.

        answer = await Poster().post("https://example.com/hook", body=b"{}", headers={}, total_timeout_s=15)

    The arguments are those of Door.
    """

    async def post(self, url: str, *, body: bytes, headers: Mapping[str, str], total_timeout_s: float) -> Answer:
        """Send `body` once and say how that ended. Raises nothing but a cancellation."""
        try:
            target = self._checked(url, None)
            async with (
                asyncio.timeout(total_timeout_s),
                self._session() as session,
                session.post(target, data=body, headers=headers, allow_redirects=False) as response,
            ):
                return Answer(response.status)
        except InputFetchFailed as error:
            reason = error.message
        except TimeoutError:
            reason = f"no answer within {total_timeout_s:g} s"
        except AddressRefused:
            reason = "the URL's address is refused; use one that is public"
        except aiohttp.ClientConnectorDNSError:
            reason = "the URL's host name is not known"
        except aiohttp.ClientSSLError:
            reason = "the URL's host has no valid certificate for https"
        except (aiohttp.ClientError, OSError, ValueError):
            reason = "the connection failed or broke off"
        return Answer(None, reason)
