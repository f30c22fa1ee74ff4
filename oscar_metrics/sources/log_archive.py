"""Which files there are to read, and from when to when each of them holds lines."""

from __future__ import annotations

import glob
import itertools
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from oscar_metrics.facts import LogStream
from oscar_metrics.sources.line_sieve import hull
from oscar_metrics.sources.line_times import line_time_ns
from oscar_metrics.sources.log_blocks import FileVersion, sample_lines
from oscar_metrics.sources.log_lines import stream_of
from oscar_metrics.timerange import Span

_SAMPLES = 16


class LogFile(msgspec.Struct, frozen=True):
    """A file to read; `version` is None where it could not even be looked at."""

    path: Path
    version: FileVersion | None

    @property
    def name(self) -> str:
        """Its base name, fit to be shown."""
        return self.path.name.encode("utf-8", "replace").decode("utf-8")


class FileFacts(msgspec.Struct, frozen=True, kw_only=True):
    """From when to when a file holds lines of each log.

    `met` is empty where that is not known, then `sampled` says at least when some lines are
    from. `start_ns` is where in time it begins; -1 where no time could be read.
    """

    met: dict[LogStream, Span]
    sampled: dict[LogStream, Span]
    start_ns: int

    def outside(self, span: Span) -> bool:
        """Whether all its lines are known to lie before or after a span."""
        return bool(self.met) and not any(met.clip(span).length_ns for met in self.met.values())


def matching(pattern: str) -> list[Path]:
    """The paths a glob stands for, by name."""
    paths = map(Path, sorted(glob.glob(pattern, recursive=True)))  # noqa: PTH207 - absolute patterns
    # `**` names directories on its way.
    return [path for path in paths if not path.is_dir()] if "**" in pattern else list(paths)


class Archive:
    """Some files, and what was learned of those that have not changed since."""

    def __init__(
        self, paths: Callable[[], Sequence[Path]], *, files_max: int, slack_ns: int
    ) -> None:
        self._paths = paths
        self._files_max = files_max
        self._slack_ns = slack_ns
        self._known: dict[Path, tuple[FileVersion, FileFacts]] = {}

    def files(self) -> tuple[list[LogFile], int]:
        """The files there are now, each once; and how many are too many for one reading."""
        paths = self._paths()
        files: list[LogFile] = []
        met: set[tuple[int, int]] = set()
        for path in paths[: self._files_max]:
            try:
                version = FileVersion.of(path.stat())
            except OSError:
                files.append(LogFile(path, None))
                continue
            # One file under two names (a link to the current log) is one file.
            if (version.device, version.inode) in met:
                continue
            met.add((version.device, version.inode))
            files.append(LogFile(path, version))
        for gone in self._known.keys() - {file.path for file in files}:
            self._known.pop(gone, None)
        return files, max(0, len(paths) - self._files_max)

    def facts(self, file: LogFile) -> FileFacts:
        """What is known of a file, from an earlier reading of all of it or from samples."""
        version, facts = self._known.get(file.path, (None, None))
        if facts is None or version != file.version:
            facts = self._sampled(file)
        return facts

    def learn(self, file: LogFile, met: dict[LogStream, Span]) -> None:
        """Remember what a file that was read to its end was found to hold."""
        if file.version is not None:
            start_ns = min((span.start_ns for span in met.values()), default=-1)
            self._known[file.path] = (
                file.version,
                FileFacts(met=met, sampled=met, start_ns=start_ns),
            )

    def _sampled(self, file: LogFile) -> FileFacts:
        """What samples show. Only those of a plain file, all in order, tell where it ends."""
        try:
            samples = sample_lines(file.path, places=_SAMPLES)
        except (OSError, EOFError, zlib.error):
            samples = []
        seen: list[tuple[LogStream, int]] = []
        for number, lines in enumerate(samples, start=1):
            last = number == _SAMPLES
            for line in reversed(lines) if last else lines:
                stream, instant_ns = stream_of(line), line_time_ns(line)
                if stream is not None and instant_ns is not None:
                    seen.append((stream, instant_ns))
                    break
        instants = [instant_ns for _, instant_ns in seen]
        start_ns = min(instants, default=-1)
        sampled: dict[LogStream, Span] = {}
        for stream, instant_ns in seen:
            sampled = joined(sampled, {stream: Span(instant_ns, instant_ns + 1)})
        in_order = all(
            later >= earlier - self._slack_ns for earlier, later in itertools.pairwise(instants)
        )
        met: dict[LogStream, Span] = {}
        if len(samples) == _SAMPLES and in_order and seen:
            whole = Span(start_ns - self._slack_ns, max(instants) + self._slack_ns)
            met = dict.fromkeys(sampled, whole)
        return FileFacts(met=met, sampled=sampled, start_ns=start_ns)


def joined(met: dict[LogStream, Span], more: dict[LogStream, Span]) -> dict[LogStream, Span]:
    """From when to when lines of each log were met in either."""
    return met | {stream: hull(span, met.get(stream)) for stream, span in more.items()}
