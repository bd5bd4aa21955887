"""What is told of a resumable upload, and what may be wrong with a request that writes to one."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime

from app.errors import Conflict, RequestError
from app.intake.uploads import Received

CHECKSUMS = ("sha256", "sha1")


@dataclass(frozen=True, slots=True)
class Standing:
    """How far an upload is."""

    upload_id: str
    size_bytes: int
    """As it was announced."""
    offset_bytes: int
    """How much of it is durable: all of it only when it is stored."""
    expires_at: datetime
    about: str = ""
    """`Upload-Metadata` as it came, while the upload has not all come."""
    stored: Received | None = None
    """Once all has come and was found sound."""


class OffsetMismatch(Conflict):
    """The bytes do not begin where the upload is: ask for its offset, and go on from there."""

    code = "offset_mismatch"


class UploadLocked(RequestError):
    """Another request writes to this upload, or took it over: ask for its offset in a moment, and go on."""

    code = "upload_locked"
    status = 423


class PieceDamaged(RequestError):
    """The bytes that came are not those of `Upload-Checksum`: nothing of them was kept, send them again."""

    code = "upload_checksum_mismatch"
    status = 460


class TooManyUnfinished(Conflict):
    """The tenant has so many unfinished uploads that some must be finished, deleted or expire first."""

    code = "too_many_unfinished_uploads"


@dataclass(frozen=True, slots=True)
class Checksum:
    """What the bytes of one request must come to."""

    algorithm: str
    """One of CHECKSUMS."""
    digest: bytes


class Check:
    """The bytes of one request so far, against their checksum if they have one."""

    def __init__(self, checksum: Checksum | None) -> None:
        self.checksum = checksum
        self._digest = hashlib.new(checksum.algorithm, usedforsecurity=False) if checksum else None

    def update(self, chunk: bytes) -> None:
        if self._digest is not None:
            self._digest.update(chunk)

    def prove(self) -> None:
        """Raises PieceDamaged."""
        if self.checksum is None or self._digest is None:
            return
        if not hmac.compare_digest(self._digest.digest(), self.checksum.digest):
            raise PieceDamaged(f"the {self.checksum.algorithm} of what came is another")
