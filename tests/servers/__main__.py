"""`python -m tests.servers build`: install the servers that the tests start."""

from __future__ import annotations

import argparse
import sys

from tests.servers.build import BuildError, build_all


def main() -> int:
    """Return the exit code: 0 if every server is there, 1 if one is not, 130 if interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.servers", description=__doc__)
    commands = parser.add_subparsers(required=True)
    commands.add_parser(
        "build",
        help="build what is missing: some 23 minutes and 20 GB on 2 cores, 850 MB of it stay",
    )
    parser.parse_args()
    try:
        build_all()
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the next build goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
