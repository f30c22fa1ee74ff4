"""Decides, once per request, what its caller may see.

Whose services are whose is read from the current inventory and from the ledger; a caller who
may not see everything gets nothing while either cannot be read.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable
from typing import TypeVar

from oscar_metrics.completeness import sentence
from oscar_metrics.discretion import discreetly_missing
from oscar_metrics.errors import LedgerError, NotFound, NotNow
from oscar_metrics.ledger.holder import LedgerHolder
from oscar_metrics.live import Live
from oscar_metrics.outcome import Unavailable
from oscar_metrics.ownership import Ownership
from oscar_metrics.privacy import Privacy
from oscar_metrics.scope import Scope, ScopeMode, Viewer, open_to
from oscar_metrics.tasks import task_group
from oscar_metrics.wire import SourceName

T = TypeVar("T")

# When a caller may ask again for what needs the inventory, or the ledger.
RETRY_AFTER_SECONDS = 15


class Admitted:
    """One request's viewer, with what is needed to say what they see; made by `admit`."""

    def __init__(
        self,
        viewer: Viewer,
        live: Live,
        ledger: LedgerHolder | None,
        privacy: Privacy,
        *,
        now_ns: int,
        deadline: float | None,
        mode: ScopeMode,
    ) -> None:
        self.viewer = viewer
        self.live = live
        self.now_ns = now_ns
        self.deadline = deadline
        self._ledger = ledger
        self._privacy = privacy
        self._mode = mode
        self._ownership: Ownership | None = None
        # Whose services are seen, as the ledger knows them, where it is not everyone's.
        self._user = ""

    @property
    def sees_everything(self) -> bool:
        """Whether there is nothing to leave out."""
        return self.viewer.caller.administrator and not self.viewer.owner

    @property
    def sees(self) -> str:
        """Which deployed services are seen, in a digest; blank for everything."""
        scope = self.scope()
        if scope is None:
            return ""
        services = scope.inventory(scope.ownership.inventory).services
        names = sorted(f"{service.namespace}/{service.name}" for service in services)
        return hashlib.blake2b("\n".join(names).encode(), digest_size=16).hexdigest()

    @property
    def seen(self) -> str:
        """What of the cluster is seen, in a word or two for the log."""
        if self.sees_everything:
            return "cluster"
        if self.viewer.caller.administrator:
            return f"owner:{self._privacy.user(self._user)}"
        return "visible" if self._mode is ScopeMode.VISIBLE else "own"

    def scope(self) -> Scope | None:
        """What is seen; None for everything. Raises ValueError before `decide`."""
        if self.sees_everything:
            return None
        if self._ownership is None:
            raise ValueError("what they see has not been decided")
        caller = self.viewer.caller
        looks_around = self._mode is ScopeMode.VISIBLE and not caller.administrator
        return Scope(
            self._ownership,
            self._user,
            others=(
                open_to(caller.user, self._ownership.inventory) if looks_around else frozenset()
            ),
            discreet=not caller.administrator,
        )

    def has_service(self, service: str) -> bool:
        """Whether a service of this name is known to exist, or to have existed, in the scope."""
        scope = self.scope()
        return scope is None or scope.has_service(service)

    async def ownership(self) -> Ownership:
        """Whose each service is; raises NotNow where that cannot be read."""
        if self._ownership is None:
            self._ownership = await self._read_ownership()
        return self._ownership

    async def decide(self) -> None:
        """Find out what the viewer sees; raises NotNow where that cannot be, NotFound for an owner.

        To be called once.
        """
        if self.sees_everything:
            return
        caller, owner = self.viewer.caller, self.viewer.owner
        ownership = await self.ownership()
        if not caller.administrator:
            self._user = ownership.known_as(caller.user)
            return
        # As owners are shown: who may not learn whose a pseudonym is cannot try ids out here.
        shown = {self._privacy.user(known): known for known in ownership.owners}
        known_owner = shown.get(owner) or shown.get(ownership.known_as(owner))
        if known_owner is None:
            raise NotFound(
                "metrics owner not found",
                parameter="owner",
                detail="expected the id of one of /system/metrics/owners",
            )
        self._user = known_owner

    async def _read_ownership(self) -> Ownership:
        outcome = await self.live.inventory()
        if isinstance(outcome, Unavailable):
            told = outcome if self.viewer.caller.administrator else discreetly_missing(outcome)
            raise inventory_unavailable(told)
        inventory = outcome.facts
        if self._ledger is None:
            return Ownership(inventory, None)
        store = self._ledger.store
        if store is None:
            raise self._without_ledger(self._ledger.problem)
        # Who was forgotten is known by a pseudonym; so are who asks, and of whom.
        named = {self.viewer.caller.user, self.viewer.owner}
        named |= {owns.owner for owns in inventory.owners}
        named |= {service.owner for service in inventory.services}
        async with task_group() as group:
            past = group.create_task(self._in_time(store.owned()))
            recorded = group.create_task(self._in_time(store.services()))
            known_as = group.create_task(self._in_time(store.pseudonyms(named - {""})))
        return Ownership(
            inventory,
            past.result(),
            recorded=recorded.result(),
            known_as=known_as.result(),
            now_ns=self.now_ns,
        )

    async def _in_time(self, answer: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout_at(self.deadline):
                return await answer
        except TimeoutError:
            raise self._without_ledger("it had not answered in time") from None
        except LedgerError as exc:
            raise self._without_ledger(str(exc)) from exc

    def _without_ledger(self, problem: str) -> NotNow:
        return NotNow(
            "the ledger cannot be read",
            detail=(
                problem
                if self.viewer.caller.administrator
                else "whose services are whose is not known without it"
            ),
            retry_after_seconds=RETRY_AFTER_SECONDS,
        )


def inventory_unavailable(outcome: Unavailable) -> NotNow:
    """What a caller gets instead of what rests on the inventory."""
    return NotNow(
        "service inventory unavailable",
        detail=f"{SourceName.INVENTORY}: {sentence(outcome.notes)}",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )
