"""Which network addresses a client's URL may lead to: public ones, in whatever form an address is wrapped.

IPv6 is an allow-list: global unicast (2000::/3) without the blocks that are reserved or that carry an IPv4 address
which a router would unwrap (Teredo, 6to4). An IPv4-mapped or NAT64 address counts as the IPv4 address inside.
What this leaves out: a public address whose owner forwards to a private one.
"""

from __future__ import annotations

import ipaddress
from typing import Final

_V4: Final = (  # `is_global` of some releases of Python 3.11 calls these public
    *("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "224.0.0.0/3"),
)
_V6: Final = (
    "2001::/23",  # Teredo, ORCHID, benchmarking and other protocol assignments
    "2001:db8::/32",
    "2002::/16",  # 6to4
    "3fff::/20",
)
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_BLOCKED_V4: Final = tuple(ipaddress.IPv4Network(block) for block in _V4)
_BLOCKED_V6: Final = tuple(ipaddress.IPv6Network(block) for block in _V6)
_ISATAP: Final = (0x00005EFE, 0x02005EFE)  # upper half of the interface identifier


def is_public(text: str) -> bool:
    """Whether `text` is a numeric address that everyone can reach; False for anything but an address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return _is_public_v4(address) if isinstance(address, ipaddress.IPv4Address) else _is_public_v6(address)


def _is_public_v4(address: ipaddress.IPv4Address) -> bool:
    return address.is_global and not any(address in block for block in _BLOCKED_V4)


def _is_public_v6(address: ipaddress.IPv6Address) -> bool:
    if address.scope_id is not None:
        return False
    if (inner := address.ipv4_mapped) is not None:
        return _is_public_v4(inner)
    if address in _NAT64:
        return _is_public_v4(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        return False
    return address in _GLOBAL_UNICAST and address.is_global and not any(address in block for block in _BLOCKED_V6)
