"""Who may be spoken to outside: the table of addresses and the judgement of a URL.

Owns `refusal`, a pure question about one IP address, and `Guard.judge`, the only way to a `Target` that
`app.outbound` will connect to. Promises that a name is resolved once and that every address it resolves to
was judged; that anything not known to be an ordinary public unicast address is refused: IPv6 is refused
unless it lies in 2000::/3, the only space handed out so far, and every form that carries an IPv4 address
inside (mapped, compatible, NAT64, 6to4, Teredo, ISATAP) is refused whatever it carries, because what a
gateway would make of it is not ours to know. Leaves connecting, and walking redirects, to `app.outbound`.

The table follows the IANA special-purpose registries (IPv4: RFC 6890 and its updates; IPv6 likewise) and
Svix's webhook guard. `ipaddress.is_global` is not used: on Python 3.11.7 it calls 64:ff9b::a9fe:a9fe,
2002:a9fe:a9fe::1, ::169.254.169.254, fec0::1, 192.0.0.192, 3fff::1 and multicast global.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Protocol

import httpx

from app.errors import OutputRejected, ProviderUnavailable

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""`(host, port)` to IP addresses as text. Raises OSError when the name does not resolve."""

_MAX_ADDRESSES = 4
_HOST = re.compile(r"[a-z0-9._-]{1,253}|[0-9a-f:.]{2,45}")
_AUTHORITY = re.compile(r"(?<=//)[^/?#]*|$")
_PORTS = {"http": 80, "https": 443}

_IPV4: tuple[tuple[IPv4Network, str], ...] = tuple(
    (IPv4Network(network), name)
    for network, name in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT, cloud metadata"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "cloud metadata"),  # Azure's wire server: a public number, a private host
        ("169.254.0.0/16", "link-local, cloud metadata"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "protocol assignments, cloud metadata"),
        ("192.0.2.0/24", "documentation"),
        ("192.31.196.0/24", "AS112"),
        ("192.52.193.0/24", "AMT relay"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "AS112"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved, broadcast"),
    )
)
_IPV6: tuple[tuple[IPv6Network, str], ...] = tuple(
    (IPv6Network(network), name)
    for network, name in (
        ("::1/128", "loopback"),
        ("::ffff:0:0/96", "IPv4-mapped"),
        ("::/96", "unspecified or IPv4-compatible"),
        ("64:ff9b::/96", "NAT64"),
        ("64:ff9b:1::/48", "NAT64"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
        ("2001::/32", "Teredo"),
        ("2001::/23", "protocol assignments"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("2620:4f:8000::/48", "AS112"),
        ("3fff::/20", "documentation"),
    )
)
_IPV6_HANDED_OUT = IPv6Network("2000::/3")
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})
"""What an interface id begins with that carries an IPv4 address (RFC 5214), under any prefix."""

CLOSED_PORTS = frozenset({
    # The Fetch standard's: what speaks there may take a request for its own protocol.
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104,
    109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515,
    526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049,
    3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
    # Databases, brokers, container engines and remote desktops.
    445, 873, 1433, 1521, 2181, 2375, 2376, 2379, 2380, 3306, 3389, 4369, 5432, 5433, 5672, 5900, 5984, 6379,
    6380, 6432, 6443, 8500, 9042, 9092, 9200, 9300, 10250, 11211, 15672, 27017, 27018, 50070,
})  # fmt: skip
"""Never called, unless the operator has named this very host and port."""


def refusal(address: str) -> str | None:
    """Why `address` must not be spoken to, in a word or two; None for an ordinary public address.

    `address` is what getaddrinfo gives (a scope such as `%eth0` is allowed). Raises ValueError when it is no
    IP address.
    """
    match ip_address(address.partition("%")[0]):
        case IPv4Address() as v4:
            return next((name for network, name in _IPV4 if v4 in network), None)
        case IPv6Address() as v6:
            named = next((name for network, name in _IPV6 if v6 in network), None)
            if named is None and (int(v6) >> 32) & 0xFFFFFFFF in _ISATAP:
                named = "ISATAP"
            return named or (None if v6 in _IPV6_HANDED_OUT else "not handed out")


def is_loopback(host: str) -> bool:
    """Whether this name or address is the machine itself, however it would be resolved (RFC 6761, 6.3)."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Rules(Protocol):
    """What is read here of `app.provider.base.DownloadRules`, which stands above this room; lower case."""

    @property
    def hosts(self) -> tuple[str, ...]: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def plain_http(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that was judged, and the only IP addresses it may be asked at."""

    url: httpx.URL
    host: str
    """In ASCII, lower case: for Host, SNI and the certificate."""
    addresses: tuple[str, ...]
    exempt: bool
    """Let through by an exemption and not as a public address."""
    trusted: bool
    """Whether the rules' headers may be sent here."""


async def resolve(host: str, port: int) -> list[str]:
    """The system's resolver; also what turns 2130706433, 0x7f.1 and their kin into real addresses."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Guard:
    """`allow` exempts `host`, `host:port` or a network such as `10.1.0.0/16`: any port, plain http too."""

    def __init__(self, *, allow: Sequence[str], resolver: Resolver, timeout_s: float) -> None:
        self._networks, self._names = _parse_allow(allow)
        self._resolver = resolver
        self._timeout_s = timeout_s

    async def judge(self, url: str, rules: Rules, *, after: Target | None = None) -> Target:
        """Judge `url`. `after` is the hop that redirected here: a stranger's redirect gets no exemption, and
        nobody's changes the scheme. Raises OutputRejected, and ProviderUnavailable when no name is found.
        """
        parsed, host, port = _parse(url)
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if after is not None and after.url.scheme != parsed.scheme:
            raise OutputRejected(f"a redirect to {host} changes the scheme")
        plain = authority in rules.plain_http
        listed = _matches(host, rules.hosts)
        if rules.hosts and not (plain or listed):
            raise OutputRejected(f"{host} is not a host that outputs may come from")
        if port in CLOSED_PORTS and not (plain or authority in self._names):
            raise OutputRejected(f"port {port} of {host} is never called")
        exempting = after is None or after.exempt
        named = exempting and (plain or not self._names.isdisjoint((host, authority)))
        addresses, exempt = await self._addresses(
            host, port, secure=parsed.scheme == "https", named=named, exempting=exempting
        )
        trusted = plain or (parsed.scheme == "https" and listed)
        return Target(parsed, host, tuple(addresses[:_MAX_ADDRESSES]), exempt=exempt, trusted=trusted)

    async def _addresses(
        self, host: str, port: int, *, secure: bool, named: bool, exempting: bool
    ) -> tuple[Sequence[str], bool]:
        """The addresses of `host`, all of them exempt (then True) or all public and by https on 443."""
        strict = secure and port == _PORTS["https"]
        # Before the name is looked up, unless only its addresses can tell that it is exempt.
        if not (strict or named or (exempting and self._networks)):
            raise _only_https(host)
        addresses = await self._lookup(host, port)
        if named or (exempting and all(map(self._in_networks, addresses))):
            return addresses, True
        if not strict:
            raise _only_https(host)
        _refuse_private(host, addresses)
        return addresses, False

    async def _lookup(self, host: str, port: int) -> Sequence[str]:
        try:
            async with asyncio.timeout(self._timeout_s):
                addresses = await self._resolver(host, port)
        except (OSError, TimeoutError) as exc:
            raise ProviderUnavailable(f"{host} does not resolve") from exc
        except ValueError as exc:  # UnicodeError: a label that is empty or too long
            raise OutputRejected("the address has no valid host") from exc
        if not addresses:
            raise ProviderUnavailable(f"{host} does not resolve")
        return addresses

    def _in_networks(self, address: str) -> bool:
        parsed = ip_address(address.partition("%")[0])
        return any(parsed in network for network in self._networks)


def _parse(url: str) -> tuple[httpx.URL, str, int]:
    """The URL as it will be asked, its host in ASCII, its port. No other parser reads it after this one."""
    try:
        parsed = httpx.URL(url)
        # As it was written: what looks like another host's name, or becomes digits only when it is mapped to
        # ASCII, is for whoever wrote it to spell out (`xn--…`).
        authority = _AUTHORITY.search(url)
        if authority is None or not authority[0].isascii():
            raise OutputRejected("the address has a host that is not written in ASCII")
        host = parsed.raw_host.decode("ascii").lower()
    except (httpx.InvalidURL, ValueError) as exc:
        raise OutputRejected("the address is not a URL") from exc
    if parsed.scheme not in _PORTS or not _HOST.fullmatch(host):
        raise OutputRejected(f"the address is not one of http (scheme {parsed.scheme[:20]!r})")
    if parsed.userinfo:
        raise OutputRejected("the address carries a user name or password")
    return parsed, host, parsed.port or _PORTS[parsed.scheme]


def _matches(host: str, patterns: Sequence[str]) -> bool:
    """Exactly, or `*.suffix` for any name below the suffix (and not the suffix itself)."""
    return any(
        host.endswith(pattern[1:]) and len(host) >= len(pattern)
        if pattern.startswith("*.")
        else host == pattern
        for pattern in patterns
    )


def _refuse_private(host: str, addresses: Sequence[str]) -> None:
    # One private address among public ones is refused too: which of them is used must not be for DNS to say.
    for address in addresses:
        try:
            reason = refusal(address)
        except ValueError as exc:
            raise OutputRejected(f"{host} resolves to something that is no IP address") from exc
        if reason is not None:
            raise OutputRejected(f"{host} resolves to an address that is not public ({reason})")


def _only_https(host: str) -> OutputRejected:
    return OutputRejected(f"{host} may only be spoken to over https on port 443")


def _parse_allow(allow: Sequence[str]) -> tuple[tuple[IPv4Network | IPv6Network, ...], frozenset[str]]:
    networks: list[IPv4Network | IPv6Network] = []
    names: set[str] = set()
    for entry in allow:
        try:
            networks.append(ip_network(entry.strip("[]"), strict=False))
        except ValueError:
            names.add(entry.lower())
    return tuple(networks), frozenset(names)
