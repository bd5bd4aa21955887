"""What `/openapi.json` says of jobs beyond their routes: a shape a kind, examples, links, headers' forms.

`POST /v1/jobs` takes `input` by kind. The route validates it with the kind's own model once it knows the
kind; here the same models make the body a union with `kind` as its discriminator, so that a generated client
has a type for each.
"""

from __future__ import annotations

from typing import Any

from app.kinds import KINDS

Json = dict[str, Any]

REF = "#/components/schemas/{model}"
EXAMPLES: dict[str, Json] = {
    "sound_effect": {"prompt": "heavy rain on a tin roof", "duration_s": 4},
    "background_music": {"prompt": "calm piano in C, slow", "duration_s": 20},
    "speech": {"text": "Nothing was lost.", "language": "en"},
    "transcription": {"audio": "upl_0199a5d0c3f07b6e9f5a6f1d2c3b4a59"},
    "translation": {"text": "Good morning.", "source": "en", "target": "es"},
    "stem_separation": {"audio": "upl_0199a5d0c3f07b6e9f5a6f1d2c3b4a59"},
    "voice_conversion": {
        "audio": "upl_0199a5d0c3f07b6e9f5a6f1d2c3b4a59",
        "voice_id": "voi_0199a5d0c3f07b6e9f5a6f1d2c3b4a5a",
        "pitch_shift": -2,
    },
    "voice_transfer": {
        "audio": "upl_0199a5d0c3f07b6e9f5a6f1d2c3b4a59",
        "voice_id": "voi_0199a5d0c3f07b6e9f5a6f1d2c3b4a59",
    },
}
_OF_A_JOB = ("list_job_events", "list_steps", "rerun_job", "expunge_job")
_OF_A_RECOVERY = ("get_recovery", "list_items", "abort_recovery")
LINKS = {
    ("submit_job", "202"): ("id", "job_id", ("get_job", "cancel_job", "retry_job", *_OF_A_JOB)),
    ("retry_job", "202"): ("id", "job_id", ("get_job", "cancel_job")),
    ("rerun_job", "202"): ("id", "job_id", ("get_job", "cancel_job")),
    ("get_job", "200"): ("id", "job_id", ("cancel_job", "retry_job", *_OF_A_JOB)),
    ("act_on_many", "202"): ("id", "act_id", ("get_act", "abort_act")),
    ("recover", "202"): ("id", "recovery_id", _OF_A_RECOVERY),
    ("replay_many", "202"): ("id", "recovery_id", _OF_A_RECOVERY),
    ("upload", "201"): ("upload_id", "upload_id", ("get_upload", "append_to_upload", "delete_upload")),
    ("create_voice", "201"): (
        "id",
        "voice_id",
        ("get_voice", "rename_voice", "export_voice", "delete_voice"),
    ),
    ("create_key", "201"): ("id", "key_id", ("rotate_key", "revoke_key")),
}
"""Where an answer leads: the member that says so, the parameter that it fills, and the operations."""
IDEMPOTENCY_KEY: Json = {"type": "string", "pattern": r"^[!-~]{1,255}$"}
LAST_EVENT_IDS: dict[str, Json] = {
    "list_job_events": {"type": "string", "pattern": r"^[0-9]{1,9}$"},
    "list_events": {"type": "string", "pattern": r"^[0-9]{1,19}$"},
    "list_deliveries": {"type": "string", "pattern": r"^dlv_[0-9a-f]{32}$"},
}
"""By operation. These forms routes judge by themselves, with a problem of their own."""


def spell_out_jobs(made: Json) -> None:
    """Make `NewJob` a union by kind, with an example of each."""
    schemas = made["components"]["schemas"]
    general = schemas["NewJob"]
    mapping = {}
    for kind in KINDS.values():
        inputs = kind.input_model.model_json_schema(ref_template=REF)
        schemas.update(inputs.pop("$defs", {}))
        schemas[kind.input_model.__name__] = inputs
        name = "New" + kind.name.title().replace("_", "")
        properties = {
            **general["properties"],
            "kind": {"type": "string", "const": kind.name},
            "input": {"$ref": REF.format(model=kind.input_model.__name__)},
        }
        schemas[name] = {**general, "properties": properties, "title": name}
        mapping[kind.name] = REF.format(model=name)
    schemas["NewJob"] = {
        "title": "NewJob",
        "description": general["description"],
        "oneOf": [{"$ref": reference} for reference in mapping.values()],
        "discriminator": {"propertyName": "kind", "mapping": mapping},
    }
    content = made["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]
    content["examples"] = {
        name: {"summary": name, "value": {"kind": name, "input": EXAMPLES[name]}}
        for name in KINDS
        if name in EXAMPLES
    }


def link(operation: Json) -> None:
    """Say which operations go on with what this one answers."""
    for status, answer in operation["responses"].items():
        found = LINKS.get((operation.get("operationId", ""), status))
        if found is not None and "$ref" not in answer:
            member, parameter, following = found
            answer["links"] = {
                each: {"operationId": each, "parameters": {parameter: f"$response.body#/{member}"}}
                for each in following
            }


def form_headers(operation: Json) -> None:
    """Give headers the form that their routes hold them to."""
    for parameter in operation.get("parameters", ()):
        name = parameter["name"].lower() if parameter["in"] == "header" else ""
        if name == "idempotency-key":
            parameter["schema"] = IDEMPOTENCY_KEY
        elif name == "last-event-id":
            parameter["schema"] = LAST_EVENT_IDS[operation["operationId"]]
