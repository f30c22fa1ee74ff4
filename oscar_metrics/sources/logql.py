"""LogQL: the log queries operators write, and the questions made from them. Pure.

A log query is a stream selector and a pipeline behind it. Whatever is added here goes
behind the pipeline, and every split is into a part and its exact opposite, so that the
parts' lines are the whole's whatever Loki holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from oscar_metrics.facts import LogStream

EXECUTIONS_QUERY = '{namespace="{{namespace}}", app="{{app}}"} |~ "/(job|run)/"'
EXPOSED_QUERY = '{namespace="{{namespace}}", app="{{app}}"} |~ "/system/services/.+/exposed"'
# The same where services have hosts of their own too: those lines hold no such path.
EXPOSED_QUERY_WITH_HOSTS = (
    '{namespace="{{namespace}}", app="{{app}}"}'
    r' |~ `(?i)/system/services/.+/exposed|"Request(Host|Addr)" ?: ?"[^"]*\.{{ingress_host}}`'
)

# The one placeholder that has no single value: a query serves every service at once.
_ANY = "service"
# What Loki's `{{.field}}` templates look like is not ours.
_PLACEHOLDER = re.compile(r"\{\{\s*([a-z_]+)\s*\}\}")
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_MATCHER_OP = re.compile(r"=~|!~|!=|=")
_FILTER_OP = re.compile(r"\|=|\|~|\|>|!=|!~|!>")
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"|`[^`]*`')
_OR = re.compile(r"or\b")


class Matcher(msgspec.Struct, frozen=True):
    """One condition of a stream selector."""

    name: str
    op: str
    value: str

    def __str__(self) -> str:
        return f"{self.name}{self.op}{quote(self.value)}"


class LogQuery(msgspec.Struct, frozen=True):
    """A stream selector and the pipeline behind it; `str` is its LogQL."""

    matchers: tuple[Matcher, ...]
    pipeline: str = ""

    def __str__(self) -> str:
        return f"{self.selector} {self.pipeline}".rstrip()

    @property
    def selector(self) -> str:
        """The streams alone, without the pipeline."""
        return "{" + ", ".join(map(str, self.matchers)) + "}"

    def then(self, stage: str) -> LogQuery:
        """The same lines as far as one more pipeline stage lets them through."""
        return LogQuery(self.matchers, f"{self.pipeline} {stage}".strip())


def parse_template(template: str, values: Mapping[str, str]) -> LogQuery:
    """The query of a template of a stream selector, line filters and maybe further stages.

    `{{name}}` in its strings stands for `values[name]`, escaped for where it stands;
    `{{service}}` stands for any service: exact comparisons with it become patterns. Raises
    ValueError, with a sentence for the operator, for what is no such query.
    """
    reader = _Reader(template, values)
    matchers = reader.matchers()
    if not matchers:
        raise ValueError("expected at least one label that is compared with something")
    return LogQuery(matchers, reader.pipeline())


class _Reader:
    """Reads a template from left to right."""

    def __init__(self, template: str, values: Mapping[str, str]) -> None:
        self._text = template.strip()
        self._at = 0
        self._values = values

    def matchers(self) -> tuple[Matcher, ...]:
        if not self._skip("{"):
            raise ValueError("expected a log query that begins with a stream selector, {…}")
        matchers = []
        while not self._skip("}"):
            name = self._take(_NAME, "a label's name")
            op = self._take(_MATCHER_OP, "= or =~ or != or !~")
            value, is_pattern = self._value(op in ("=~", "!~"))
            matchers.append(Matcher(name, _pattern_op(op) if is_pattern else op, value))
            if not self._skip(",") and self._text[self._at : self._at + 1] != "}":
                raise ValueError(f"expected , or }} after the label {name}")
        return tuple(matchers)

    def pipeline(self) -> str:
        stages = []
        while self._at < len(self._text):
            before = self._at
            if _FILTER_OP.match(self._text, self._at):
                op = self._take(_FILTER_OP, "a line filter")
                if _STRING.match(self._text, self._at):
                    stages.append(self._filter(op))
                    continue
            # Other stages stay as they are: they are the operator's own business.
            rest = self._text[before:]
            if not rest.startswith("|") or _PLACEHOLDER.search(rest):
                raise ValueError(
                    "expected line filters, then maybe other stages, without placeholders:"
                    f" found {rest[:40]}"
                )
            stages.append(rest)
            break
        return " ".join(stages)

    def _filter(self, op: str) -> str:
        values = [self._value(op in ("|~", "!~"))]
        while _OR.match(self._text, self._at):
            self._take(_OR, "or")
            values.append(self._value(op in ("|~", "!~")))
        if any(is_pattern for _, is_pattern in values):
            op = _pattern_op(op)
            values = [(text if is_one else re.escape(text), True) for text, is_one in values]
        return f"{op} " + " or ".join(quote(text) for text, _ in values)

    def _value(self, is_pattern: bool) -> tuple[str, bool]:
        """The next string with its placeholders filled in, and whether it is a pattern now."""
        text = unquote(self._take(_STRING, "a string in double quotes or backticks"))
        names = _PLACEHOLDER.findall(text)
        for name in names:
            if name != _ANY and name not in self._values:
                known = ", ".join(f"{{{{{name}}}}}" for name in (*self._values, _ANY))
                raise ValueError(f"{{{{{name}}}}} is not a placeholder; known are {known}")
        if _ANY in names and not is_pattern:
            parts = _PLACEHOLDER.split(text)
            parts[::2] = map(re.escape, parts[::2])
            parts[1::2] = (f"{{{{{name}}}}}" for name in parts[1::2])
            text, is_pattern = "".join(parts), True
        escape = re.escape if is_pattern else str

        def fill(match: re.Match[str]) -> str:
            return ".+" if match[1] == _ANY else escape(self._values[match[1]])

        return _PLACEHOLDER.sub(fill, text), is_pattern

    def _skip(self, text: str) -> bool:
        if not self._text.startswith(text, self._at):
            return False
        self._at += len(text)
        self._skip_space()
        return True

    def _take(self, form: re.Pattern[str], expected: str) -> str:
        match = form.match(self._text, self._at)
        if match is None:
            found = self._text[self._at : self._at + 20] or "the end"
            raise ValueError(f"expected {expected}, found {found}")
        self._at = match.end()
        self._skip_space()
        return match[0]

    def _skip_space(self) -> None:
        while self._text[self._at : self._at + 1].isspace():
            self._at += 1


def _pattern_op(op: str) -> str:
    """The operator that compares with a pattern where `op` compared with a text."""
    if op in ("!=", "!~", "!>", "|>"):
        raise ValueError(f"{{{{service}}}} stands for any service and cannot follow {op}")
    return {"=": "=~", "|=": "|~"}.get(op, op)


_ESCAPES = {"\\": "\\", '"': '"', "'": "'", "n": "\n", "t": "\t", "r": "\r"}
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)


def unquote(text: str) -> str:
    """The value of a LogQL string literal; ValueError for escapes nobody needs in one."""
    if text.startswith("`"):
        return text[1:-1]

    def value(match: re.Match[str]) -> str:
        if match[1]:
            return chr(int(match[1], 16))
        if match[2] not in _ESCAPES:
            raise ValueError(f"{match[0]} is no escape in a string: write \\\\ or use backticks")
        return _ESCAPES[match[2]]

    return _ESCAPE.sub(value, text[1:-1])


_UNSAFE = re.compile('["\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')


def quote(text: str) -> str:
    """A LogQL string literal of any text."""

    def escaped(match: re.Match[str]) -> str:
        return "\\" + match[0] if match[0] in '"\\' else f"\\u{ord(match[0]):04x}"

    return f'"{_UNSAFE.sub(escaped, text)}"'


# What a name may consist of so that its neighbours tell whether it ends there.
_WORD = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def mentioning(query: LogQuery, name: str, *, any_case: bool = False) -> LogQuery:
    """The lines of `query` with a name in them, not counting where it is part of a longer one."""
    found = query if any_case else query.then("|= " + quote(name))
    pattern = re.escape(name)
    if _WORD.fullmatch(name):
        pattern = f"(?:^|[^A-Za-z0-9_-]){pattern}(?:[^A-Za-z0-9_-]|$)"
    return found.then("|~ " + quote("(?i)" * any_case + pattern))


def by_label(query: LogQuery, name: str, value: str) -> tuple[LogQuery, LogQuery]:
    """The lines with that value of a label, and all others."""
    return query.then(f"| {name}={quote(value)}"), query.then(f"| {name}!={quote(value)}")


# RE2 takes no larger count than this.
_LARGEST_COUNT = 1000


def by_character(query: LogQuery, position: int, characters: str) -> tuple[LogQuery, LogQuery]:
    """The lines with one of `characters` at a position (from 0), and all others."""
    thousands, rest = divmod(position, _LARGEST_COUNT)
    before = f"(?s:.{{{_LARGEST_COUNT}}})" * thousands + f"(?s:.{{{rest}}})"
    one_of = "".join(f"\\x{{{ord(character):x}}}" for character in characters)
    pattern = quote(f"^{before}[{one_of}]")
    return query.then(f"|~ {pattern}"), query.then(f"!~ {pattern}")


def lines_by_slot(query: LogQuery) -> str:
    """How many lines of any kind the query's streams have, per quarter of an hour.

    Evaluated at the slots' ends. Loki's ranges are left-open; the millisecond makes a line
    on a slot's first instant the slot's own, as it is for us.
    """
    return counted_by_slot(LogQuery(query.matchers))


def counted_by_slot(query: LogQuery) -> str:
    """The same of the lines that a query lets through."""
    return f"sum(count_over_time({query}[15m] offset 1ms))"


def without_labels(query: LogQuery, names: Iterable[str]) -> LogQuery:
    """The lines of a query on which none of some labels says anything."""
    nothing = quote("(?i)(-|unknown)?")
    return query.then(" ".join(f"| {name}=~{nothing}" for name in names))


LINE, _AT = "om_line", "om_at"
# The instant itself out of the millisecond that a metric query looks back.
_THE_INSTANT = (
    f"| drop __error__, __error_details__ | label_format {LINE}=`{{{{__line__}}}}`"
    f",{_AT}=`{{{{__timestamp__ | unixEpochNanos}}}}` | {_AT}=~`.+0{{9}}`"
)


def count_up_to(query: LogQuery) -> str:
    """How many lines a query has in the millisecond that ends with the instant, which is in it."""
    return f"sum(count_over_time({query}[1ms]))"


def count_at(query: LogQuery) -> str:
    """How many lines a query has at the very instant, of whole seconds, it is evaluated at."""
    return f"sum(count_over_time({query.then(_THE_INSTANT)}[1ms]))"


def lines_at(query: LogQuery) -> str:
    """The same by line, which is the label LINE, and by all labels of the streams."""
    return f"count_over_time({query.then(_THE_INSTANT)}[1ms])"


# Without counts, which Loki would compile anew for every hour: in a tenth of the time.
_KNOWN_EXECUTION = (
    r'\[GIN[^|]* \| *[1-5][0-9][0-9] * \| [^|]* \| [^|]* \| POST +"?/(?:run|job)/'
    r'[^|/?"#\x00-\x20\x7f-\x9f][^|\x00-\x1f\x7f-\x9f]*'
    r" \| [^|\x00-\x1f\x7f-\x9f]*(?: \| [^|\x00-\x1f\x7f-\x9f]* \| [^|\x00-\x1f\x7f-\x9f]*)?$"
)
_SERVICE_PATH = r'/system/services/[^/?#"\\ \x00-\x1f\x7f-\x9f]+/exposed'
_TEXT = r'"[^"\\\x00-\x1f]*"'
# Of the fields that are read, all but the status are texts.
_FIELD = (
    rf"(?:{_TEXT} ?: ?{_TEXT}"
    r'|"(?:[^"\\CRS\x00-\x1f][^"\\\x00-\x1f]*|RequestCo[a-zA-Z]*|Retry[a-zA-Z]*)"'
    r" ?: ?(?:0|[1-9][0-9]*))"
)
_KNOWN_EXPOSED = (
    rf'^[^ ]+ - [^\[\]"]*\[[^\]"]*\] "[A-Z]+ {_SERVICE_PATH}'
    r'(?:[/?# ][^"]*)?" [1-5][0-9][0-9] '
    rf'|^{{(?:{_FIELD}, ?)*"DownstreamStatus" ?: ?[1-5][0-9][0-9], ?(?:{_FIELD}, ?)*"RequestPath"'
    rf' ?: ?"{_SERVICE_PATH}(?:[/?#][^"\\\x00-\x1f]*)?"(?:, ?{_FIELD})*}}$'
)


def of_uncommon_form(query: LogQuery, stream: LogStream) -> LogQuery:
    """The lines of a query that are not plainly a call of a known form.

    Whatever `log_lines` does not understand is among them, but for the length of a name, beside
    some that it does.
    """
    if stream is LogStream.EXECUTIONS:
        return query.then(f"|= `[GIN` !~ `{_KNOWN_EXECUTION}`")
    return query.then(f"!~ `{_KNOWN_EXPOSED}`")
