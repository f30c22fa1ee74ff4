"""The form of a log line without what it says, so that it can be shown to an operator. Pure.

Whoever is named in a line, and whatever came with a call, is not for findings. What is left is
its punctuation and the marks by which a line is taken for a call.
"""

from __future__ import annotations

import re
import unicodedata

from oscar_metrics.facts import LogStream

# Longer forms are cut; the marks of a call are in front.
LONGEST_FORM = 240
# What follows in a line cannot show in its form.
_LOOKED_AT = 4000

# What a call of each log looks like, for people.
EXPECTED = {
    LogStream.EXECUTIONS: "[GIN-EXECUTIONS-LOGGER] time | status | latency | address |"
    " POST /run/service | user, maybe with | service | namespace behind",
    LogStream.EXPOSED: 'address - - [time] "GET /system/services/name/exposed/ HTTP/1.1" status …'
    " (ingress-nginx's own format), or Traefik's JSON with RequestPath, or with RequestHost under"
    " INGRESS_HOST",
}

_MARK = re.compile(
    r"\[GIN(?:-EXECUTIONS-LOGGER)?\]"
    r"|/(?:run|job|system/services)/"
    r'|/exposed(?![^/?" ])'
    r"|\b(?:POST|GET|PUT|HEAD|DELETE|PATCH|OPTIONS) (?=[/ \"])"
    r'|"(?:StartUTC|Request(?:Path|Host|Addr)|Client(?:Host|Addr)|(?:Router|Service)Name'
    r'|(?:Downstream|Origin)Status)"(?= ?:)'
)
_LONG_WORD = re.compile(r"(aaaa)a+|(9999)9+")


def form_of(line: str) -> str:
    """A line with `a` for letters and `9` for digits, but for the marks of a call; cut short.

    Words longer than four are shown as four: how long a name is may tell whose it is.
    """
    looked_at = line[:_LOOKED_AT]
    parts = []
    at = 0
    for match in _MARK.finditer(looked_at):
        parts += [_masked(looked_at[at : match.start()]), match[0]]
        at = match.end()
    form = "".join((*parts, _masked(looked_at[at:])))
    if len(form) <= LONGEST_FORM and len(line) <= _LOOKED_AT:
        return form
    return form[:LONGEST_FORM] + "…"


def _masked(text: str) -> str:
    masked = "".join(map(_mask, text))
    return _LONG_WORD.sub(r"\1\2", masked)


def _mask(character: str) -> str:
    kind = unicodedata.category(character)[0]
    # Marks belong to the letter before them.
    if kind in "LM":
        return "a"
    if kind == "N":
        return "9"
    if character == "\t":
        return " "
    return character if " " <= character <= "~" else "?"
