"""`/openapi.json` is the whole of what is served, and what is served keeps to it: schemathesis says so."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error

from app.main import create_api
from tests.conftest import make_settings
