from __future__ import annotations

import httpx
import pytest

from oscar_metrics.sources.answer_dates import retry_after_seconds

# Fri, 15 Jan 2027 08:00:00 GMT
NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": " 7 "}, 7.0),
        ({"retry-after": "7"}, 7.0),
        ({"Retry-After": "99999999999999999999"}, 10.0**9),
        ({"Retry-After": "9" * 5000}, 10.0**9),
        # No delay is written like these: whoever asks decides.
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "1e3"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "٣"}, None),
        ({"Retry-After": "Fri, 15 Jan 2027 08:00:03 GMT"}, 3.0),
        ({"Retry-After": "Fri, 15 Jan 2027 07:00:00 GMT"}, 0.0),
        ({"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}, 10.0**9),
        # Of a server whose clock is an hour ahead, and of one that has none.
        (
            {
                "Date": "Fri, 15 Jan 2027 09:00:00 GMT",
                "Retry-After": "Fri, 15 Jan 2027 09:00:04 GMT",
            },
            4.0,
        ),
        ({"Date": "today", "Retry-After": "Fri, 15 Jan 2027 08:00:05 GMT"}, 5.0),
    ],
)
def test_when_to_ask_again(headers: dict[str, str], seconds: float | None) -> None:
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert retry_after_seconds(httpx.Headers(sent, encoding="utf-8"), NOW) == seconds
