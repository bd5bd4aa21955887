"""Announcements on the command line: real processes, a folder of their own, nothing running."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.flow.test_cli import answer, reprise


def test_what_a_caller_will_be_told_is_listed_shown_and_asked_for_again(tmp_path: Path) -> None:
    allowed = {"OUTBOUND_ALLOW": "127.0.0.1"}
    url = "http://127.0.0.1:65535/hook?key=theirs"
    refused = reprise(tmp_path, "request", "sound_effect", "rain", "--callback-url", url)
    assert (refused.returncode, "callback_url" in refused.stderr) == (2, True)
    asked = reprise(tmp_path, "request", "sound_effect", "rain", "--callback-url", url, **allowed)
    job_id = asked.stdout.strip()
    assert reprise(tmp_path, "jobs", "cancel", job_id).returncode == 0
    (waiting,) = answer(tmp_path, "announcements", "list", "--job", job_id, "--state", "pending")["items"]
    shown = reprise(tmp_path, "announcements", "show", waiting["id"]).stdout
    assert '"type":"job.canceled"' in shown
    again = reprise(tmp_path, "announcements", "resend", waiting["id"])
    assert (again.returncode, again.stdout.strip()) == (0, waiting["id"])
    counted = reprise(tmp_path, "announcements", "resend", "--since", "2h", "--state", "pending", "--dry-run")
    assert counted.stdout.startswith("1 announcements. Nothing was sent")
    assert reprise(tmp_path, "announcements", "resend").returncode == 2


def test_secrets_are_shown_and_rotated(tmp_path: Path) -> None:
    first = reprise(tmp_path, "webhooks", "secret", "show").stdout.strip()
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", first)
    rotated = reprise(tmp_path, "webhooks", "secret", "rotate", "--overlap", "1h")
    new, old = rotated.stdout.splitlines()
    assert old.startswith(f"{first}  until ")
    assert new != first
    twice = reprise(tmp_path, "webhooks", "secret", "rotate", "--overlap", "1h")
    assert (twice.returncode, first in twice.stderr) == (1, False)
    ended = json.loads(reprise(tmp_path, "webhooks", "secret", "rotate", "--overlap", "0", "--json").stdout)
    assert len(ended["items"]) == 1
    assert answer(tmp_path, "endpoints", "list", "--disabled")["items"] == []
