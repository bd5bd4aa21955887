"""`/openapi.json` is the whole of what is served, and what is served keeps to it: schemathesis says so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi.routing import APIRoute, iter_route_contexts

from app.access.callers import Scope
from app.kinds import KINDS
from app.main import create_api
from app.web.openapi import VERBS
from app.web.openapi.jobs import EXAMPLES
from app.web.problem_types import problem_types
from app.web.webhooks import PREFIX
from tests.conftest import make_settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "/docs", "/docs/start.js", "/docs/errors",
    "/", "/jobs/{job_id}", "/jobs/{job_id}/row", "/ledger", "/status", "/static/{path:path}",
    "/songs", "/songs/{job_id}", "/voices", "/lyrics/{lyrics_id}",
    "/performances", "/performances/{performance_id}", "/performances/{performance_id}/remote",
)  # fmt: skip
"""For people; the API is for programs."""
MOST_S = 600
"""Far more than it takes: a machine that stalls must not fail it."""


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """As `/openapi.json` answers it."""
    runtime = SimpleNamespace(
        settings=make_settings(tmp_path_factory.mktemp("openapi")), rates=None, keyring=None
    )
    return json.loads(json.dumps(create_api(cast("Any", runtime)).openapi()))  # type: ignore[no-any-return]


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        yield from ((verb, path, item[verb]) for verb in VERBS if verb in item)


def test_every_route_is_documented_and_nothing_else(tmp_path: Path, document: dict[str, Any]) -> None:
    runtime = SimpleNamespace(settings=make_settings(tmp_path), rates=None, keyring=None)
    app = create_api(cast("Any", runtime))
    served = {
        (method.lower(), context.path)
        for context in iter_route_contexts(app.router.routes)
        if isinstance(context.original_route, APIRoute)
        for method in context.methods
        if method != "HEAD"
    }
    pages = {("get", path) for path in PAGES} | {("post", "/session"), ("post", "/session/end")}
    documented = {(verb, path) for verb, path, _ in operations(document)}
    assert documented - {("post", f"{PREFIX}{{provider}}/{{attempt_id}}")} == served - pages


def test_operations_have_names_of_their_own_that_read_well(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name)] == []
    assert {"submit_job", "get_job", "receive_webhook"} <= set(names)


def test_every_operation_has_a_family_that_is_explained(document: dict[str, Any]) -> None:
    explained = {tag["name"] for tag in document["tags"]}
    assert [path for _, path, each in operations(document) if not set(each.get("tags", ())) & explained] == []


def test_every_kind_has_a_body_of_its_own_with_an_example_that_it_takes(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert set(document["components"]["schemas"]["NewJob"]["discriminator"]["mapping"]) == set(KINDS)
    for name, example in EXAMPLES.items():
        KINDS[name].input_model.model_validate(example)


def test_what_any_request_may_meet_is_said_of_every_operation(document: dict[str, Any]) -> None:
    for verb, path, operation in operations(document):
        if not path.startswith("/v1/") or path.startswith(PREFIX):
            continue
        assert {"400", "401", "403", "421", "429", "431", "500", "503"} <= set(operation["responses"]), path
        key, none = operation["security"]
        assert none == {}, (verb, path)
        assert [scope in set(Scope) for scope in key["key"]] == [True], (verb, path)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document))):
        found: Any = document
        for part in reference.split("/"):
            found = found[part]
    assert "HTTPValidationError" not in json.dumps(document)


def test_problems_in_the_document_are_those_of_the_table(document: dict[str, Any]) -> None:
    table = problem_types()
    for answer in document["components"]["responses"].values():
        for code, example in answer["content"]["application/problem+json"]["examples"].items():
            assert example["value"]["status"] == table[code].status
            assert example["value"]["type"] == table[code].uri


def test_the_api_keeps_to_what_it_documents() -> None:
    """Every check of schemathesis, over the real service: requests that a schema allows, and others."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "fuzz-api", "--examples", "3", "--seed", "1"],
        capture_output=True, text=True, check=False, timeout=MOST_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert int(done.stdout.splitlines()[-1].split()[0]) > 500
