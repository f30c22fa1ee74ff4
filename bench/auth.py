"""What authorising a bearer token costs, remembered and not, and what remembering holds.

    python -m bench.auth [--tokens 10000]

The issuer is one made by hand in the same process, so that its time, which is little, is part of
an uncached one's. Memory is the highest resident size of a process that was shown so many
different tokens of as many users, each process its own.

Figures: a cached token costs at most a tenth of an uncached summary over the sample; ten thousand
different tokens hold bounded memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time

from oscar_metrics.auth.caller import Caller
from oscar_metrics.auth.oidc import OidcAuth
from oscar_metrics.auth.oidc_settings import OidcSettings
from oscar_metrics.telemetry import Telemetry
from tests.auth.made_issuer import USERINFO, MadeIssuer
from tests.auth.making import NOW, key

ALGORITHMS = ("RS256", "ES256", "EdDSA")
CACHED_CALLS = 50_000
UNCACHED_CALLS = 300


def main() -> None:
    """Print cost and memory, side by side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--tokens", type=int, default=10_000, help="different tokens shown, and twice as many"
    )
    parser.add_argument("--shown", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.shown is not None:
        asyncio.run(show_tokens(arguments.shown))
        return
    asyncio.run(compare_costs())
    print(f"{'different tokens':>18} {'peak MiB':>9} {'more MiB':>9}")
    alone_kib = peak_kib(0)
    print(f"{0:18,} {alone_kib / 1024:9.1f} {0:9.1f}")
    for shown in (arguments.tokens, 2 * arguments.tokens):
        kib = peak_kib(shown)
        print(f"{shown:18,} {kib / 1024:9.1f} {(kib - alone_kib) / 1024:9.1f}")
    print(f"({OidcSettings().tokens_kept:,} are remembered)")


async def compare_costs() -> None:
    """Print the median of an uncached and of a cached token, by algorithm."""
    print(f"{'algorithm':>18} {'uncached ms':>12} {'cached us':>10} {'ratio':>8}")
    async with MadeIssuer.start() as issuer:
        for algorithm in ALGORITHMS:
            issuer.has_keys(key(algorithm))
            oidc = auth(issuer)
            tokens = [
                issuer.token(algorithm=algorithm, jti=str(number))
                for number in range(UNCACHED_CALLS + 1)
            ]
            await oidc.caller(tokens[-1])
            seconds = []
            for token in tokens[:-1]:
                began = time.perf_counter()
                await oidc.caller(token)
                seconds.append(time.perf_counter() - began)
            uncached = statistics.median(seconds)
            cached = await cached_seconds(oidc, tokens[0])
            await oidc.aclose()
            print(
                f"{algorithm:>18} {uncached * 1e3:12.2f} {cached * 1e6:10.2f}"
                f" {uncached / cached:7,.0f}x"
            )


async def cached_seconds(oidc: OidcAuth, token: str) -> float:
    """How long one call takes for a token that is remembered."""
    began = time.perf_counter()
    for _ in range(CACHED_CALLS):
        await oidc.caller(token)
    return (time.perf_counter() - began) / CACHED_CALLS


def peak_kib(shown: int) -> int:
    """The highest resident size of a process that is shown so many different tokens."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.auth", "--shown", str(shown)],
        check=True,
        capture_output=True,
        text=True,
    )
    peak: int = json.loads(done.stdout)
    return peak


async def show_tokens(shown: int) -> None:
    """Have so many different tokens authorised, and print the highest resident size in KiB."""
    async with MadeIssuer.start() as issuer:
        issuer.has_keys(key("ES256"))
        oidc = auth(issuer)
        for number in range(-100, shown):
            user = f"{number:064x}@example.org"
            issuer.says(USERINFO, {"sub": user})
            caller = await oidc.caller(issuer.token(algorithm="ES256", sub=user))
            assert caller == Caller(user=user)
        await oidc.aclose()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def auth(issuer: MadeIssuer) -> OidcAuth:
    settings = OidcSettings(enable=True, issuers=(issuer.url,), groups=("*",))
    return OidcAuth(settings, telemetry=Telemetry(), now=lambda: NOW)


if __name__ == "__main__":
    main()
