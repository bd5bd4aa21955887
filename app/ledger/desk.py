"""What the ledger's readers and writers share, made once: one object of each, for whoever opens a runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.inbox import Inbox
from app.ledger.effects import Oracle
from app.ledger.errands import Asking, Errand, Replaying
from app.ledger.originals import Originals
from app.ledger.predictions import Predictions
from app.ledger.recoveries import Recoveries, Task
from app.ledger.refusals import Refusals
from app.line import Line
from app.provider.base import Provider
from app.recovery import Recovery


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The rooms of the ledger."""

    recoveries: Recoveries
    predictions: Predictions
    refusals: Refusals
    originals: Originals

    async def aclose(self) -> None:
        """Write what is noted and let go of the database."""
        await self.predictions.aclose()
        await self.refusals.aclose()


def make_ledger(*, line: Line, providers: Mapping[str, Provider], inbox: Inbox, recovery: Recovery) -> Ledger:
    """Called by `app.wiring` alone."""
    oracle = Oracle(line=line, inbox=inbox)
    errands: dict[Task, Errand] = {
        Task.RECOVER: Asking(line=line, inbox=inbox, recovery=recovery, oracle=oracle),
        Task.REPLAY: Replaying(line=line, inbox=inbox, providers=providers, oracle=oracle),
    }
    return Ledger(
        recoveries=Recoveries(line=line, errands=errands),
        predictions=Predictions(line=line, oracle=oracle),
        refusals=Refusals(line),
        originals=Originals(line=line, inbox=inbox, providers=providers),
    )
