"""Which addresses a URL that somebody named may lead to: public ones, unless the operator says otherwise.

Law: the address that was looked at is the one that is connected to, so a name that changes its mind between the two
gains nothing. An IPv4 address in the clothes of IPv6 is judged as what it is.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class Forbidden(Exception):  # noqa: N818 - says what the name is
    """The host has no address that may be connected to."""


async def allowed(host: str, port: int, *, private: bool) -> list[str]:
    """The addresses of a host that may be connected to, in the resolver's order.

    Raises Forbidden when there are addresses but none of them may be, OSError when the name cannot be resolved.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    kept = [address for address in addresses if private or is_public(address)]
    if not kept:
        raise Forbidden("the address is private")
    return kept


def is_public(address: str) -> bool:
    """Whether the address is of the public internet.

    >>> [is_public(each) for each in ("93.184.216.34", "10.0.0.1", "::ffff:127.0.0.1", "fe80::1%eth0")]
    [True, False, False, False]
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return all(each.is_global and not each.is_multicast for each in _embedded(found))


def _embedded(address: Address) -> list[Address]:
    """The address and those of IPv4 that it stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    found: list[Address] = [address]
    if address in _NAT64:
        found = [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if address.teredo is not None:
        found += address.teredo
    return found
