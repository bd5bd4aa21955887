"""Voice profiles over HTTP: made of what is good enough, used by jobs, deleted, and each tenant's own."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import client as reprise
from app.access.callers import Caller, Scope
from app.errors import AudioRejected, EngineUnavailable, Overloaded
from db.tables import Asset, Audit, IdempotencyKey, Upload, Voice
from tests.fakes.examiner import FakeExaminer, vector
from tests.flow.client_ground import ground_on
from tests.flow.conftest import OpenStage, Stage, tone

NOBODY = "voi_" + "0" * 32


class Ground:
    """A stage with an examiner that says what it is told to."""

    def __init__(self, line: Stage, examiner: FakeExaminer) -> None:
        self.line, self.examiner = line, examiner
        self.headers: dict[str, str] = {}

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = self.headers | more.pop("headers", {})
        return await self.line.client.request(method, path, headers=headers, **more)

    async def upload(self, seconds: float = 20.0, hz: float = 440.0) -> str:
        sound = tone(seconds, hz=hz)
        sent = await self.ask("POST", "/v1/uploads", files={"file": ("v.wav", sound, "audio/wav")})
        assert sent.status_code == 201, sent.text
        return str(sent.json()["upload_id"])

    async def make(self, name: str = "Ada", *, hz: float = 440.0, **headers: str) -> dict[str, Any]:
        body = {"name": name, "upload_id": await self.upload(hz=hz)}
        made = await self.ask("POST", "/v1/voices", json=body, headers=headers)
        assert made.status_code == 201, made.text
        return dict(made.json())

    async def transfer(self, voice_id: str) -> httpx.Response:
        given = {"audio": await self.upload(2.0, hz=880.0), "voice_id": voice_id}
        return await self.ask("POST", "/v1/jobs", json={"kind": "voice_transfer", "input": given})

    async def become(self, tenant: str) -> None:
        issued = await self.line.runtime.key_desk.create(
            Caller(tenant, frozenset(Scope)), name="k", scopes=[Scope.ADMIN]
        )
        self.line.runtime.keyring.close_house()
        self.headers = {"authorization": f"Bearer {issued.text}"}


@pytest.fixture
def ground(stage_on: OpenStage) -> Any:
    @asynccontextmanager
    async def opened(**settings: Any) -> AsyncIterator[Ground]:
        examiner = FakeExaminer()
        async with stage_on(routes=("cog",), ports={"examiner": examiner}, **settings) as line:
            yield Ground(line, examiner)

    return opened


async def test_a_voice_is_made_with_what_was_measured_and_is_there_until_it_is_deleted(ground: Any) -> None:
    async with ground() as here:
        made = await here.make("  Ada ")
        assert (made["name"], made["snr_db"], made["consistency"]) == ("  Ada ", 31.5, 0.91)
        assert made["vocal_range"] == {
            "lowest": {"hz": 110.0, "note": "A2"},
            "median": {"hz": 220.0, "note": "A3"},
            "highest": {"hz": 440.0, "note": "A4"},
        }
        assert (await here.ask("GET", f"/v1/voices/{made['id']}")).json() == made
        renamed = await here.ask("PATCH", f"/v1/voices/{made['id']}", json={"name": "Grace"})
        assert renamed.json() == made | {"name": "Grace"}
        assert (await here.ask("GET", "/v1/voices")).json()["items"] == [renamed.json()]
        assert (await here.ask("DELETE", f"/v1/voices/{made['id']}")).status_code == 204
        for method, more in (("GET", {}), ("PATCH", {"json": {"name": "x"}}), ("DELETE", {})):
            assert (await here.ask(method, f"/v1/voices/{made['id']}", **more)).status_code == 404
        acts = [row.act for row in await here.line.rows(Audit) if row.subject == made["id"]]
        assert sorted(acts) == ["voice.created", "voice.deleted", "voice.renamed"]


@pytest.mark.parametrize(
    ("heard", "words"),
    [
        ({"snr_db": 4.2}, "its SNR is 4.2 dB, at least 10 dB are needed"),
        ({"consistency": 0.4}, "more than one voice"),
        ({"silence_share": 0.9}, "90% of it is silence"),
    ],
)
async def test_a_recording_that_is_not_good_enough_is_refused_and_nothing_is_stored(
    ground: Any, heard: dict[str, Any], words: str
) -> None:
    async with ground() as here:
        here.examiner.hears(**heard)
        upload_id = await here.upload()
        before = await here.line.rows(Upload)
        body = {"name": "Ada", "upload_id": upload_id}
        refused = await here.ask("POST", "/v1/voices", json=body, headers={"idempotency-key": "k"})
        assert (refused.status_code, refused.json()["code"]) == (422, "voice_unfit")
        assert words in refused.json()["detail"]
        assert refused.json()["field"] == "upload_id"
        assert await here.line.rows(Voice) == []
        assert await here.line.rows(Upload) == before
        assert await here.line.count(IdempotencyKey) == 0


async def test_what_is_too_short_or_not_there_is_refused_without_being_examined(ground: Any) -> None:
    async with ground() as here:
        for body, words in (
            ({"upload_id": await here.upload(3.0)}, "it lasts 3.0 s, 15 to 60 s are needed"),
            ({"upload_id": "upl_" + "0" * 32}, "no such upload"),
            ({"asset": "ast_" + "0" * 32}, "no such upload or asset"),
            ({}, "either upload_id or asset"),
            ({"upload_id": "upl_" + "0" * 32, "asset": "ast_" + "0" * 32}, "either upload_id or asset"),
        ):
            refused = await here.ask("POST", "/v1/voices", json={"name": "x", **body})
            assert refused.status_code == 422, refused.text
            assert words in refused.text
        assert here.examiner.examined == 0


@pytest.mark.parametrize(
    ("trouble", "status", "code"),
    [
        (AudioRejected("it cannot be decoded"), 422, "voice_unfit"),
        (Overloaded("too many recordings are being examined", retry_after_s=5), 503, "overloaded"),
        (EngineUnavailable("voices need: pip install pyworld-prebuilt"), 502, "engine_unavailable"),
    ],
)
async def test_what_keeps_a_recording_from_being_examined_is_a_problem_with_a_name(
    ground: Any, trouble: Any, status: int, code: str
) -> None:
    async with ground() as here:
        here.examiner.trouble = trouble
        body = {"name": "x", "upload_id": await here.upload()}
        refused = await here.ask("POST", "/v1/voices", json=body)
        assert (refused.status_code, refused.json()["code"]) == (status, code), refused.text
        assert await here.line.rows(Voice) == []


async def test_a_key_makes_one_voice_however_often_it_is_sent(ground: Any) -> None:
    async with ground() as here:
        body = {"name": "Ada", "upload_id": await here.upload()}
        key = {"idempotency-key": "once"}
        first, second = [await here.ask("POST", "/v1/voices", json=body, headers=key) for _ in range(2)]
        assert first.json() == second.json()
        assert here.examiner.examined == 1
        other = await here.ask("POST", "/v1/voices", json=body | {"name": "Eve"}, headers=key)
        assert (other.status_code, other.json()["field"]) == (422, "Idempotency-Key")


async def test_voices_that_sound_alike_are_pointed_out_within_the_tenant_alone(ground: Any) -> None:
    async with ground() as here:
        await here.become("acme")
        one = await here.make("one")
        here.examiner.hears(embedding=vector(2, like=1, by=0.9))
        twin = await here.make("twin", hz=500.0)
        here.examiner.hears(embedding=vector(3, like=1, by=0.5))
        other = await here.make("other", hz=600.0)
        assert one["duplicates"] == []
        assert twin["duplicates"] == [{"voice_id": one["id"], "similarity": 0.9}]
        assert other["duplicates"] == []
        found = (await here.ask("GET", f"/v1/voices/{one['id']}")).json()
        assert found["duplicates"] == [{"voice_id": twin["id"], "similarity": 0.9}]
        await here.become("umbrella")
        here.examiner.hears(embedding=vector(2, like=1, by=0.9))
        assert (await here.make("theirs", hz=700.0))["duplicates"] == []


async def test_two_tenants_see_use_and_export_their_own_voices_alone(ground: Any) -> None:
    async with ground() as here:
        await here.become("acme")
        ours = await here.make()
        await here.become("umbrella")
        assert (await here.ask("GET", "/v1/voices")).json() == {"items": [], "next_cursor": None}
        for path in (f"/v1/voices/{ours['id']}", f"/v1/voices/{ours['id']}/export"):
            assert (await here.ask("GET", path)).status_code == 404
        refused = await here.transfer(ours["id"])
        assert (refused.status_code, refused.json()["field"]) == (422, "input.voice_id")
        # Nor is its recording anything that they have.
        stolen = await here.ask("POST", "/v1/voices", json={"name": "x", "asset": ours["asset_id"]})
        assert stolen.status_code == 422


async def test_lists_are_pages_newest_first(ground: Any) -> None:
    async with ground() as here:
        made = [(await here.make(str(number), hz=300.0 + number))["id"] for number in range(3)]
        first = (await here.ask("GET", "/v1/voices", params={"limit": 2})).json()
        rest = {"limit": 2, "cursor": first["next_cursor"]}
        second = (await here.ask("GET", "/v1/voices", params=rest)).json()
        assert [each["id"] for each in first["items"] + second["items"]] == made[::-1]
        assert second["next_cursor"] is None
        mangled = await here.ask("GET", "/v1/voices", params={"cursor": "AAAA"})
        assert (mangled.status_code, mangled.json()["code"]) == (400, "invalid_cursor")


async def test_an_export_holds_the_figures_the_embedding_and_the_recording_byte_for_byte(ground: Any) -> None:
    async with ground() as here:
        made = await here.make("Ada")
        reply = await here.ask("GET", f"/v1/voices/{made['id']}/export")
        assert reply.headers["content-type"] == "application/zip"
        with zipfile.ZipFile(io.BytesIO(reply.content)) as parcel:
            profile = json.loads(parcel.read("voice.json"))
            recording = parcel.read(profile["recording"]["file"])
        assert recording == tone(20.0)
        assert (profile["name"], profile["id"], profile["snr_db"]) == ("Ada", made["id"], 31.5)
        assert len(profile["embedding"]) == 256
        assert sum(each**2 for each in profile["embedding"]) == pytest.approx(1.0, abs=1e-3)
        assert "duplicates" not in profile


async def test_a_job_reaches_the_model_with_its_sound_and_the_voices_recording_as_links(ground: Any) -> None:
    async with ground() as here:
        voice = await here.make()
        job = await here.transfer(voice["id"])
        assert job.status_code == 202, job.text
        assert job.json()["input"]["voice_id"] == voice["id"]
        await here.line.drain()
        [asked] = here.line.cog.running.values()
        assert asked["input"]["strength"] == 0.5
        assert asked["input"]["transpose"] == "octaves"
        links = {name: asked["input"][name] for name in ("audio", "voice_audio")}
        for name, expected in (("audio", tone(2.0, hz=880.0)), ("voice_audio", tone(20.0))):
            fetched = await here.line.client.get(links[name])
            assert fetched.content == expected, name


async def test_a_job_whose_voice_is_deleted_while_it_waits_says_so(ground: Any) -> None:
    async with ground() as here:
        voice = await here.make()
        job_id = (await here.transfer(voice["id"])).json()["id"]
        await here.ask("DELETE", f"/v1/voices/{voice['id']}")
        await here.line.drain()
        job = (await here.ask("GET", f"/v1/jobs/{job_id}")).json()
        assert (job["state"], job["error"]["code"]) == ("failed", "voice_gone")
        assert voice["id"] in job["error"]["message"]
        assert not here.line.cog.asked


async def test_a_job_for_a_voice_that_never_was_is_refused_before_anything_is_stored(ground: Any) -> None:
    async with ground() as here:
        refused = await here.transfer(NOBODY)
        assert (refused.status_code, refused.json()["field"]) == (422, "input.voice_id")


async def test_a_voice_keeps_its_recording_and_lets_it_go_with_itself(ground: Any) -> None:
    async with ground(upload_life_s=60) as here:
        voice = await here.make()
        line = here.line
        kept = (await here.ask("GET", f"/v1/assets/{voice['asset_id']}")).json()
        assert kept["expires_at"] is None
        [own] = [row for row in await line.rows(Upload) if row.expires_at.year < 9000]
        await line.change(Upload, own.id, expires_at=datetime.now(UTC) - timedelta(days=1))
        assert await line.runtime.housekeeper.expire_uploads() == 1
        assert [row.id for row in await line.rows(Asset)] == [voice["asset_id"]]
        await here.ask("DELETE", f"/v1/voices/{voice['id']}")
        assert await line.runtime.housekeeper.expire_uploads() == 1
        assert await line.rows(Asset) == []
        assert await line.rows(Upload) == []


@pytest.mark.parametrize("form", ["async", "blocking"])
async def test_both_clients_make_find_rename_export_and_delete_a_voice(
    stage_on_sqlite: OpenStage, tmp_path: Path, form: str
) -> None:
    recording = tmp_path / "ada.wav"
    recording.write_bytes(tone(20.0))
    async with (
        stage_on_sqlite(routes=("cog",), ports={"examiner": FakeExaminer()}) as stage,
        ground_on(stage, form) as here,
    ):
        made = await here.client.voices.create("Ada", recording)
        assert made.vocal_range.median.note == "A3"
        assert [each.id async for each in here.client.voices.list()] == [made.id]
        assert (await here.client.voices.rename(made.id, "Grace")).name == "Grace"
        parcel = await here.client.voices.export(made.id, tmp_path / "ada.zip")
        with zipfile.ZipFile(parcel) as found:
            assert json.loads(found.read("voice.json"))["name"] == "Grace"
        await here.client.voices.delete(made.id)
        with pytest.raises(reprise.NotFound):
            await here.client.voices.get(made.id)
        short = tmp_path / "short.wav"
        short.write_bytes(tone(3.0))
        with pytest.raises(reprise.InvalidInput, match=r"it lasts 3\.0 s"):
            await here.client.voices.create("Ada", short)
