"""Well-formed successes that do not fit what was asked, for `Between`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.toxics.between import Odd, Reply, Request
from tests.toxics.odd import MARK, Way, always, changed, in_text, where, whole

HOUR_NS = 3600 * 10**9


def _result(change: Callable[[list[Any]], Any]) -> Callable[[str], Odd]:
    """The result of an answer changed; answers without any are passed on."""

    def of(said: Any, _: Request) -> Any:
        data = said.get("data")
        if not isinstance(data, dict) or not data.get("result"):
            return None
        data["result"] = change(data["result"])
        return said

    return changed(of)


def _kind(kind: str, key: str, take: Callable[[Any], Any]) -> Callable[[str], Odd]:
    """An answer of another kind with the same series."""

    def of(said: Any, _: Request) -> Any:
        data = said["data"]
        data["result"] = [
            {"metric": each.get("metric", each.get("stream")), key: take(each)}
            for each in data["result"]
        ]
        data["resultType"] = kind
        return said

    return changed(of)


def _points(change: Callable[[list[Any]], list[Any]]) -> Callable[[str], Odd]:
    """Each number of an answer with its time changed, of instants and of ranges."""

    def of(result: list[Any]) -> list[Any]:
        for each in result:
            if "values" in each:
                each["values"] = [change(point) for point in each["values"]]
            else:
                each["value"] = change(each["value"])
        return result

    return _result(of)


def _range(request: Request) -> bool:
    return request.path.endswith("/query_range")


def _instant(request: Request) -> bool:
    return request.path.endswith("/api/v1/query")


def _numbers(request: Request) -> bool:
    return _range(request) or _instant(request)


def _values(request: Request) -> bool:
    return request.path.endswith("/values")


def _and(**more: Any) -> Callable[[str], Odd]:
    return changed(lambda said, _: said | more)


OF_PROMETHEUS = tuple(
    Way(name=name, make=make)
    for name, make in {
        "vector-for-matrix": where(_range, _kind("vector", "value", lambda s: s["values"][-1])),
        "matrix-for-vector": where(_instant, _kind("matrix", "values", lambda _: [[0, "1"]])),
        "empty-vector-for-matrix": where(_range, _kind("vector", "value", lambda _: None)),
        "off-step": where(_range, _points(lambda p: [p[0] + 7, p[1]])),
        "a-day-later": where(_numbers, _points(lambda p: [p[0] + 86_400, p[1]])),
        "no-time": where(_numbers, _points(lambda p: [1e300, p[1]])),
        "more-labels": where(
            _numbers,
            _result(lambda r: [e | {"metric": e["metric"] | {"instance": MARK}} for e in r]),
        ),
        "twice": where(_numbers, _result(lambda result: result * 2)),
        "nan": where(_numbers, _points(lambda p: [p[0], "NaN"])),
        "infinite": where(_numbers, _points(lambda p: [p[0], "+Inf"])),
        "below-zero": where(_numbers, _points(lambda p: [p[0], f"-{p[1]}"])),
        "words": where(_numbers, _points(lambda p: [p[0], MARK])),
        "no-data": whole(b'{"status": "success"}'),
        "null-data": whole(b'{"status": "success", "data": null}'),
        "warnings": where(_numbers, _and(warnings=[f"no store {MARK}"])),
        "infos": where(_numbers, _and(infos=[f"no store {MARK}"])),
        "partial": where(_numbers, _and(isPartial=True)),
        "warnings-of-label-values": where(_values, _and(warnings=[f"no store {MARK}"])),
        "numbers-for-label-values": where(_values, _and(data=[1, 2])),
        "histograms": where(
            _range, _kind("matrix", "histograms", lambda s: [[at, {}] for at, _ in s["values"]])
        ),
    }.items()
)
REMARKS = Way(
    name="remarks",
    make=where(
        _numbers,
        _and(warnings=["PromQL warning: of a name"], infos=["PromQL info: of a name"], more=[MARK]),
    ),
)


def _lines(request: Request) -> bool:
    return "direction" in request.parameters and "om_asked" not in request.parameters["query"]


def _counts(request: Request) -> bool:
    return _range(request) and "count_over_time" in request.parameters["query"]


def _streams(change: Callable[[Any], Any]) -> Callable[[str], Odd]:
    def of(result: list[Any]) -> list[Any]:
        for each in result:
            change(each)
        return result

    return where(_lines, _result(of))


def _later(stream: Any) -> None:
    stream["values"] = [[str(int(at) + HOUR_NS), *rest] for at, *rest in stream["values"]]


def _one_later(stream: Any) -> None:
    middle = stream["values"][len(stream["values"]) // 2]
    middle[0] = str(int(middle[0]) + HOUR_NS)


def _each_twice(stream: Any) -> None:
    stream["values"] = [value for value in stream["values"] for _ in range(2)]


def _of_another(stream: Any) -> None:
    stream["stream"] |= {"app": MARK, "namespace": MARK}


def _too_many(said: Any, request: Request) -> Any:
    result = said["data"]["result"]
    if not result:
        return None
    at, line = result[0]["values"][0][:2]
    limit = int(request.parameters["limit"])
    values = [[str(int(at) + n), f"{line} {n}"] for n in range(limit + 1)]
    said["data"]["result"] = [result[0] | {"values": values}]
    return said


OF_LOKI = tuple(
    Way(name=name, make=make)
    for name, make in {
        "streams-for-matrix": where(_counts, _kind("streams", "values", lambda _: [["1", MARK]])),
        "matrix-for-streams": where(_lines, _kind("matrix", "values", lambda _: [[1, "1"]])),
        "an-hour-later": _streams(_later),
        "one-an-hour-later": _streams(_one_later),
        "backward": _streams(lambda stream: stream["values"].reverse()),
        "each-line-twice": _streams(_each_twice),
        "a-stream-twice": where(_lines, _result(lambda result: result * 2)),
        "of-another-stream": _streams(_of_another),
        "more-than-the-limit": where(_lines, changed(_too_many)),
        "counts-below-zero": where(_counts, _points(lambda p: [p[0], f"-{p[1]}1"])),
        "counts-of-another-time": where(_counts, _points(lambda p: [p[0] + 900, p[1]])),
        "counts-beside-the-steps": where(_counts, _points(lambda p: [p[0] + 7, p[1]])),
        "counts-of-nan": where(_counts, _points(lambda p: [p[0], "NaN"])),
        "counts-twice": where(_counts, _result(lambda result: result * 2)),
        "counts-by-more": where(
            _counts, _result(lambda r: [e | {"metric": {"pod": MARK}} for e in r])
        ),
        "warnings-of-lines": where(_lines, _and(warnings=[f"partial {MARK}"])),
        "warnings-of-counts": where(_counts, _and(warnings=[f"partial {MARK}"])),
    }.items()
)


def _list_of(resource: str) -> Callable[[Request], bool]:
    return lambda request: request.path.endswith(f"/{resource}")


_services = _list_of("configmaps")


def _items(change: Callable[[list[Any]], Any]) -> Callable[[str], Odd]:
    return where(_services, changed(lambda said, _: said | {"items": change(said["items"])}))


def _without_label(items: list[Any]) -> list[Any]:
    for item in items:
        item["metadata"]["labels"] = {"app": MARK}
    return items


def _for_ever(said: Any, _: Request) -> Any:
    for number, item in enumerate(said["items"]):
        item["metadata"] |= {"uid": f"{MARK}-{number}", "name": f"s{number}"}
    return said | {"metadata": {"continue": MARK}}


def _gone_in_the_middle(elsewhere: str) -> Odd:
    first = changed(lambda said, _: said | {"metadata": {"continue": MARK}})(elsewhere)
    gone = json.dumps({"kind": "Status", "reason": "Expired", "message": MARK}).encode()

    def odd(request: Request, ask: Any) -> Reply | None:
        if "continue" in request.parameters:
            return Reply.of(gone, "410 Gone")
        return first(request, ask)

    return odd


OF_KUBERNETES = tuple(
    Way(name=name, make=make)
    for name, make in {
        "pods-for-services": where(_services, changed(lambda said, _: said | {"kind": "PodList"})),
        "no-kind": where(_services, changed(lambda said, _: said | {"kind": ""})),
        "a-status": where(_services, whole(b'{"kind": "Status", "status": "Success"}')),
        "without-metadata": _items(lambda items: [{"data": each["data"]} for each in items]),
        "with-null-metadata": _items(lambda items: [each | {"metadata": None} for each in items]),
        "everything-there-is": _items(_without_label),
        "each-twice": _items(lambda items: items * 2),
        "for-ever": where(_services, changed(_for_ever)),
        "empty-for-ever": where(
            _services,
            changed(lambda said, _: said | {"items": [], "metadata": {"continue": MARK}}),
        ),
        "gone-in-the-middle": where(_services, _gone_in_the_middle),
    }.items()
)


def is_log(request: Request) -> bool:
    """Whether a pod's log is asked for."""
    return request.path.endswith("/log")


def _without_end(_: str) -> Odd:
    return lambda __, ask: Reply(
        body=(ask().content,), headers=(("Content-Type", "text/plain"),), sized=False
    )


OF_POD_LOGS = tuple(
    Way(name=name, make=where(is_log, make))
    for name, make in {
        "without-an-end": _without_end,
        "without-times": in_text(
            lambda log: b"\n".join(line.partition(b" ")[2] for line in log.split(b"\n")),
            content_type="text/plain",
        ),
        "a-status": whole(b'{"kind": "Status", "status": "Failure"}'),
        "bytes": whole(bytes(range(256)) * 4096, content_type="application/octet-stream"),
        "nothing": whole(b"", "404 Not Found"),
    }.items()
)
LOKI_IS_OUT = always(lambda _: Reply.of(MARK.encode(), "503 Service Unavailable"))
