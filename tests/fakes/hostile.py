"""Files that are not what they seem: made here, byte by byte, for the tests of the media room.

Each function writes one kind of attack; `DISGUISES` are texts that make a careless decoder open another file
or address. `CANARY` is what must never come out: a sound of one pitch that lies beside them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

CANARY_NAME = "canary.wav"
CANARY_HZ = 3000
RATE = 8000
DAY_S = 86_400


def wav(samples: bytes, *, riff_bytes: int | None = None, data_bytes: int | None = None) -> bytes:
    """16-bit mono at RATE; the two sizes of its header may lie."""
    data = len(samples) if data_bytes is None else data_bytes
    riff = len(samples) + 36 if riff_bytes is None else riff_bytes
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", riff, b"WAVE", b"fmt ", 16, 1, 1, RATE, RATE * 2, 2, 16)
    return head + struct.pack("<4sI", b"data", data) + samples


def sine(seconds: float, hz: float = 440) -> bytes:
    count = int(seconds * RATE)
    return struct.pack(
        f"<{count}h", *(round(12_000 * math.sin(2 * math.pi * hz * n / RATE)) for n in range(count))
    )


def id3(*frames: tuple[str, bytes]) -> bytes:
    """An ID3v2.3 tag; sizes have 7 bits a byte, those of frames 8."""
    body = b"".join(
        struct.pack(">4sIH", name.encode(), len(content), 0) + content for name, content in frames
    )
    size = bytes(len(body) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\x00\x00" + size + body


def playlist(*places: str) -> bytes:
    entries = "".join(f"#EXTINF:1,\n{place}\n" for place in places)
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n{entries}#EXT-X-ENDLIST\n".encode()


def disguises(folder: Path, port: int) -> Iterator[tuple[str, bytes]]:
    """Names and contents. The canary lies in `folder`; on `port` of loopback somebody counts connections."""
    canary = folder / CANARY_NAME
    url = f"http://127.0.0.1:{port}/canary.wav"
    concat = f"ffconcat version 1.0\nfile {CANARY_NAME}\n".encode()
    cue = b"1\n00:00:00,000 --> 00:00:09,000\n<b>%s</b>\n" % str(canary).encode()
    dash = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
        f'<AdaptationSet><Representation id="0" bandwidth="1"><BaseURL>{url}</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>"
    ).encode()
    imf = (
        '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016">'
        f"<Id>urn:uuid:0</Id><Annotation>{url}</Annotation></CompositionPlaylist>"
    ).encode()
    session = (
        f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nc=IN IP4 127.0.0.1\r\nm=audio {port} RTP/AVP 0\r\n".encode()
    )
    yield "hls-file", playlist(f"file://{canary}")
    yield "hls-relative", playlist(CANARY_NAME)
    yield "hls-http", playlist(url)
    yield "hls-data", playlist("data:audio/wav;base64,UklGRg==")
    yield "hls-subfile", playlist(f"subfile,,start,0,end,0,,:{canary}")
    yield "hls-concat", playlist(f"concat:{canary}|{canary}")
    yield "hls-crypto", playlist(f"crypto+file://{canary}")
    yield "hls-behind-a-mark", b"\xef\xbb\xbf\n  " + playlist(str(canary))
    yield "ffconcat-relative", concat
    yield "ffconcat-absolute", f"ffconcat version 1.0\nfile '{canary}'\n".encode()
    yield "dash", dash
    yield "imf", imf
    yield "sdp", session
    yield "subtitles-srt", cue
    yield (
        "subtitles-ass",
        f"[Script Info]\nTitle: {canary}\n[Events]\nDialogue: 0,0:0:0.0,0:0:9.0,D,,0,0,0,,x\n".encode(),
    )
    yield "subtitles-vtt", b"WEBVTT\n\n00:00.000 --> 00:09.000\n" + str(canary).encode()
    yield "avi-with-a-playlist", b"RIFF\xff\x00\x00\x00AVI LIST" + playlist(str(canary))
    # The first bytes of a sound, and then no sound: the sniff lets them in, the one demuxer must not follow.
    for name, magic in {
        "mp3": b"\xff\xfb\x90\x64" + bytes(100),
        "wav": b"RIFF\xff\x00\x00\x00WAVE",
        "flac": b"fLaC",
        "ogg": b"OggS\x00\x02",
        "webm": b"\x1a\x45\xdf\xa3",
        "mp4": b"\x00\x00\x00\x18ftypM4A ",
        "aiff": b"FORM\x00\x00\x00\x00AIFF",
        "aac": b"\xff\xf1\x50\x80",
    }.items():
        yield f"{name}-then-hls", magic + b"\n" + playlist(str(canary), url)
        yield f"{name}-then-ffconcat", magic + b"\n" + concat
    yield "id3-then-hls", id3(("TIT2", b"\x00song")) + playlist(str(canary), url)
    yield "id3-then-ffconcat", id3(("TIT2", b"\x00song")) + concat
    yield "archive", b"PK\x03\x04" + bytes(60)
    yield "page", b"<!doctype html><script>alert(1)</script>"


def day_of_silence_flac(*, knows_its_length: bool = True) -> bytes:
    """24 h in about 170 kB: frames of 65,535 equal samples each (RFC 9639)."""
    samples, block = DAY_S * RATE, 65_535
    total = samples if knows_its_length else 0
    info = struct.pack(">HH", block, block) + bytes(6)
    info += (RATE << 44 | 0 << 41 | 15 << 36 | total).to_bytes(8, "big") + bytes(16)
    frames = []
    for number in range(samples // block):
        head = b"\xff\xf8\x74\x08" + _coded(number) + struct.pack(">H", block - 1)
        frame = head + bytes([_crc(head, 0x07, 8)]) + b"\x00\x00\x00"
        frames.append(frame + struct.pack(">H", _crc(frame, 0x8005, 16)))
    return b"fLaC\x80\x00\x00\x22" + info + b"".join(frames)


def day_of_silence_opus() -> bytes:
    """24 h in about 2 MB: packets of 120 ms in which nothing was sent (RFC 6716 §3, RFC 7845)."""
    packet, packet_samples, a_page = b"\x1b\x02", 5760, 255
    head = b"OpusHead\x01\x01" + struct.pack("<HIhB", 0, 48_000, 0, 0)
    tags = b"OpusTags" + struct.pack("<I", 4) + b"test" + struct.pack("<I", 0)
    pages = [_page(0, 2, 0, [head]), _page(1, 0, 0, [tags])]
    count = DAY_S * 48_000 // packet_samples
    for number, at in enumerate(range(0, count, a_page), 2):
        inside = min(a_page, count - at)
        last = at + inside == count
        pages.append(_page(number, 4 if last else 0, (at + inside) * packet_samples, [packet] * inside))
    return b"".join(pages)


def _page(number: int, flags: int, position: int, packets: list[bytes]) -> bytes:
    """RFC 3533 §6; every packet shorter than 255 bytes."""
    head = struct.pack("<4sBBqIII", b"OggS", 0, flags, position, 7, number, 0)
    page = head + bytes([len(packets)]) + bytes(len(each) for each in packets) + b"".join(packets)
    return page[:22] + struct.pack("<I", _crc(page, 0x04C11DB7, 32)) + page[26:]


def _coded(number: int) -> bytes:
    return chr(number).encode("utf-8", "surrogatepass")


def _crc(content: bytes, polynomial: int, bits: int) -> int:
    """Unreflected, beginning at 0."""
    table, mask, crc = _table(polynomial, bits), (1 << bits) - 1, 0
    for byte in content:
        crc = (crc << 8 & mask) ^ table[crc >> (bits - 8) ^ byte]
    return crc


@cache
def _table(polynomial: int, bits: int) -> list[int]:
    table = []
    for byte in range(256):
        crc = byte << (bits - 8)
        for _ in range(8):
            crc = crc << 1 ^ (polynomial if crc >> (bits - 1) else 0)
            crc &= (1 << bits) - 1
        table.append(crc)
    return table
