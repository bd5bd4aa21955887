"""`/openapi.json` is the whole of what is served, and what is served keeps to it: schemathesis says so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute, iter_route_contexts

from app.kinds import KINDS
from app.web.documented import EXAMPLES
from app.web.problem_types import problem_types
from app.web.webhooks import PREFIX
from tests.flow.conftest import OpenStage, Stage, open_stage, sqlite_template, sqlite_url, stage_on_sqlite

__all__ = ["sqlite_template", "sqlite_url", "stage_on_sqlite"]

ROOT = Path(__file__).resolve().parents[2]
