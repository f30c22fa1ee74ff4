import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.facts import Kind, LogStream, Result
from oscar_metrics.sources.cri_lines import CriJoiner
from oscar_metrics.sources.line_times import MINUTE_NS, line_time_ns, minute_of, minute_start_ns
from oscar_metrics.sources.log_lines import (
    Call,
    Unread,
    read_execution,
    read_exposed,
    result_of,
    stream_of,
)
from oscar_metrics.timerange import parse_instant

TAG = "[GIN-EXECUTIONS-LOGGER]"
HEAD = f"{TAG} 2026-04-24T10:00:00.123456789Z | 200 |  12.345ms | 10.0.0.1"


def execution(
    service: str = "svc",
    user: str = "user@egi.eu",
    *,
    kind: Kind = Kind.SYNC,
    namespace: str = "",
    result: Result = Result.OK,
    ip: str = "10.0.0.1",
) -> Call:
    return Call(kind, namespace, service, user, result, ip)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"{HEAD} | POST    /run/svc | user@egi.eu", execution()),
        (
            (
                f"{TAG} 2026-01-20T10:00:00Z | 200 | 12ms | 10.0.0.1 | POST /job/path-service"
                " | caller | logged-service | oscar-svc-user"
            ),
            execution("logged-service", "caller", kind=Kind.ASYNC, namespace="oscar-svc-user"),
        ),
        (
            (
                f"{TAG} 2025/10/28 - 16:53:34 | 200 |  347.805334ms | 172.25.0.1"
                " | POST    /run/simple-test | oscar"
            ),
            execution("simple-test", "oscar", ip="172.25.0.1"),
        ),
        (
            (
                f"2024-10-10T09:34:35.919996606Z stderr F {TAG} 2024/10/10 - 09:34:35 | 201"
                " |  1.455744552s | 79.117.163.142 | POST    /job/yolo | 62bb…@egi.eu"
            ),
            execution("yolo", "62bb…@egi.eu", kind=Kind.ASYNC, ip="79.117.163.142"),
        ),
        (
            (
                "[GIN] 2026-01-20T10:00:00Z | 200 |  12.345ms | 10.0.0.1 | POST /job/test-service"
                " | user@example.com"
            ),
            execution("test-service", "user@example.com", kind=Kind.ASYNC),
        ),
        # quoted, with a query, with a port, IPv6, failures
        (f'{HEAD} | POST     "/run/svc" | user@egi.eu', execution()),
        (f"{HEAD} | POST /run/svc?token=a|b&c=/x | user@egi.eu", execution()),
        (f"{HEAD} | POST /run/svc/deeper | user@egi.eu", execution()),
        (
            f"{TAG} 2026-01-20T10:00:00Z | 404 | 1ms | [::1]:55 | POST /run/svc | u",
            execution(user="u", result=Result.CLIENT_ERROR, ip="[::1]:55"),
        ),
        (
            f"{TAG} 2026-01-20T10:00:00Z | 502 | 1ms |   2001:db8::7 | POST /run/svc | u",
            execution(user="u", result=Result.SERVER_ERROR, ip="2001:db8::7"),
        ),
        # odd users, a blank one, a blank logged service, a name never deployed
        (f"{HEAD} | POST /run/svc | Ada Löve+l=a@x y", execution(user="Ada Löve+l=a@x y")),
        (f"{HEAD} | POST /run/svc | ", execution(user="")),
        (f"{HEAD} | POST /run/svc |", execution(user="")),
        (f"{HEAD} | POST /run/svc | u |  | ns", execution(user="u", namespace="ns")),
        (f"{HEAD} | POST /run/.env | oscar", execution(".env", "oscar")),
        # recognised, not understood: cut short, bad status, wrong number of fields, bad names
        (f"{HEAD} | POST    /run/svc", Unread.NOT_UNDERSTOOD),
        (f"{HEAD} | POST    /ru", Unread.NOT_UNDERSTOOD),
        (f"{HEAD} | PO", Unread.NOT_UNDERSTOOD),
        (f"{HEAD} | ", Unread.NOT_UNDERSTOOD),
        (f"{HEAD}", Unread.NOT_UNDERSTOOD),
        (f"{TAG} 2026-04-2", Unread.NOT_UNDERSTOOD),
        (TAG, Unread.NOT_UNDERSTOOD),
        (f"{HEAD} | POST /run/svc | user | svc", Unread.NOT_UNDERSTOOD),
        (f"{HEAD} | POST /run/svc | a | b | c | d", Unread.NOT_UNDERSTOOD),
        (f"{HEAD} | POST /run/ | user", Unread.NOT_UNDERSTOOD),
        (f"{HEAD} | POST /run/{'x' * 254} | user", Unread.NOT_UNDERSTOOD),
        (f"{HEAD} | POST /run/a\x1b[2J | user", Unread.NOT_UNDERSTOOD),
        (f"{HEAD} | POST /run/svc | {'u' * 1001}", Unread.NOT_UNDERSTOOD),
        (HEAD.replace("200", "999") + " | POST /run/svc | u", Unread.NOT_UNDERSTOOD),
        (HEAD.replace("200", "20x") + " | POST /run/svc | u", Unread.NOT_UNDERSTOOD),
        # none of ours: other paths, other methods, Gin's own five fields, its start-up list
        (f"{HEAD} | GET /run/svc | u", Unread.OTHER),
        (f"{HEAD} | POST /system/services | u", Unread.OTHER),
        ('[GIN] 2026/01/20 - 10:00:00 | 200 | 12ms | 10.0.0.1 | GET      "/health"', Unread.OTHER),
        ('[GIN] 2026/01/20 - 10:00:00 | 201 | 12ms | 10.0.0.1 | POST "/job/svc"', Unread.OTHER),
        ("[GIN] 2026-01-20T10:00:00Z | 200 | 12ms | 10.0.0.1 | GET /health | u", Unread.OTHER),
        ("[GIN-debug] POST   /job/:serviceName --> main.main.func1 (4 handlers)", Unread.OTHER),
        ("", Unread.OTHER),
        ("2026/01/20 10:00:00 POST /run/svc | 1 | 2 | 3 | 4 | 5", Unread.OTHER),
    ],
)
def test_an_execution_line_reads_as(line: str, expected: Call | Unread) -> None:
    assert read_execution(line) == expected


NGINX = (
    '172.18.0.1 - - [23/Jan/2026:18:13:07 +0000] "GET /system/services/gmolto-nginx/exposed/'
    ' HTTP/1.1" 200 17 "-" "curl/8.7.1" 109 0.003 [oscar-svc-gmolto-nginx-svc-80] []'
    " 10.244.0.223:80 17 0.002 200 a72c"
)
HOST_ROUTED = (
    '{"StartUTC":"2026-08-15T12:30:00Z","RequestHost":"demo.example.org",'
    '"ClientHost":"79.1.1.1","RouterName":"oscar-svc-user-demo-route@kubernetesgateway",'
    '"ServiceName":"oscar-svc-user-demo-svc-80@kubernetesgateway"}'
)


def exposed(
    service: str,
    namespace: str = "",
    *,
    result: Result = Result.OK,
    ip: str = "172.18.0.1",
) -> Call:
    return Call(Kind.EXPOSED, namespace, service, "", result, ip)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (NGINX, exposed("gmolto-nginx", "oscar-svc")),
        (f"2026-01-23T18:13:07.1Z stdout F {NGINX}", exposed("gmolto-nginx", "oscar-svc")),
        (
            NGINX.replace("172.18.0.1", "2001:db8::1"),
            exposed("gmolto-nginx", "oscar-svc", ip="2001:db8::1"),
        ),
        (NGINX.replace("- - [", "- some user [", 1), exposed("gmolto-nginx", "oscar-svc")),
        (NGINX.replace("exposed/", "exposed?a=b"), exposed("gmolto-nginx", "oscar-svc")),
        (
            NGINX.replace('" 200', '" 499'),
            exposed("gmolto-nginx", "oscar-svc", result=Result.CLIENT_ERROR),
        ),
        (
            NGINX.replace("oscar-svc-gmolto-nginx-svc-80", "upstream-default-backend"),
            exposed("gmolto-nginx"),
        ),
        # cut short: behind the status it still says what counts
        (NGINX[: NGINX.index(" 17")], exposed("gmolto-nginx")),
        (NGINX[: NGINX.index("00 17")], Unread.NOT_UNDERSTOOD),
        (NGINX[: NGINX.index(" HTTP")], Unread.NOT_UNDERSTOOD),
        (NGINX.replace('" 200', '" 2000'), Unread.NOT_UNDERSTOOD),
        # other paths, and the path in a referrer only
        (NGINX.replace("/exposed/", "/exposedly/"), Unread.OTHER),
        (NGINX.replace("/exposed/", ""), Unread.OTHER),
        (
            NGINX.replace("/system/services/gmolto-nginx/exposed/", "/favicon.ico").replace(
                '"-"', '"http://x/system/services/gmolto-nginx/exposed/"'
            ),
            Unread.OTHER,
        ),
    ],
)
def test_a_line_of_ingress_nginx_reads_as(line: str, expected: Call | Unread) -> None:
    assert read_exposed(line) == expected


def traefik(**fields: object) -> str:
    return json.dumps(
        {"StartUTC": "2026-08-15T12:30:00.5Z", "ClientHost": "79.1.1.1"} | fields,
        separators=(",", ":"),
    )


DEMO = {"ServiceName": "oscar-svc-user-demo-svc-80@kubernetesgateway"}
PATH = {"RequestPath": "/system/services/demo/exposed/x?y=z"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (HOST_ROUTED, exposed("demo", "oscar-svc-user", ip="79.1.1.1")),
        (
            HOST_ROUTED.replace("demo.example.org", "Demo.Example.ORG:8443"),
            exposed("demo", "oscar-svc-user", ip="79.1.1.1"),
        ),
        (
            HOST_ROUTED.replace("RequestHost", "RequestAddr"),
            exposed("demo", "oscar-svc-user", ip="79.1.1.1"),
        ),
        (
            traefik(**PATH, **DEMO, DownstreamStatus=204),
            exposed("demo", "oscar-svc-user", ip="79.1.1.1"),
        ),
        (
            traefik(**PATH, DownstreamStatus=404, OriginStatus=200),
            exposed("demo", result=Result.CLIENT_ERROR, ip="79.1.1.1"),
        ),
        (
            traefik(**PATH, OriginStatus=502),
            exposed("demo", result=Result.SERVER_ERROR, ip="79.1.1.1"),
        ),
        (traefik(**PATH, OriginStatus=0), exposed("demo", ip="79.1.1.1")),
        (traefik(**PATH, ClientHost="", ClientAddr="[::1]:4"), exposed("demo", ip="[::1]:4")),
        (
            traefik(RequestHost="never-deployed.example.org"),
            exposed("never-deployed", ip="79.1.1.1"),
        ),
        (traefik(**PATH, DownstreamStatus="?"), Unread.NOT_UNDERSTOOD),
        (traefik(**PATH, DownstreamStatus=0), Unread.NOT_UNDERSTOOD),
        (traefik(**PATH, DownstreamStatus=[1]), Unread.NOT_UNDERSTOOD),
        (traefik(**PATH)[:-4], Unread.NOT_UNDERSTOOD),
        (HOST_ROUTED[:70], Unread.NOT_UNDERSTOOD),
        # other hosts, the base host itself, two labels below it, OSCAR's own pages
        (traefik(RequestHost="demo.example.com"), Unread.OTHER),
        (traefik(RequestHost="example.org"), Unread.OTHER),
        (traefik(RequestHost="a.demo.example.org"), Unread.OTHER),
        (traefik(RequestHost="evilexample.org"), Unread.OTHER),
        (
            traefik(RequestHost="oscar.example.org", ServiceName="oscar-oscar-8080@kubernetes"),
            Unread.OTHER,
        ),
        (traefik(RequestPath="/system/services/demo"), Unread.OTHER),
        ('{"level":"info","msg":"Configuration loaded"}', Unread.OTHER),
        ("{", Unread.OTHER),
    ],
)
def test_a_json_line_of_traefik_reads_as(line: str, expected: Call | Unread) -> None:
    assert read_exposed(line, ingress_host="example.org") == expected


def test_a_call_by_host_is_not_passed_over_where_no_base_host_is_configured() -> None:
    assert read_exposed(HOST_ROUTED) is Unread.NOT_UNDERSTOOD
    elsewhere = HOST_ROUTED.replace("demo.example.org", "www.example.org")
    assert read_exposed(elsewhere) is Unread.OTHER


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"{HEAD} | POST /run/svc | u", "2026-04-24T10:00:00.123456789Z"),
        (f"{TAG} 2026-04-24T10:00:00+02:00 | 200", "2026-04-24T08:00:00Z"),
        (f"{TAG} 2025/10/28 - 16:53:34 | 200", "2025-10-28T16:53:34Z"),
        ("[CREATE-HANDLER] 2025/10/28 16:53:34 created", "2025-10-28T16:53:34Z"),
        (f"2026-01-01T00:00:00.5Z stdout F {HEAD}", "2026-01-01T00:00:00.5Z"),
        (f"2026-01-01T02:00:00.5+02:00 stdout F {HEAD}", "2026-01-01T00:00:00.5Z"),
        (f"2026-01-01T00:00:00Z {HEAD}", "2026-01-01T00:00:00Z"),
        (NGINX, "2026-01-23T18:13:07Z"),
        (NGINX.replace("+0000", "+0130"), "2026-01-23T16:43:07Z"),
        (HOST_ROUTED, "2026-08-15T12:30:00Z"),
        ('{"StartUTC":"23/Jan/2026:18:13:07 +0000"}', "2026-01-23T18:13:07Z"),
        (f"{TAG} 2026-02-30T10:00:00Z | 200", None),
        (f"{TAG} 2026-04-24T10:00:6", None),
        (NGINX.replace("Jan", "Foo"), None),
        (NGINX.replace("Jan", "anF"), None),
        ('{"RequestPath":"/"}', None),
        ("no time", None),
        ("", None),
    ],
)
def test_the_time_of_a_line_is(line: str, expected: str | None) -> None:
    assert line_time_ns(line) == (None if expected is None else parse_instant(expected))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (HEAD, LogStream.EXECUTIONS),
        (f"2026-01-01T00:00:00Z stdout F {HEAD}", LogStream.EXECUTIONS),
        (
            '[GIN] 2026/01/20 - 10:00:00 | 200 | 12ms | 10.0.0.1 | GET "/health"',
            LogStream.EXECUTIONS,
        ),
        ("[CREATE-HANDLER] 2025/10/28 16:53:34 created", LogStream.EXECUTIONS),
        (NGINX, LogStream.EXPOSED),
        (NGINX.replace("/system/services/gmolto-nginx/exposed/", "/"), LogStream.EXPOSED),
        (f"2026-01-01T00:00:00Z stdout F {NGINX}", LogStream.EXPOSED),
        (HOST_ROUTED, LogStream.EXPOSED),
        ('{"level":"info"}', None),
        ("panic: oh", None),
    ],
)
def test_a_line_shows_which_log_it_is_from(line: str, expected: LogStream | None) -> None:
    assert stream_of(line) is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("200", Result.OK),
        (" 399 ", Result.OK),
        ("100", Result.OK),
        ("400", Result.CLIENT_ERROR),
        ("499", Result.CLIENT_ERROR),
        ("500", Result.SERVER_ERROR),
        ("599", Result.SERVER_ERROR),
        ("600", None),
        ("099", None),
        ("", None),
        ("٢٠٠", None),
    ],
)
def test_a_status_says_what_became_of_a_call(status: str, expected: Result | None) -> None:
    assert result_of(status) is expected


stamps = st.one_of(
    st.datetimes().map(lambda t: t.strftime("%Y-%m-%dT%H:%M:%S") + "Z"),
    st.datetimes().map(lambda t: t.isoformat() + "+02:00"),
    st.datetimes().map(lambda t: t.strftime("%Y/%m/%d - %H:%M:%S")),
    st.datetimes().map(lambda t: t.strftime("%d/%b/%Y:%H:%M:%S +0000")),
    st.text(alphabet="0123456789-/:TZ. +", max_size=30),
)
forms = st.sampled_from(
    [
        "[GIN] {} | 200",
        TAG + " {} | 200",
        "{} stdout F x",
        '{{"StartUTC":"{}"}}',
        '::1 - - [{}] "G',
        "{}",
    ]
)


@given(stamps, forms, st.integers(0, 40), st.sampled_from(["", "x", " ", "Z"]))
def test_a_minute_read_at_once_is_the_minute_of_the_line(
    stamp: str, form: str, at: int, put: str
) -> None:
    line = form.format(stamp[:at] + put + stamp[at:])
    if minute := minute_of(line):
        start_ns, instant_ns = minute_start_ns(minute), line_time_ns(line)
        assert start_ns == (None if instant_ns is None else instant_ns // MINUTE_NS * MINUTE_NS)


@given(st.text(max_size=200))
def test_no_text_breaks_a_parser(text: str) -> None:
    for line in (text, f"{HEAD} | {text}", TAG + text, NGINX[:60] + text, '{"RequestPath":' + text):
        read_execution(line)
        read_exposed(line, ingress_host="example.org")
        line_time_ns(line)
        stream_of(line)


@given(st.integers(0, len(HEAD) + 40))
def test_a_line_cut_short_behind_its_tag_is_never_none_of_ours(at: int) -> None:
    line = f"{HEAD} | POST    /run/svc | user@egi.eu | svc | namespace"
    if at >= len(TAG):
        assert read_execution(line[:at]) is not Unread.OTHER


def test_parts_of_a_line_are_joined_for_each_stream_apart() -> None:
    joiner = CriJoiner(line_characters=1000)
    fed = [
        joiner.feed(raw)
        for raw in (
            "2026-01-01T00:00:00Z stdout P one ",
            "2026-01-01T00:00:01Z stderr P three ",
            "2026-01-01T00:00:02Z stdout P t",
            "2026-01-01T00:00:03Z stdout F wo",
            "2026-01-01T00:00:04Z stderr F four",
            "2026-01-01T00:00:05Z stdout F five",
            "no prefix",
        )
    ]
    at = parse_instant
    assert fed == [
        None,
        None,
        None,
        (at("2026-01-01T00:00:03Z"), "one two"),
        (at("2026-01-01T00:00:04Z"), "three four"),
        (at("2026-01-01T00:00:05Z"), "five"),
        (None, "no prefix"),
    ]
    assert not joiner.pending


def test_a_joined_line_is_held_no_longer_than_its_limit() -> None:
    joiner = CriJoiner(line_characters=10)
    for _ in range(100):
        assert joiner.feed("2026-01-01T00:00:00Z stdout P abcdefg") is None
    assert joiner.rest() == ["2026-01-01T00:00:00Z stdout P abcdefgabc"]
    assert not joiner.pending


@given(st.text(alphabet="ab| ", max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_a_line_cut_anywhere_is_joined_to_what_it_was(text: str, cuts: list[int]) -> None:
    joiner = CriJoiner(line_characters=1000)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts)]
    for start, stop in itertools.pairwise(edges):
        assert joiner.feed(f"2026-01-01T00:00:00Z stderr P {text[start:stop]}") is None
    fed = joiner.feed(f"2026-01-01T00:00:01Z stderr F {text[edges[-1] :]}")
    assert fed == (parse_instant("2026-01-01T00:00:01Z"), text)
