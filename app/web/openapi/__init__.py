"""`/openapi.json`: OpenAPI 3.1 from the models that validate, made complete.

FastAPI documents the routes it serves. What it cannot know is added here: the webhooks' door, which stands
beside it; the key that a caller sends; the problems that any request may meet, from the table of problem
types; and names of operations that read well in a generated client (`submit_job`, `get_asset_content`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from app.web.openapi.jobs import form_headers, link, spell_out_jobs
from app.web.problem_types import problem_type

Json = dict[str, Any]

VERBS = ("get", "put", "post", "delete", "patch", "options")
WEBHOOK_PATH = "/v1/webhooks/{provider}/{attempt_id}"
PROBLEM = {"$ref": "#/components/schemas/Problem"}
KEY = "key"
TAGS = {
    "jobs": "Ask for audio; read, wait, list, cancel, retry, follow.",
    "uploads": "Files that jobs work on.",
    "convert": "Songs in another voice, by the names that clients of other services use.",
    "voices": "Voice profiles, made from recordings.",
    "assets": "What jobs made.",
    "events": "Everything that happens to jobs, as a list and as a stream.",
    "deliveries": "The ledger of outside news, and sending one of them again.",
    "ledger": "Who told the end of each prediction, and what was refused at the door.",
    "recoveries": "Very many predictions or deliveries at once, with progress and an end.",
    "announcements": "What callers were told, where, and signed how.",
    "costs": "What was spent.",
    "sockets": "Tokens for Socket.IO; what is told there stands in the reference of its events.",
    "keys": "Who may call: keys and what each allows.",
    "audit": "Who did what.",
    "lyrics": "Words in time with a song: made, corrected, kept in versions.",
    "performances": "Karaoke: what several devices share, the singers, guests' phones.",
    "webhooks": "Where providers call back. Callers never do.",
    "health": "Whether the process is alive and able, and how it goes.",
}
_REQUEST_ID = {"description": "The request's id", "schema": {"type": "string"}}
_RETRY_AFTER = {"description": "Seconds to wait", "schema": {"type": "integer"}}
_RATES = {
    name: {"description": words, "schema": {"type": "string"}, "example": example}
    for name, words, example in (
        ("RateLimit", "What is left of the budget, and when it is whole again", '"jobs:read";r=5999;t=60'),
        ("RateLimit-Policy", "The budget", '"jobs:read";q=6000;w=60'),
    )
}
ALWAYS = {
    400: ("bad_request", "invalid_json", "invalid_header", "invalid_address"),
    401: ("unauthenticated",),
    403: ("forbidden", "foreign_origin"),
    421: ("misdirected_request",),
    429: ("rate_limited",),
    431: ("head_too_large",),
    500: ("internal",),
    503: ("storage_unavailable", "stopping"),
}
"""What any request to the API may meet, whatever its route does."""
WITH_A_BODY = {
    413: ("too_large",),
    415: ("unsupported_media_type", "unsupported_encoding"),
    422: ("invalid_input",),
}


def operation_id(route: APIRoute) -> str:
    """The function's name: what a generated client calls it. A test sees that no two are alike."""
    return route.name


def document(app: FastAPI) -> None:
    """Let the app answer `/openapi.json` with the whole of it, made once."""

    def openapi() -> Json:
        if app.openapi_schema is None:
            app.openapi_schema = make_openapi(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def make_openapi(app: FastAPI) -> Json:
    """The document."""
    made = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        routes=app.routes,
        tags=[{"name": name, "description": words} for name, words in TAGS.items()],
    )
    made["paths"][WEBHOOK_PATH] = {"post": _webhook()}
    components = made["components"]
    components["securitySchemes"] = {
        KEY: {
            "type": "http",
            "scheme": "bearer",
            "description": (
                "A key with the scope that the operation names; `admin` stands for all. None is asked for "
                "before the first is made: the other alternative, of no key"
            ),
        }
    }
    components["responses"] = {f"Problem{status}": _problems(codes) for status, codes in _shared()}
    spell_out_jobs(made)
    for path, operation in _operations(made):
        link(operation)
        form_headers(operation)
        if path.startswith(("/v1/", "/api/v1/")) and path != WEBHOOK_PATH:
            operation["security"] = [*operation["security"], {}]
            _add_problems(operation)
            _add_headers(operation)
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    return made


def _operations(made: Json) -> Iterator[tuple[str, Json]]:
    for path, item in made["paths"].items():
        yield from ((path, item[verb]) for verb in VERBS if verb in item)


def _shared() -> Iterator[tuple[int, tuple[str, ...]]]:
    yield from ALWAYS.items()
    yield from WITH_A_BODY.items()


def _add_problems(operation: Json) -> None:
    """The problems that every route shares; what the route itself says of a status stays."""
    answers = operation["responses"]
    statuses = set(ALWAYS)
    if "requestBody" in operation:
        statuses |= set(WITH_A_BODY)
    elif operation.get("parameters"):
        statuses.add(422)
    if "HTTPValidationError" in str(answers.get("422", "")):
        del answers["422"]
    for status in sorted(statuses):
        answers.setdefault(str(status), {"$ref": f"#/components/responses/Problem{status}"})


def _add_headers(operation: Json) -> None:
    """What every answer tells, and problems in the one media type that they have."""
    for status, answer in operation["responses"].items():
        if "$ref" in answer:
            continue
        content = answer.get("content", {})
        if content.get("application/json", {}).get("schema") == PROBLEM:
            content["application/problem+json"] = content.pop("application/json")
        headers = answer.setdefault("headers", {})
        headers.setdefault("X-Request-Id", _REQUEST_ID)
        headers.update({name: each for name, each in _RATES.items() if name not in headers})
        if status in ("402", "503"):
            headers.setdefault("Retry-After", _RETRY_AFTER)


def _problems(codes: tuple[str, ...]) -> Json:
    """One shared response: what may be the matter, with an example of each."""
    types = [problem_type(code) for code in codes]
    headers: Json = {"X-Request-Id": _REQUEST_ID}
    if types[0].status in (429, 503):
        headers["Retry-After"] = _RETRY_AFTER
    if types[0].status == 429:
        headers |= _RATES
    examples = {
        each.code: {
            "value": {
                "type": each.uri,
                "title": each.title,
                "status": each.status,
                "code": each.code,
                "detail": each.meaning,
                "request_id": "req_0199a5d0c3f07b6e9f5a6f1d2c3b4a59",
                **({"retry_after_s": 5} if each.status in (429, 503) else {}),
            }
        }
        for each in types
    }
    return {
        "description": " ".join(f"`{each.code}`: {each.meaning}" for each in types),
        "headers": headers,
        "content": {"application/problem+json": {"schema": PROBLEM, "examples": examples}},
    }


def _webhook() -> Json:
    """The providers' door, which FastAPI does not serve: `app.web.webhooks`."""
    text = {"type": "string"}
    refusals = {
        400: ("bad_request",),
        401: ("unauthenticated",),
        404: ("not_found",),
        405: ("method_not_allowed",),
        413: ("too_large",),
        415: ("unsupported_encoding",),
        500: ("internal",),
        503: ("storage_unavailable", "overloaded"),
    }
    return {
        "tags": ["webhooks"],
        "operationId": "receive_webhook",
        "summary": "Receive Webhook",
        "description": (
            "News of a prediction, from its provider. Stored raw and answered after the commit, the same for "
            "new and duplicate news; never redirected. Replicate signs its own, Cog's carries the token."
        ),
        "security": [],
        "parameters": [
            {"name": "provider", "in": "path", "required": True, "schema": {"enum": ["replicate", "cog"]}},
            {"name": "attempt_id", "in": "path", "required": True, "schema": {**text, "maxLength": 64}},
            {"name": "token", "in": "query", "required": False, "schema": text},
            *(
                {"name": name, "in": "header", "required": False, "schema": text}
                for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
            ),
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": {}}}},
        "responses": {
            "200": {
                "description": "Stored durably, or stored before",
                "headers": {"X-Request-Id": _REQUEST_ID},
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "properties": {"delivery_id": text},
                            "required": ["delivery_id"],
                        }
                    }
                },
            },
            **{str(status): _problems(codes) for status, codes in refusals.items()},
        },
    }
