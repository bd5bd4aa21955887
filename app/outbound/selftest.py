"""The guard against itself: every spelling that ever got past somebody's, asked of ours.

Owns the two tables, for the tests and for `reprise doctor`: addresses that must never be spoken to, and the
ways to write one as a host. `find_gaps` asks the real door with the real resolver of this machine, and
listens on loopback meanwhile: what matters is not that a check says no, but that no connection comes.
"""

from __future__ import annotations

import asyncio
from typing import Final

from app.errors import AppError
from app.outbound.addresses import refusal
from app.outbound.door import Outbound

_TIMEOUT_S = 5.0


def _words(table: str) -> tuple[str, ...]:
    return tuple(table.split())


ADDRESSES: Final[tuple[str, ...]] = _words(
    """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.255 127.0.0.1 127.255.0.1
168.63.129.16 169.254.0.1 169.254.169.254 169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192
192.0.2.1 192.31.196.1 192.52.193.1 192.88.99.1 192.168.0.1 192.168.255.255 192.175.48.1 198.18.0.1
198.19.255.255 198.51.100.7 203.0.113.9 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 :: ::1 ::2
::127.0.0.1 ::169.254.169.254 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:a9fe:a9fe ::ffff:0:127.0.0.1
64:ff9b::a9fe:a9fe 64:ff9b::8.8.8.8 64:ff9b:1::1 64:ff9b:1:ffff::1 100::1 100:0:0:1::1 2001::1
2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:2::1 2001:10::1 2001:20::1 2001:1ff::1 2001:db8::1
2001:db8:ffff::1 2002:a9fe:a9fe::1 2002:0808:0808::1 2620:4f:8000::1 3fff::1 3fff:fff::1 4000::1 5f00::1
2a00:1450:4001::5efe:a9fe:a9fe 2a00:1450:4001:0:200:5efe:127.0.0.1 fc00::1 fd00:ec2::254 fd20:ce::254
fdff::1 fe80::1 fe80::1%eth0 febf::1 fec0::1 feff::1 ff02::1 ff0e::1 fe00::1 8000::1
"""
)
"""Private, special, multicast, not handed out; the metadata services of the clouds; IPv4 inside IPv6."""

SPELLINGS: Final[tuple[str, ...]] = _words(
    """
2852039166 0251.0376.0251.0376 0xa9fea9fe 0xa9.0xfe.0xa9.0xfe 169.254.43518 127.1 127.0.1 017700000001
2130706433 0x7f.1 0177.1 0 0x0 localhost 3232235521 [::1] [::ffff:127.0.0.1] [::ffff:7f00:1]
[0:0:0:0:0:0:0:1] [64:ff9b::7f00:1] [::127.0.0.1] [2002:7f00:1::] ①②⑦.⓪.⓪.① １２７.0.０.１ 127。0。0。1
127.0.0.1. localhost. 0x7f000001 0177.0.0.1 00000177.0.0.1 127.0x0.0.1
[fd00:ec2::254] [fe80::1] 169.254.169.254
"""
)
"""Decimal, octal, hexadecimal, short, mapped, translated, in other digits and dots, with a last dot."""

_LOOPBACK: Final = ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "0177.0.0.1", "0")


async def find_gaps(outbound: Outbound) -> list[str]:
    """What the door would let out that it must not: nothing, unless exemptions or a fault of ours do."""
    gaps = [address for address in ADDRESSES if not refusal(address)]
    gaps += [host for host in SPELLINGS if await _is_let_out(outbound, f"https://{host}/")]
    return gaps + await _find_connections(outbound)


async def _is_let_out(outbound: Outbound, url: str) -> bool:
    try:
        await outbound.check(url)
    except AppError:
        return False
    return True


async def _find_connections(outbound: Outbound) -> list[str]:
    """The spellings of this machine under which a listener of ours was connected to."""
    met: list[str] = []
    asked = ""

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.append(asked)
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        for asked in _LOOPBACK:
            for scheme in ("http", "https"):
                try:
                    await outbound.post(
                        f"{scheme}://{asked}:{port}/", content=b"", headers={}, timeout_s=_TIMEOUT_S
                    )
                except AppError:
                    continue
    return list(dict.fromkeys(f"{each} (connected to)" for each in met))
