"""How conversions are told over Socket.IO, by the names of other services' clients."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.flow.conftest import OpenStage
from tests.flow.sockets import Listener, listening_to, served
from tests.flow.songs import Studio
from tests.flow.test_tenants import key_for

ENDS = ("conversion_complete", "conversion_error", "conversion_cancelled")


@pytest.fixture
async def studio(stage_on_sqlite: OpenStage) -> AsyncIterator[Studio]:
    async with stage_on_sqlite(routes=("cog",)) as line:
        yield Studio(line)


async def ask(
    studio: Studio, headers: dict[str, str] | None = None, *, tenant: str = "default", **more: object
) -> str:
    return await studio.convert(await studio.upload(headers=headers), headers, tenant=tenant, **more)


def told(listener: Listener) -> list[tuple[str, int]]:
    """What was said of conversions, with the numbers of the events."""
    return [(event, said["seq"]) for event, said in listener.heard if event.startswith("conversion_")]


async def test_a_conversion_is_told_from_its_progress_to_its_end_each_event_once(studio: Studio) -> None:
    job_id = await ask(studio, return_stems=True)
    async with (
        served(studio.line.runtime) as (url, _),
        listening_to(url, namespace="/") as listener,
    ):
        answer = await listener.ask("join_job", {"job_id": job_id})
        assert (answer["job_id"], answer["conversion_id"]) == (job_id, job_id)
        first = await listener.wait_for("conversion_progress")
        assert (first["progress"], first["stage"]) == (0, None)
        await studio.do_all()
        done = await listener.wait_for("conversion_complete")
        shown = (await studio.line.client.get(f"/api/v1/convert/status/{job_id}")).json()
        assert done["conversion_id"] == job_id
        assert (done["status"], done["duration"]) == ("completed", 2)
        assert set(done["stem_urls"]) == {"vocals", "instrumental"}
        assert done["quality_metrics"] == shown["quality_metrics"]
        seqs = [seq for _, seq in told(listener)]
        assert seqs == sorted(set(seqs))
        stages = [said["stage"] for said in listener.named("conversion_progress")]
        assert list(dict.fromkeys(stages)) == [
            None, "source_separation", "voice_conversion", "audio_mixing",
        ]  # fmt: skip
        progress = [said["progress"] for said in listener.named("conversion_progress")]
        assert progress == sorted(progress)
        assert progress[-1] == 80


async def test_who_comes_late_hears_how_it_stands_and_who_comes_back_what_was_missed(studio: Studio) -> None:
    job_id = await ask(studio)
    async with served(studio.line.runtime) as (url, _):
        async with listening_to(url, namespace="/") as listener:
            await listener.ask("join_job", {"job_id": job_id})
            await listener.wait_for("conversion_progress")
            await studio.do()
            await listener.until(lambda: listener.heard[-1][1].get("stage") == "voice_conversion")
            before = told(listener)
        await studio.do()
        async with listening_to(url, namespace="/") as back, listening_to(url, namespace="/") as late:
            await back.ask("join_job", {"job_id": job_id, "after_seq": before[-1][1]})
            await late.ask("join_job", {"job_id": job_id})
            await back.wait_for("conversion_complete")
            await late.wait_for("conversion_complete")
            assert len(told(late)) == 1
            seqs = [seq for _, seq in before + told(back)]
            assert seqs == sorted(set(seqs))
            assert seqs[-1] == (await studio.line.runtime.jobs.get(job_id)).job.seq


@pytest.mark.parametrize("end", ["conversion_error", "conversion_cancelled"])
async def test_another_end_is_told_once_by_its_own_name(studio: Studio, end: str) -> None:
    job_id = await ask(studio)
    async with (
        served(studio.line.runtime) as (url, _),
        listening_to(url, namespace="/") as listener,
    ):
        await listener.ask("join_job", {"job_id": job_id})
        if end == "conversion_error":
            await studio.do(error="EngineError: nobody sings")
            said = await listener.wait_for(end)
            assert (said["code"], said["error"]) == ("prediction_failed", "separation: nobody sings")
        else:
            await studio.line.client.post(f"/v1/jobs/{job_id}/cancel")
            await listener.wait_for(end)
        assert [event for event, _ in told(listener) if event in ENDS] == [end]


async def test_nobody_is_told_of_another_tenants_conversion_or_of_another_job(studio: Studio) -> None:
    """Fault 18, Fault 63: told to whoever joined, and to nobody else."""
    effect = await studio.line.ask()
    keys = {tenant: await key_for(studio.line, tenant) for tenant in ("acme", "globex")}
    headers = {name: {"authorization": f"Bearer {key.text}"} for name, key in keys.items()}
    ours = await ask(studio, headers["acme"], tenant="acme")
    other = await ask(studio, headers["acme"], tenant="acme", pitch_shift=2)
    async with (
        served(studio.line.runtime) as (url, _),
        listening_to(url, namespace="/", token=keys["acme"].text) as mine,
        listening_to(url, namespace="/", token=keys["globex"].text) as theirs,
    ):
        for job_id in (ours, effect):
            refused = await theirs.ask("join_job", {"job_id": job_id})
            assert refused["error"]["code"] == "not_found"
        await mine.ask("join_job", {"job_id": ours})
        await studio.do_all()
        await mine.wait_for("conversion_complete")
        assert {said["job_id"] for event, said in mine.heard if event.startswith("conversion_")} == {ours}
        assert told(theirs) == []
        await mine.ask("join_job", {"job_id": other})
        assert (await mine.wait_for("conversion_complete", 2))["job_id"] == other
