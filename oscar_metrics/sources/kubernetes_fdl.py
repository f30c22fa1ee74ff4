"""What a service's FDL (the YAML in its ConfigMap) says of it. Pure.

The FDL also holds the service's token and its storage's keys. Parsing walks over events and
keeps the few wanted texts only, so that nothing else is ever held; and unlike a loader that
builds objects it neither follows aliases nor recurses (the C loader overruns the stack on
deep nesting, which would end the process), and takes less than half the time.
"""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from oscar_metrics.facts import Service

# OSCAR's own goes three levels down.
_DEEPEST = 32
_NULLS = frozenset({"", "~", "null"})


def read_fdl(text: str, *, namespace: str, label: str) -> Service | None:
    """The service an FDL describes, under the name its label gives where it has none itself.

    None where the text is no FDL: not YAML, or not a mapping with texts where texts belong.
    """
    fields: dict[str, str] = {}
    allowed_users: list[str] = []
    owner_name = ""
    try:
        for path, value in _scalars(text):
            match path:
                case ("name" | "owner" | "visibility" | "vo" | "enable_gpu" as field,):
                    fields[field] = "" if value in _NULLS else value
                case ("allowed_users", ""):
                    allowed_users.append(value)
                case ("labels", "owner_name"):
                    owner_name = value
                case ("name" | "owner" | "visibility" | "vo" | "enable_gpu", *_):
                    return None
    except (yaml.YAMLError, UnicodeError, _NoMapping):
        return None
    if not fields:
        return None
    return Service(
        namespace=namespace,
        name=fields.get("name") or label,
        owner=fields.get("owner", ""),
        owner_name=owner_name,
        visibility=fields.get("visibility", ""),
        allowed_users=tuple(user for user in allowed_users if user),
        vo=fields.get("vo", ""),
        enable_gpu=fields.get("enable_gpu", "").lower() == "true",
    )


class _NoMapping(ValueError):
    """The text is not one mapping of reasonable depth, written out in full."""


class _Open:
    """A list that has begun, or a mapping with the key it is at (None: before one)."""

    def __init__(self, event: yaml.Event) -> None:
        self.is_mapping = isinstance(event, yaml.MappingStartEvent)
        self.key: str | None = None

    def take_as_key(self, text: str) -> bool:
        """Whether what comes is a key, and not a value or an item."""
        is_key = self.is_mapping and self.key is None
        self.key = text if is_key else None
        return is_key


def _scalars(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every scalar of a YAML mapping with the keys that lead to it; a list's items have none."""
    opened: list[_Open] = []
    for event in yaml.parse(text, Loader=yaml.CBaseLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append(_Open(event))
            if len(opened) > _DEEPEST or not opened[0].is_mapping:
                raise _NoMapping
        elif isinstance(event, yaml.CollectionEndEvent):
            opened.pop()
            if opened:
                opened[-1].take_as_key("")
        elif isinstance(event, yaml.ScalarEvent):
            if not opened:
                raise _NoMapping
            path = tuple(collection.key or "" for collection in opened)
            if not opened[-1].take_as_key(event.value):
                yield path, event.value
        elif isinstance(event, yaml.AliasEvent):
            raise _NoMapping
