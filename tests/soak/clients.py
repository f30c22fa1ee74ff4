"""Clients of every kind, all at once: each asks something else every time, as a seed has it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx

from tests.e2e.running import PASSWORD, USERNAME
from tests.servers.realms import CLIENTS
from tests.soak.judging import excuses, faults_of_body, faults_of_refusal, faults_of_report
from tests.soak.scene import DEADLINE_SECONDS, LEEWAY_SECONDS, Asked, Scene, credentials
from tests.soak.timeline import Timeline
from tests.toxics.expected import Upstream
from tests.toxics.questions import Caller

# A report may be waited for half of its deadline, and the machine is busy. Who has no answer then
# never gets one.
_ANSWER_SECONDS = 4 * DEADLINE_SECONDS
# So long after a fault its upstream may still be left alone, or be believed to be out.
UNWELL_SECONDS = 6.0
_PAUSE_SECONDS = 0.15
_TOKENS = 40
# After so long a token of the client "brief" has expired, our server's leeway included.
_BRIEF_SECONDS = CLIENTS["brief"][1] + LEEWAY_SECONDS + 1

# What is wrong with a request, and what it is answered with whoever is out.
_BAD_REQUESTS = (
    ("GET", "/system/metrics/summary?start=yesterday", 400),
    ("GET", "/system/metrics/summary?start=2026-02-02T00:00:00Z&end=2026-02-01T00:00:00Z", 400),
    ("GET", "/system/metrics/summary?nothing=1", 400),
    ("GET", "/system/metrics/summary?interval=minute", 400),
    ("GET", "/system/metrics/value?metric=cpu-hours", 400),
    ("GET", "/system/metrics/value?service_id=cowsay&metric=nonsense", 400),
    ("GET", "/system/metrics/breakdown", 400),
    ("GET", "/system/metrics/breakdown?group_by=service&format=xml", 400),
    ("GET", f"/system/metrics/summary?{'x' * 40_000}", 414),
    ("GET", "/nothing", 404),
    ("POST", "/system/metrics/summary", 405),
)


class Crowd:
    """All clients of one soak, and what they were answered."""

    def __init__(self, scene: Scene, timeline: Timeline) -> None:
        self.scene = scene
        self.timeline = timeline
        self.tokens: list[str] = []
        self.expired = ""
        # By who asked for what, how often which status was the answer.
        self.counted: Counter[tuple[str, int]] = Counter()

    def renew_tokens(self) -> None:
        """Have new tokens for users; raises ServerError while the issuer does not answer us."""
        if not self.expired:
            self.expired = self.scene.stack.token("brief")
            time.sleep(_BRIEF_SECONDS)
        self.tokens = [self.scene.stack.token() for _ in range(_TOKENS)]

    async def ask(self, count: int, over: asyncio.Event, phase: str) -> None:
        """Ask with so many clients at once until it is over, or hopeless."""
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                dice = random.Random(f"{self.timeline.seed} {phase} {number}")
                group.create_task(_Client(self, dice).run(over))

    def unwell(self, since: float) -> set[Upstream]:
        """The upstreams that may be out for whoever has asked then."""
        return {
            upstream
            for upstream in Upstream
            if self.scene.weather.skies[upstream].was_unwell_since(since - UNWELL_SECONDS)
        }

    def note(self, who: str, response: httpx.Response, began: float, faults: list[str]) -> None:
        """Write an answer down, and what is wrong with it."""
        self.counted[who, response.status_code] += 1
        request = response.request
        age = f" age {response.headers['age']}" if "age" in response.headers else ""
        line = (
            f"{who}: {request.method} {str(request.url)[:250]} {response.status_code}{age}"
            f" after {time.monotonic() - began:.2f} s"
        )
        self.timeline.answer(line)
        for fault in faults:
            self.timeline.problem(f"{line}\n    {fault}\n    {response.text[:3000]}")


class _Client:
    """One of them: a connection that is kept, and others that are not."""

    def __init__(self, crowd: Crowd, dice: random.Random) -> None:
        self._crowd = crowd
        self._scene = crowd.scene
        self._dice = dice
        self._tags: dict[Asked, str] = {}
        self._http = httpx.AsyncClient(base_url=crowd.scene.url, timeout=_ANSWER_SECONDS)
        self._ways: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self._report, 40),
            (self._other_report, 10),
            (self._same_again, 6),
            (self._owners, 3),
            (self._bad_request, 5),
            (self._wrong_password, 2),
            (self._bad_token, 4),
            (self._operator, 4),
            (self._leave, 12),
            (self._read_slowly, 1),
        ]

    async def run(self, over: asyncio.Event) -> None:
        """Ask until it is over."""
        ways, weights = zip(*self._ways, strict=True)
        async with self._http:
            while not over.is_set() and not self._crowd.timeline.is_hopeless:
                (way,) = self._dice.choices(ways, weights)
                await way()
                await asyncio.sleep(self._dice.uniform(0, _PAUSE_SECONDS))

    async def _report(self) -> None:
        asked = self._dice.choice(list(self._scene.truths))
        await self._ask(asked, self._dice.choice(self._manners(asked)))

    async def _same_again(self) -> None:
        """One report again and again, as dashboards do."""
        asked = self._dice.choice(list(self._scene.truths))
        for _ in range(self._dice.randint(3, 8)):
            tag = self._tags.get(asked)
            await self._ask(asked, {"If-None-Match": tag} if tag else {})

    def _manners(self, asked: Asked) -> list[dict[str, str]]:
        """Headers with which something may be asked for."""
        tag = self._tags.get(asked, '"of nothing"')
        return [
            {},
            {},
            {"Cache-Control": "no-cache"},
            {"Pragma": "no-cache"},
            {"Prefer": "wait=1"},
            {"If-None-Match": tag},
            {"Connection": "close"},
        ]

    async def _ask(self, asked: Asked, headers: dict[str, str]) -> None:
        began = time.monotonic()
        method = "GET" if self._dice.randrange(20) else "HEAD"
        response = await self._send(
            method, asked.path, asked.caller, params=asked.parameters, headers=headers
        )
        if response is None:
            return
        afresh = "no-cache" in headers.values()
        if response.status_code == httpx.codes.OK and method == "HEAD":
            faults = []
        elif response.status_code == httpx.codes.NOT_MODIFIED:
            faults = [] if "If-None-Match" in headers else ["304, and nobody asked for that"]
        else:
            faults = faults_of_report(
                response,
                self._scene.truths[asked],
                question=asked.question,
                caller=asked.caller,
                excuses=excuses(asked.caller, self._crowd.unwell(began)),
            )
        if afresh and "age" in response.headers:
            faults.append("kept, though it was to be made afresh")
        if "etag" in response.headers:
            self._tags[asked] = response.headers["etag"]
        self._crowd.note(f"{asked.caller}'s {asked.question}", response, began, faults)

    async def _other_report(self) -> None:
        began = time.monotonic()
        path, query, truth = self._dice.choice(self._scene.bodies)
        afresh = {"Cache-Control": "no-cache"} if self._dice.randrange(2) else {}
        response = await self._send("GET", path, Caller.ADMINISTRATOR, params=query, headers=afresh)
        if response is None:
            return
        if response.status_code == httpx.codes.OK:
            faults = faults_of_body(response.json(), truth)
        else:
            of_an_owner = "owner" in query
            faults = self._faults_of_refusal(
                response, Caller.ADMINISTRATOR, began, of_an_owner=of_an_owner
            )
        self._crowd.note("administrator's report", response, began, faults)

    async def _owners(self) -> None:
        began = time.monotonic()
        caller = self._dice.choice(list(Caller))
        response = await self._send("GET", "/system/metrics/owners", caller)
        if response is None:
            return
        expected = httpx.codes.OK if caller is Caller.ADMINISTRATOR else httpx.codes.FORBIDDEN
        faults = []
        if response.status_code != expected:
            faults = self._faults_of_refusal(response, caller, began, of_an_owner=True)
        self._crowd.note(f"{caller}'s owners", response, began, faults)

    async def _bad_request(self) -> None:
        method, path, status = self._dice.choice(_BAD_REQUESTS)
        await self._refused(method, path, {status}, auth=(USERNAME, PASSWORD))

    async def _wrong_password(self) -> None:
        path = self._dice.choice(("/system/metrics/summary", "/system/metrics/cowsay"))
        await self._refused("GET", path, {401, 429}, auth=(USERNAME, "wrong"))

    async def _bad_token(self) -> None:
        token = self._dice.choice((self._crowd.expired, "a.b.c", self._crowd.tokens[0][:-9]))
        headers = {"Authorization": f"Bearer {token}"}
        await self._refused("GET", "/system/metrics/summary", {401, 429}, headers=headers)

    async def _refused(self, method: str, path: str, statuses: Collection[int], **how: Any) -> None:
        began = time.monotonic()
        response = await self._answer(method, path, **how)
        if response is None:
            return
        faults = []
        if response.status_code not in statuses:
            caller = Caller.NEW_USER if "headers" in how else Caller.ADMINISTRATOR
            faults = self._faults_of_refusal(response, caller, began)
        self._crowd.note("refused", response, began, faults)

    async def _operator(self) -> None:
        began = time.monotonic()
        path = self._dice.choice(("/metrics", "/readyz", "/schema/openapi.json"))
        response = await self._send("GET", path, Caller.ADMINISTRATOR)
        if response is not None:
            faults = [] if response.status_code == httpx.codes.OK else ["not answered"]
            self._crowd.note("operator", response, began, faults)

    def _faults_of_refusal(
        self, response: httpx.Response, caller: Caller, began: float, *, of_an_owner: bool = False
    ) -> list[str]:
        unwell = self._crowd.unwell(began)
        return faults_of_refusal(response, excuses(caller, unwell, of_an_owner=of_an_owner))

    async def _send(
        self, method: str, path: str, caller: Caller, **how: Any
    ) -> httpx.Response | None:
        """Ask as somebody."""
        # Of known users a token is asked with again and again; a new one has one of many.
        tokens = self._crowd.tokens
        token = tokens[0] if caller is Caller.KNOWN_USER else self._dice.choice(tokens)
        who = credentials(caller, token)
        headers = {**how.pop("headers", {}), **who.pop("headers", {})}
        return await self._answer(method, path, headers=headers, **how, **who)

    async def _answer(self, method: str, path: str, **how: Any) -> httpx.Response | None:
        try:
            return await self._http.request(method, path, **how)
        except httpx.HTTPError as exc:
            self._crowd.timeline.problem(f"no answer to {method} {path[:200]}: {exc!r}")
            return None

    async def _leave(self) -> None:
        """Ask for what takes a while, and go before it is there, politely or not."""
        asked = self._dice.choice(list(self._scene.truths))
        request = self._bytes(asked.path, asked.parameters)
        with self._dialled() as dialled:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(dialled, self._address())
            whole = self._dice.randrange(5)
            await loop.sock_sendall(dialled, request if whole else request[: len(request) // 2])
            await asyncio.sleep(self._dice.choice((0.0, 0.02, 0.2, 0.5)))
            if self._dice.randrange(2):
                # A reset, where the other is the end of the stream.
                linger = struct.pack("ii", 1, 0)
                dialled.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._crowd.counted["left", 0] += 1

    async def _read_slowly(self) -> None:
        """Ask for much and read little of it, until it is cut off or nobody wants it any more."""
        page = self._bytes("/schema/openapi.json", {})
        loop = asyncio.get_running_loop()
        with self._dialled() as dialled:
            dialled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await loop.sock_connect(dialled, self._address())
            await loop.sock_sendall(dialled, page * 20)
            with contextlib.suppress(ConnectionError):
                for _ in range(self._dice.randrange(40)):
                    if not await loop.sock_recv(dialled, 512):
                        break
                    await asyncio.sleep(0.2)
        self._crowd.counted["read slowly", 0] += 1

    @contextlib.contextmanager
    def _dialled(self) -> Iterator[socket.socket]:
        """A socket, of which it does not matter how it ends."""
        with socket.socket() as dialled:
            dialled.setblocking(False)  # noqa: FBT003 - its only argument
            yield dialled

    def _address(self) -> tuple[str, int]:
        parts = urlsplit(self._scene.url)
        return parts.hostname or "", parts.port or 0

    def _bytes(self, path: str, parameters: dict[str, str]) -> bytes:
        word = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
        query = f"?{urlencode(parameters)}" if parameters else ""
        head = f"GET {path}{query} HTTP/1.1\r\nHost: soak\r\nAuthorization: Basic {word}\r\n"
        return f"{head}Cache-Control: no-cache\r\n\r\n".encode()
