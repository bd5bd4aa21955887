"""A bucket that misbehaves while a job is finished: the job waits with the reason, and ends once it is well.

The answers are scripted in front of a real S3 emulator, at the level of HTTP.
"""

from __future__ import annotations

import hashlib
import threading
from datetime import UTC, datetime, timedelta

import pytest

from app.storage import MULTIPART_BYTES
from db.tables import Asset, Job, Output
from tests.conftest import BUCKET, Asked, Bucket
from tests.flow.conftest import TONE, OpenStage, Stage, as_data_uri
from tests.flow.test_retention import noise

QUICK = {"storage_url": f"s3://{BUCKET}", "storage_retries": 1, "storage_retry_s": 1}


async def to_the_finisher(line: Stage, output: str = TONE) -> str:
    job_id, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=output)
    await line.drain()
    return job_id


async def ends_well(line: Stage, job_id: str) -> None:
    """Succeeded, and the object can be read and is what its hash says."""
    await line.hurry()
    await line.drain()
    job = await line.read(job_id)
    assert (job["state"], job["error"]) == ("succeeded", None)
    output = job["outputs"]["audio"]
    content = (await line.client.get(output["url"])).content
    assert hashlib.sha256(content).hexdigest() == output["sha256"]


async def waits(line: Stage, job_id: str, reason: str) -> None:
    job = await line.read(job_id)
    assert (job["state"], job["error"]) == ("finishing", None)
    assert reason in job["waiting_reason"], job["waiting_reason"]
    assert await line.count(Asset) == await line.count(Output) == 0
    assert (await line.rows(Job))[0].crashes == 0


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (500, "InternalError"),
        (503, "SlowDown"),
        (403, "ExpiredToken"),
        (403, "RequestTimeTooSkewed"),
        (403, "InvalidAccessKeyId"),
        (400, "BadDigest"),
    ],
)
async def test_a_refused_put_lets_the_job_wait_with_the_buckets_own_word(
    stage_on_sqlite: OpenStage, bucket: Bucket, status: int, code: str
) -> None:
    """Fault 44: never a success meanwhile, bounded repetitions, and an end once it is well."""
    async with stage_on_sqlite(**QUICK) as line:
        bucket.refuse, bucket.status, bucket.code = (lambda asked: asked.method == "PUT"), status, code
        job_id = await to_the_finisher(line)
        await waits(line, job_id, code)
        assert 1 <= len(bucket.uploads()) <= 2, "one repetition, by the settings"
        bucket.refuse = None
        await ends_well(line, job_id)


async def test_a_bucket_that_answers_nothing_is_given_up_in_time(
    stage_on_sqlite: OpenStage, bucket: Bucket
) -> None:
    """Fault 44: a request hangs as long as STORAGE_TIMEOUT_S and its repetitions, not as long as it likes."""
    async with stage_on_sqlite(**QUICK, storage_timeout_s=0.3) as line:
        bucket.refuse, bucket.hang = (lambda asked: asked.method == "PUT"), threading.Event()
        job_id = await to_the_finisher(line)
        await waits(line, job_id, "does not answer")
        bucket.hang.set()
        bucket.refuse = None
        await ends_well(line, job_id)


async def test_a_part_that_fails_leaves_no_object_and_no_success(
    stage_on_sqlite: OpenStage, bucket: Bucket
) -> None:
    """Fault 44: the second of some parts is refused for good, then the whole is sent again."""
    async with stage_on_sqlite(**QUICK, max_content_length=200_000_000) as line:

        def refuse(asked: Asked) -> bool:
            return "partNumber=2" in asked.query

        bucket.refuse, bucket.status, bucket.code = refuse, 503, "SlowDown"
        job_id = await to_the_finisher(line, as_data_uri(noise(MULTIPART_BYTES + 1_000_000)))
        await waits(line, job_id, "SlowDown")
        assert [key for key in bucket.objects() if key.endswith(".wav")] == []
        bucket.refuse = None
        await ends_well(line, job_id)


async def test_an_answer_that_never_came_to_a_put_that_was_done_is_no_second_object(
    stage_on_sqlite: OpenStage, bucket: Bucket
) -> None:
    """Fault 44: the size is asked for and that fails; the next try finds the very bytes and sends nothing."""
    async with stage_on_sqlite(**QUICK) as line:
        asked_after = []

        def refuse(asked: Asked) -> bool:
            after_put = bool(bucket.uploads()) and asked.method == "HEAD"
            asked_after.append(after_put)
            return after_put

        bucket.refuse, bucket.status = refuse, 500
        job_id = await to_the_finisher(line)
        await waits(line, job_id, "does not answer")
        assert any(asked_after)
        bucket.refuse = None
        await ends_well(line, job_id)
        sent = [upload.path for upload in bucket.uploads()]
        assert len(sent) == 1, "the clip, once"


async def test_a_bucket_that_stays_away_fails_the_job_at_its_deadline_with_its_code(
    stage_on_sqlite: OpenStage, bucket: Bucket
) -> None:
    """Fault 44: the tries are bounded by the job's own time."""
    async with stage_on_sqlite(**QUICK) as line:
        bucket.refuse, bucket.status, bucket.code = (lambda asked: asked.method == "PUT"), 503, "SlowDown"
        job_id = await to_the_finisher(line)
        await line.change(Job, job_id, deadline_at=datetime.now(UTC) - timedelta(seconds=1))
        await line.hurry()
        await line.drain()
        job = await line.read(job_id)
        assert (job["state"], job["error"]["code"]) == ("failed", "storage_unavailable")
        assert "SlowDown" in job["error"]["message"]


async def test_reading_and_readiness_say_what_the_bucket_says(
    stage_on_sqlite: OpenStage, bucket: Bucket
) -> None:
    """Fault 44: 503 with Retry-After for what may pass, 410 for what is gone, and no 500."""
    async with stage_on_sqlite(**QUICK) as line:
        job_id = await to_the_finisher(line)
        url = (await line.read(job_id))["outputs"]["audio"]["url"]
        bucket.refuse, bucket.status, bucket.code = (lambda _: True), 403, "ExpiredToken"
        reply = await line.client.get(url)
        assert (reply.status_code, reply.json()["code"]) == (503, "storage_unavailable")
        assert "retry-after" in reply.headers
        ready = await line.client.get("/readyz")
        assert ready.status_code == 503
        assert "ExpiredToken" in ready.json()["checks"]["storage"]["detail"]
        bucket.refuse = None
        assert (await line.client.get(url)).status_code == 200
        asset = (await line.rows(Asset))[0]
        await line.runtime.bench.storage.delete(asset.storage_key)
        reply = await line.client.get(url)
        assert (reply.status_code, reply.json()["code"]) == (410, "gone")
