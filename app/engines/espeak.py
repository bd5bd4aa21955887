"""espeak-ng 1.52 in a process of its own: a hundred languages, robotic, always there.

Owns the ctypes calls, the catalogue of languages and voices, and the child process they run in. Promises:
the same sentences, voice, rate and seed give the same samples. Leaves the choice of voice, the pauses and
the loudness to `speech`.

Why a child process for each rendering and not a lock: the library is one global state machine, its speech
depends on everything that it said since it was loaded (terminating and seeding it do not reset that), it
leaks some 80 kB at each load, and a crash in it would take the worker along. A child is always fresh,
costs about 40 ms, and dies with a cancelled prediction. It also keeps GPL code out of our process.
"""

from __future__ import annotations

import ctypes
import functools
import json
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from app.engines.base import EngineError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ROOT = Path(__file__).resolve().parents[2]
_LIMIT_S = 60.0  # 5,000 characters take under a second; past this the child hangs
_HEAD = struct.Struct("<II")  # sample rate, bytes of 16-bit samples that follow

_SYNCHRONOUS, _DO_NOT_EXIT, _UTF8 = 2, 0x8000, 1
_RATE, _VOLUME = 1, 2
_QUIET = 60  # at the default volume of 100 the klatt voices clip


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What this espeak-ng can say. Keys are lower case."""

    version: str
    languages: dict[str, str]
    """Language tag, such as `pt-br` or `zh`, to the voice file that espeak loads."""
    names: dict[str, str]
    """Language tag to its English name."""
    variants: dict[str, str]
    """Voice variant, such as `f2`, to the name of its file."""


@functools.lru_cache(maxsize=1)
def catalogue() -> Catalogue:
    """Ask a child for the languages and voice variants; about 40 ms, once. Raises EngineError."""
    with _child({}) as (child, output):
        answer = output.read()
    if not answer:
        raise EngineError(f"espeak-ng did not start (exit status {child.returncode})")
    return Catalogue(**json.loads(answer))


def synthesize(
    sentences: Sequence[str], *, voice: str, words_per_minute: int, seed: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (sample rate, samples of shape (frames,) within -1…1) for each sentence, as it is spoken.

    `voice` is `LANGUAGE` or `LANGUAGE+VARIANT` in espeak's own names. Raises EngineError when the child dies.
    """
    import numpy as np

    request = {"sentences": list(sentences), "voice": voice, "rate": words_per_minute, "seed": seed}
    with _child(request) as (_process, output):
        for _ in sentences:
            rate, pcm = _read_sentence(output)
            yield rate, np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)


@contextmanager
def _child(request: dict[str, Any]) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """Start the child with its request and give its output; whatever happens inside, no child is left."""
    command = [sys.executable, "-m", "app.engines.espeak"]
    with tempfile.TemporaryFile() as question:
        question.write(json.dumps(request).encode())
        question.seek(0)
        child = subprocess.Popen(command, stdin=question, stdout=subprocess.PIPE, cwd=_ROOT)
    watchdog = threading.Timer(_LIMIT_S, child.kill)
    watchdog.start()
    with child:
        try:
            yield child, cast("IO[bytes]", child.stdout)
        finally:
            # Also the way out of a cancelled prediction, which leaves in the middle of a sentence.
            watchdog.cancel()
            child.kill()


def _read_sentence(stream: IO[bytes]) -> tuple[int, bytes]:
    head = stream.read(_HEAD.size)
    if len(head) == _HEAD.size:
        rate, size = _HEAD.unpack(head)
        pcm = stream.read(size)
        if len(pcm) == size:
            return rate, pcm
    raise EngineError("espeak-ng stopped in the middle of the text")


# From here on: what runs in the child. No NumPy, so that it starts fast.


class _Voice(ctypes.Structure):
    """`espeak_VOICE` of speak_lib.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.POINTER(ctypes.c_char)),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class _Library:
    """The loaded library, speaking into a buffer."""

    def __init__(self) -> None:
        import espeakng_loader

        self._lib = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.rate = self._lib.espeak_Initialize(_SYNCHRONOUS, 0, data, _DO_NOT_EXIT)
        if self.rate <= 0:
            raise RuntimeError("espeak-ng cannot read its data")
        self._heard = bytearray()
        # Kept on the object: ctypes does not keep a callback alive, and the library calls it later.
        self._callback = _Callback(self._hear)
        self._lib.espeak_SetSynthCallback(self._callback)

    def prepare(self, voice: str, *, words_per_minute: int, seed: int) -> None:
        if self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
            raise RuntimeError(f"espeak-ng has no voice {voice!r}")
        self._lib.espeak_SetParameter(_RATE, words_per_minute, 0)
        self._lib.espeak_SetParameter(_VOLUME, _QUIET, 0)
        self._lib.espeak_ng_SetRandSeed(ctypes.c_long(seed & 0x7FFFFFFF))

    def speak(self, sentence: str) -> bytes:
        """16-bit samples of one sentence; empty when nothing in it can be spoken."""
        self._heard.clear()
        text = sentence.replace("\0", " ").encode() + b"\0"
        self._lib.espeak_Synth(text, len(text), 0, 1, 0, _UTF8, None, None)
        return bytes(self._heard)

    def catalogue(self) -> Catalogue:
        languages: dict[str, str] = {}
        names: dict[str, str] = {}
        voices = [voice for voice in self._voices(None) if not voice[2].startswith("mb/")]
        # Three rounds, strongest claim first: `fr` is the first tag of no voice and the second of three,
        # and the French one is the voice whose file is called `fr`.
        for claim in (_is_first_tag, _is_file_name, _is_any_tag):
            for name, tags, file in voices:
                for tag in tags:
                    if tag.lower() not in languages and claim(tag, tags, file):
                        languages[tag.lower()], names[tag.lower()] = file, name.strip()
        spec = _Voice()
        wanted = ctypes.create_string_buffer(b"variant")
        spec.languages = ctypes.cast(wanted, ctypes.POINTER(ctypes.c_char))
        files = [file.removeprefix("!v/") for _name, _tags, file in self._voices(ctypes.byref(spec))]
        variants = {file.lower().replace(" ", "-"): file for file in sorted(files)}
        return Catalogue(self._version(), languages, names, variants)

    def _version(self) -> str:
        self._lib.espeak_Info.restype = ctypes.c_char_p
        version: bytes = self._lib.espeak_Info(None)
        return version.decode().split(" ")[0]

    def _voices(self, spec: Any) -> Iterator[tuple[str, list[str], str]]:
        self._lib.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
        listed = self._lib.espeak_ListVoices(spec)
        index = 0
        while listed[index]:
            voice = listed[index].contents
            yield voice.name.decode(), _read_tags(voice.languages), voice.identifier.decode()
            index += 1

    def _hear(self, wave: Any, frames: int, _events: object) -> int:
        if frames > 0:
            self._heard += ctypes.string_at(wave, frames * 2)
        return 0


def _is_first_tag(tag: str, tags: list[str], _file: str) -> bool:
    return tag == tags[0]


def _is_file_name(tag: str, _tags: list[str], file: str) -> bool:
    return file.rpartition("/")[2].lower() == tag.lower()


def _is_any_tag(_tag: str, _tags: list[str], _file: str) -> bool:
    return True


def _read_tags(packed: Any) -> list[str]:
    """Decode (priority byte, tag, NUL)… up to a priority of 0."""
    tags, at = [], 0
    while packed[at] != b"\0":
        tag = ctypes.string_at(ctypes.addressof(packed.contents) + at + 1)
        tags.append(tag.decode())
        at += len(tag) + 2
    return tags


def _answer() -> None:
    request = json.load(sys.stdin)
    library = _Library()
    if not request:
        print(json.dumps(asdict(library.catalogue())))
        return
    library.prepare(request["voice"], words_per_minute=request["rate"], seed=request["seed"])
    for sentence in request["sentences"]:
        pcm = library.speak(sentence)
        sys.stdout.buffer.write(_HEAD.pack(library.rate, len(pcm)) + pcm)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _answer()
