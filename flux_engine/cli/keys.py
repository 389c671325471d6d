"""`python -m flux_engine keys`: who may use the gateway.

python -m flux_engine keys create --user ada                            prints the key, once
python -m flux_engine keys create --user ci --scope read --expires 90d
python -m flux_engine keys list
python -m flux_engine keys revoke 7Qm2xPf0aLzT                          the id, or the whole key
python -m flux_engine keys revoke --user ada                            every key and token of a user

Keys are kept in Redis, under REDIS_URL and CACHE_NAMESPACE as the gateway reads them. What `create` prints on standard
output is the key alone, for scripts.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from flux_engine.cache.manager import server_of
from flux_engine.cache.redis_link import CacheAway, RedisLink
from flux_engine.gateway.security.key_store import KeyStore
from flux_engine.gateway.security.keys import PREFIX, SCOPES, KeyRecord, key_id_of, mint
from flux_engine.gateway.settings import GatewaySettings
from flux_engine.settings import SettingsError, default_cache_folder

DEFAULT_SCOPES: Final = ("generate", "read")
UNITS_S: Final = {"m": 60, "h": 3_600, "d": 86_400, "y": 31_536_000}
MAX_EXPIRY_S: Final = 100 * UNITS_S["y"]


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    try:
        return asyncio.run(_run(options, GatewaySettings.from_environment(os.environ)))
    except SettingsError as error:
        sys.exit(str(error))
    except CacheAway as error:
        sys.exit(f"{error}: the keys are kept in Redis; see REDIS_URL")


async def _run(options: argparse.Namespace, settings: GatewaySettings) -> int:
    link = RedisLink(server_of(settings.shared, cache_folder=default_cache_folder()), retry_after_s=0)
    store = KeyStore(link, root=settings.redis_root)
    try:
        match options.command:
            case "create":
                return await _create(store, options)
            case "list":
                return await _list(store)
            case _:
                return await _revoke(store, options)
    finally:
        await link.close()


async def _create(store: KeyStore, options: argparse.Namespace) -> int:
    expires_at = time.time() + options.expires if options.expires is not None else None
    try:
        key, record = mint(options.user, frozenset(options.scopes or DEFAULT_SCOPES), expires_at=expires_at)
    except ValueError as error:
        sys.exit(f"--user: {error}")
    if not await store.add(record):
        sys.exit("the id of the new key is taken; try again")
    print(f"a key of {record.user} for {_scopes(record)}, shown this once:", file=sys.stderr)
    print(key.get_secret_value())
    return 0


async def _list(store: KeyStore) -> int:
    rows = [("ID", "USER", "SCOPES", "CREATED", "EXPIRES", "STATE")]
    rows += [(r.id, r.user, _scopes(r), _day(r.created_at), _day(r.expires_at), _state(r)) for r in await store.all()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


async def _revoke(store: KeyStore, options: argparse.Namespace) -> int:
    if options.user is not None:
        ids = [record.id for record in await store.all() if record.user == options.user]
        await store.end_tokens(options.user)
    else:
        ids = [key_id_of(name) or name for name in options.ids]
    revoked = [key_id for key_id in ids if await store.revoke(key_id)]
    for unknown in sorted(set(ids) - set(revoked)):
        print(f"no such key: {unknown if not unknown.startswith(PREFIX) else 'its checksum is wrong'}", file=sys.stderr)
    print(f"revoked: {', '.join(revoked) or 'none'}; every gateway refuses them within a second", file=sys.stderr)
    return 0 if len(revoked) == len(ids) and (ids or options.user is not None) else 1


def _scopes(record: KeyRecord) -> str:
    return ",".join(scope for scope in SCOPES if scope in record.scopes)


def _day(moment: float | None) -> str:
    return "-" if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")


def _state(record: KeyRecord) -> str:
    if record.revoked_at is not None:
        return f"revoked {_day(record.revoked_at)}"
    return "live" if record.is_live(time.time()) else "expired"


def _duration(text: str) -> float:
    found = re.fullmatch(r"([1-9][0-9]{0,6})([mhdy])", text)
    seconds = int(found[1]) * UNITS_S[found[2]] if found else 0
    if not 0 < seconds <= MAX_EXPIRY_S:
        raise argparse.ArgumentTypeError("a number with m, h, d or y, such as 90d, and at most 100y")
    return float(seconds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flux_engine keys", description="Who may use the gateway.")
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create", help="make a key and print it, once")
    create.add_argument("--user", required=True, help="whose tasks and limits it is for")
    create.add_argument(
        "--scope", action="append", dest="scopes", choices=SCOPES, help="may be given again; generate and read"
    )
    create.add_argument("--expires", type=_duration, metavar="TIME", help="such as 90d; without it the key stays")
    commands.add_parser("list", help="every key, without its secret")
    revoke = commands.add_parser("revoke", help="end keys, and the tokens that they were traded for")
    which = revoke.add_mutually_exclusive_group(required=True)
    which.add_argument("ids", nargs="*", default=[], metavar="ID", help="as `list` shows it")
    which.add_argument("--user", help="every key and token of this user")
    return parser
