"""Which runs of which containers wrote a log, and what of a span their logs cover. Pure.

Requests go to any replica, so a stretch is covered only where every pod known to have lived
in it is. What can be known:

- The API tells of each container its run now and the one before. The kubelet hands out the
  newest file of a run's log; older files are rotated away. So a run is covered from its
  file's oldest line on. Where that line came within the first seconds of the run nothing can
  have been rotated (10 MiB by default), and the run is covered from its start; where there is
  no line at all too: the kubelet then vouches for a run that was silent.
- Between two known runs a container was dead and logged nothing: that is covered. Runs before
  the one before are lost while their pod lived on: a gap from the pod's start.
- Before the oldest known pod started, another one must be assumed: a gap. What a pod deleted
  since wrote while known pods lived cannot be known at all; a note says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from oscar_metrics.outcome import Gap, GapReason
from oscar_metrics.timerange import SECOND_NS, Span, parse_instant, subtract

# The end of a pod's life that has not come.
_OPEN_NS = 2**63 - 1
# A first line this soon after its run's start is the run's first.
_START_UP_NS = 10 * SECOND_NS


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one container; its times are rounded down to seconds, `stopped_ns` None till then.

    `previous` says which log it has: that of the container now, or of the one before.
    """

    pod: str
    uid: str
    container: str
    started_ns: int
    stopped_ns: int | None = None
    previous: bool = False

    @property
    def span(self) -> Span:
        """When it ran; lines may come until a second after its stop, which is rounded down."""
        return Span(self.started_ns, _OPEN_NS if self.stopped_ns is None else self.stopped_ns)


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """A container of a pod: its known runs, oldest first, and the span in which it may have run."""

    life: Span
    runs: tuple[Run, ...]


class Reading:
    """How far a run's log was read: filled in while it is."""

    def __init__(self) -> None:
        # The time of the oldest line of the log; None while unknown or without lines.
        self.first_ns: int | None = None
        # All lines before this were read, from the oldest or the span's start on.
        self.reached_ns = 0
        # Why not all of it was read; None when it was.
        self.failed: GapReason | None = GapReason.DEADLINE

    def covered(self, run: Run) -> Span:
        """The stretch of the run that was read."""
        first_ns = run.started_ns
        if self.first_ns is not None and self.first_ns > first_ns + _START_UP_NS:
            first_ns = self.first_ns
        if self.failed is None:
            return Span(first_ns, run.span.stop_ns)
        return Span(first_ns, max(first_ns, self.reached_ns))


def gaps_of(
    span: Span, containers: Iterable[Container], readings: Mapping[Run, Reading]
) -> list[Gap]:
    """What of the span these containers' logs do not cover.

    A run without a reading has nothing in the span.
    """
    gaps: list[Gap] = []
    lives: list[Span] = []
    for container in containers:
        lives.append(container.life)
        covered: list[Span] = _between(container)
        for run in container.runs:
            reading = readings.get(run)
            if reading is None:
                covered.append(run.span)
                continue
            read = reading.covered(run)
            covered.append(read)
            if reading.failed is not None:
                lost = Span(read.stop_ns, max(read.stop_ns, run.span.stop_ns))
                gaps.append(Gap(span=lost.clip(span), reason=reading.failed))
                covered.append(lost)
        missing = subtract(container.life.clip(span), covered)
        gaps += [Gap(span=part, reason=GapReason.ROTATED) for part in missing]
    nobody = subtract(span, lives)
    gaps += [Gap(span=part, reason=GapReason.ROTATED) for part in nobody]
    return gaps


def _between(container: Container) -> list[Span]:
    """When the container was known to be dead: between its known runs, and after the last."""
    starts = [run.started_ns for run in container.runs[1:]] + [container.life.stop_ns]
    ended = zip(container.runs, starts, strict=False)
    return [Span(run.span.stop_ns, max(run.span.stop_ns, start)) for run, start in ended]


def containers_of(pod: Pod) -> list[Container]:
    """The containers of a pod that have run, init containers apart: those serve nobody."""
    found = []
    born_ns = _instant(pod.status.startTime)
    for status in pod.status.containerStatuses or ():
        runs = _runs(pod, status)
        # Runs are numbered from 0 by restarts; each that is not known lies before the known.
        older_are_lost = status.restartCount + 1 > len(runs)
        if runs:
            first_ns = runs[0].started_ns
            starts_ns = first_ns if born_ns is None or not older_are_lost else born_ns
            ended = status.state.terminated is not None and runs[-1].stopped_ns is not None
            stops_ns = runs[-1].span.stop_ns if ended else _OPEN_NS
        elif status.restartCount and born_ns is not None:
            starts_ns, stops_ns = born_ns, _OPEN_NS
        else:
            continue
        life = Span(min(starts_ns, stops_ns), stops_ns)
        found.append(Container(life=life, runs=tuple(runs)))
    return found


def _runs(pod: Pod, status: _ContainerStatus) -> list[Run]:
    """The known runs. A container that waits for its restart has its last one as the previous."""
    runs = []
    for state_of, previous in ((status.lastState, True), (status.state, False)):
        ended, running = state_of.terminated, state_of.running
        state = ended or running
        started_ns = _instant(state.startedAt if state else None)
        if started_ns is None:
            continue
        stopped_ns = _instant(ended.finishedAt) if ended else None
        runs.append(
            Run(
                pod=pod.metadata.name,
                uid=pod.metadata.uid,
                container=status.name,
                started_ns=started_ns,
                stopped_ns=None if stopped_ns is None else max(started_ns, stopped_ns),
                previous=previous,
            )
        )
    return runs


def _instant(text: str | None) -> int | None:
    try:
        return parse_instant(text or "")
    except ValueError:
        return None


class _Running(msgspec.Struct, frozen=True):
    startedAt: str | None = None  # noqa: N815 - the API's own name


class _Terminated(msgspec.Struct, frozen=True):
    startedAt: str | None = None  # noqa: N815 - the API's own name
    finishedAt: str | None = None  # noqa: N815 - the API's own name


class _State(msgspec.Struct, frozen=True):
    running: _Running | None = None
    terminated: _Terminated | None = None


class _ContainerStatus(msgspec.Struct, frozen=True):
    name: str
    restartCount: int = 0  # noqa: N815 - the API's own name
    state: _State = _State()
    lastState: _State = _State()  # noqa: N815 - the API's own name


class _PodStatus(msgspec.Struct, frozen=True):
    startTime: str | None = None  # noqa: N815 - the API's own name
    containerStatuses: list[_ContainerStatus] | None = None  # noqa: N815 - the API's own name


class _PodAbout(msgspec.Struct, frozen=True):
    name: str
    uid: str
    namespace: str = ""
    labels: dict[str, str] | None = None


class Pod(msgspec.Struct, frozen=True):
    """What is looked at of a pod."""

    metadata: _PodAbout
    status: _PodStatus = _PodStatus()
