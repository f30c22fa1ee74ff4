"""How many worlds a property is held against."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings


def many(by_default: int) -> settings:
    """So many; or as many as are asked for: OSCAR_SCOPE_EXAMPLES=2000 pytest tests/scope."""
    return settings(
        max_examples=int(os.environ.get("OSCAR_SCOPE_EXAMPLES", by_default)),
        deadline=None,
        database=None,
        # A world is made by dice from one number: there is little to make smaller, and all
        # the time goes into answers.
        suppress_health_check=list(HealthCheck),
    )
