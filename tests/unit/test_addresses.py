"""The table of who may be spoken to: every spelling that ever got past somebody's guard (faults 21, 30)."""

from __future__ import annotations

import ipaddress

import pytest

from app.errors import OutputRejected, ProviderUnavailable
from app.outbound import Outbound
from app.outbound.addresses import CLOSED_PORTS, Guard, Rules, refusal, resolve
from app.outbound.selftest import ADDRESSES, SPELLINGS, find_gaps
from app.provider.base import DownloadRules


def words(text: str) -> list[str]:
    return text.split()


PUBLIC = words(
    """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 169.253.255.255
169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.0.3.0 192.167.255.255 192.169.0.0 198.17.255.255
198.20.0.0 223.255.255.255 168.63.129.15 2606:4700:4700::1111 2a00:1450:4001::1 2001:200::1
2001:4860:4860::8888 2003::1 3ffe:ffff::1 2620:4e:8000::1
"""
)


async def never(host: str, port: int) -> list[str]:
    raise AssertionError(f"{host}:{port} was looked up")


async def public(host: str, port: int) -> list[str]:
    return ["1.1.1.1"]


def guard(resolver: object = public, allow: tuple[str, ...] = ()) -> Guard:
    return Guard(allow=allow, resolver=resolver, timeout_s=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_special_address_is_refused(address: str) -> None:
    """Faults 21, 30."""
    assert refusal(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_an_ordinary_address_is_not(address: str) -> None:
    assert refusal(address) is None


def test_whatever_the_standard_library_calls_special_is_refused_too() -> None:
    for first in range(256):
        for second in range(0, 256, 5):
            address = ipaddress.ip_address(f"{first}.{second}.0.9")
            if not address.is_global:
                assert refusal(str(address)), address


@pytest.mark.parametrize("host", SPELLINGS)
async def test_every_spelling_of_a_private_address_is_refused(host: str) -> None:
    """Faults 21, 30."""
    with pytest.raises((OutputRejected, ProviderUnavailable)):
        await guard(resolve).judge(f"https://{host}/out.wav", DownloadRules(hosts=()))


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0x7f.1", "017700000001", "0", "[::1]", "localhost"])
async def test_spellings_that_do_resolve_are_judged_by_what_they_become(host: str) -> None:
    """Faults 21, 30."""
    with pytest.raises(OutputRejected, match="not public"):
        await guard(resolve).judge(f"https://{host}/", DownloadRules(hosts=()))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "out.wav",
        "//example.com/x",
        "file:///etc/passwd",
        "ftp://example.com/x",
        "data:audio/wav;base64,AAAA",
        "gopher://example.com",
        "https://",
        "https:///x",
        "https://user@example.com/",
        "https://user:password@example.com/",
        "https://example.com\\@127.0.0.1/",
        "http://example.com/",
        "http://example.com:443/",
        "https://example.com:22/",
        "https://example.com:6379/",
        "https://example.com:99999/",
        "https://example.com:-1/",
        "https://exa mple.com/",
        "https://example.com\r\nX: y/",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://" + "a" * 70_000,
        "https://аpple.com/",  # the first letter is Cyrillic
        "https://replicate。delivery/",
        "https://replıcate.delivery/",
        "https://exa\u200bmple.com/",
        "https://ⓔxample.com/",
        "https://é:password@example.com/",
    ],
)
async def test_what_is_not_plain_https_on_443_is_refused_without_a_lookup(url: str) -> None:
    """Faults 21, 30."""
    with pytest.raises(OutputRejected):
        await guard(never).judge(url, DownloadRules(hosts=()))


async def test_one_private_address_among_public_ones_refuses_all() -> None:
    """Fault 31."""

    async def mixed(host: str, port: int) -> list[str]:
        return ["1.1.1.1", "10.0.0.1"]

    with pytest.raises(OutputRejected, match="private"):
        await guard(mixed).judge("https://example.com/", DownloadRules(hosts=()))


@pytest.mark.parametrize(
    ("host", "listed"),
    [
        ("replicate.delivery", True),
        ("pbxt.replicate.delivery", True),
        ("a.b.replicate.delivery", True),
        ("REPLICATE.delivery", True),
        ("evilreplicate.delivery", False),
        ("replicate.delivery.evil.com", False),
        ("replicate.delivery.", False),
        ("example.com", False),
    ],
)
async def test_hosts_are_matched_exactly_or_below_a_dot(host: str, listed: bool) -> None:
    rules = DownloadRules(
        hosts=("replicate.delivery", "*.replicate.delivery"), headers={"Authorization": "x"}
    )
    if listed:
        assert (await guard().judge(f"https://{host}/x", rules)).trusted
    else:
        with pytest.raises(OutputRejected, match="not a host"):
            await guard(never).judge(f"https://{host}/x", rules)


async def test_a_star_does_not_match_the_suffix_itself() -> None:
    with pytest.raises(OutputRejected, match="not a host"):
        await guard(never).judge("https://example.com/", DownloadRules(hosts=("*.example.com",)))


@pytest.mark.parametrize(
    ("rules", "url", "trusted"),
    [
        (DownloadRules(hosts=()), "https://example.com/", False),
        (DownloadRules(hosts=("example.com",)), "https://example.com/", True),
        (DownloadRules(hosts=(), plain_http=("10.0.0.1:5000",)), "http://10.0.0.1:5000/", True),
    ],
)
async def test_tokens_are_for_listed_hosts_only(rules: Rules, url: str, trusted: bool) -> None:
    assert (await guard().judge(url, rules)).trusted is trusted


@pytest.mark.parametrize(
    ("allow", "url", "let_in"),
    [
        ("worker", "http://worker:5000/x", True),
        ("worker:5000", "http://worker:5000/x", True),
        ("worker:5000", "http://worker:5001/x", False),
        ("10.1.0.0/16", "http://worker:5000/x", True),
        ("10.2.0.0/16", "http://worker:5000/x", False),
        ("10.2.0.0/16", "https://worker/x", False),
        ("10.1.2.3", "https://worker/x", True),
    ],
)
async def test_exemptions_are_by_host_port_or_network(allow: str, url: str, let_in: bool) -> None:
    async def private(host: str, port: int) -> list[str]:
        return ["10.1.2.3"]

    judged = guard(private, (allow,)).judge(url, DownloadRules(hosts=()))
    if let_in:
        target = await judged
        assert (target.exempt, target.addresses) == (True, ("10.1.2.3",))
    else:
        with pytest.raises(OutputRejected):
            await judged


async def test_a_network_exempts_a_name_only_if_all_its_addresses_lie_in_it() -> None:
    async def mixed(host: str, port: int) -> list[str]:
        return ["10.1.2.3", "10.9.9.9"]

    with pytest.raises(OutputRejected, match="not public"):
        await guard(mixed, ("10.1.0.0/16",)).judge("https://worker/x", DownloadRules(hosts=()))


async def test_a_stranger_cannot_redirect_into_an_exemption() -> None:
    """Fault 31."""

    async def answers(host: str, port: int) -> list[str]:
        return ["10.1.2.3"] if host == "worker" else ["1.1.1.1"]

    doors = guard(answers, ("10.1.0.0/16", "worker"))
    stranger = await doors.judge("https://example.com/", DownloadRules(hosts=()))
    with pytest.raises(OutputRejected, match="not public"):
        await doors.judge("https://worker/", DownloadRules(hosts=()), after=stranger)
    with pytest.raises(OutputRejected, match="scheme"):
        await doors.judge("http://worker/", DownloadRules(hosts=()), after=stranger)


async def test_a_name_without_an_address_may_have_one_later() -> None:
    async def nothing(host: str, port: int) -> list[str]:
        return []

    async def fails(host: str, port: int) -> list[str]:
        raise OSError(-2, "Name or service not known")

    for resolver in (nothing, fails):
        with pytest.raises(ProviderUnavailable, match="does not resolve"):
            await guard(resolver).judge("https://example.com/", DownloadRules(hosts=()))


@pytest.mark.parametrize("url", ["https://xn--80ak6aa92e.com/", "https://example.com/é?ö#ü"])
async def test_other_alphabets_are_for_names_spelled_out_and_for_paths(url: str) -> None:
    assert (await guard().judge(url, DownloadRules(hosts=()))).addresses == ("1.1.1.1",)


async def test_a_name_that_looks_like_a_listed_one_is_not_listed() -> None:
    """Fault 21: the twin of `replicate.delivery` with a dotless letter, as DNS has it."""
    twin = "https://xn--replcate-wkb.delivery/"
    with pytest.raises(OutputRejected, match="not a host"):
        await guard(never).judge(twin, DownloadRules(hosts=("replicate.delivery", "*.replicate.delivery")))


@pytest.mark.parametrize("port", [22, 25, 2375, 3306, 5432, 6379, 9200, 11211, 27017])
@pytest.mark.parametrize("allow", ["worker", "10.1.0.0/16"])
async def test_some_ports_are_never_called_not_even_of_an_exempt_host(port: int, allow: str) -> None:
    """Faults 21, 30: unless the operator has named that very port."""

    async def private(host: str, port: int) -> list[str]:
        return ["10.1.2.3"]

    assert port in CLOSED_PORTS
    for scheme in ("http", "https"):
        url = f"{scheme}://worker:{port}/"
        with pytest.raises(OutputRejected, match="never called"):
            await guard(private, (allow,)).judge(url, DownloadRules(hosts=()))
        named = guard(private, (allow, f"worker:{port}"))
        assert (await named.judge(url, DownloadRules(hosts=()))).exempt


async def test_the_guard_finds_no_gap_in_itself() -> None:
    """Faults 21, 30: as `reprise doctor` asks it: with this machine's resolver, and a listener that waits."""
    door = Outbound(connect_timeout_s=20)
    assert await find_gaps(door) == []
    await door.aclose()


async def test_a_gap_that_an_exemption_makes_is_found() -> None:
    door = Outbound(allow=("127.0.0.0/8",), connect_timeout_s=20)
    gaps = await find_gaps(door)
    await door.aclose()
    assert "127.1" in gaps
    assert "127.0.0.1 (connected to)" in gaps
    assert not any("169.254" in gap for gap in gaps)
