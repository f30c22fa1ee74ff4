"""Servers that are built from their published Go modules.

Each folder under `go/` pins one of them: its version in go.mod, every byte it is built from in
go.sum.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.servers.server import BuildError, Server, told_version

_GO_MODULES = Path(__file__).with_name("go")
_GO_NEEDED = (1, 26, 5)

# Settings of somebody's shell that would change what is built or for which machine.
_SETTINGS_DROPPED = ("GOOS", "GOARCH", "GOAMD64", "GOARM64", "GOEXPERIMENT", "GODEBUG")


@dataclass(frozen=True, kw_only=True)
class GoModule(Server):
    """The module a server is published as, and how it is built.

    `version_variables` are what the linker sets so that the program knows its version, `tags` are
    Go's build tags.
    """

    module: str
    module_version: str
    version_variables: Mapping[str, str]
    tags: str = ""

    @property
    def installed_as(self) -> str:
        """The same, which built with other tags is another program."""
        return "-".join([super().installed_as, *filter(None, self.tags.split(","))])

    def on_path(self) -> Path | None:
        """Return the program on PATH if it has exactly this version."""
        found = shutil.which(self.name)
        wanted = rf"(?<![\d.])v?{re.escape(self.version)}(?![\d.])"
        if found is None or re.search(wanted, told_version(found, self.asked_version_by)) is None:
            return None
        return Path(found)

    def check(self, work_directory: Path) -> None:
        """Raise BuildError if Go is missing or too old."""
        needed = ".".join(map(str, _GO_NEEDED))
        advice = f"Go {needed} or newer is needed to build the servers for the tests"
        remedy = "install it from your distribution, then run make test again"
        try:
            # Inside the module, where a Go that fetches newer toolchains by itself says which
            # it uses.
            told = subprocess.run(
                ["go", "version"],
                cwd=self._pins,
                env=_settings(work_directory),
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError:
            raise BuildError(f"{advice}, and there is no `go` here: {remedy}.") from None
        version = re.search(r"go(\d+)\.(\d+)(?:\.(\d+))?", told.stdout)
        if told.returncode != 0 or version is None:
            raise BuildError(f"{advice}: {remedy}.\n{told.stderr.strip()}")
        if tuple(int(part or 0) for part in version.groups()) < _GO_NEEDED:
            raise BuildError(f"{advice}, and this is {version.group()}: {remedy}.")

    def build(self, work_directory: Path) -> Path:
        """Build the program; what was compiled stays under `work_directory` for the others."""
        package = self._pinned_package()
        unfinished = work_directory / self.name
        flags = ["-s", "-w"]
        flags += [f"-X {name}={value}" for name, value in self.version_variables.items()]
        command = ["go", "build", "-trimpath", f"-tags={self.tags}", f"-ldflags={' '.join(flags)}"]
        command += ["-o", str(unfinished), package]
        self.run(
            command, work_directory, directory=self._pins, environment=_settings(work_directory)
        )
        return unfinished

    @property
    def _pins(self) -> Path:
        return _GO_MODULES / self.name

    def _pinned_package(self) -> str:
        """Return the package that go.mod's tool line names.

        Raises BuildError if go.mod pins another version than this one: the program would carry
        the wrong version in its name.
        """
        go_mod = self._pins / "go.mod"
        text = go_mod.read_text()
        if f"{self.module} {self.module_version}" not in text:
            raise BuildError(f"{go_mod} does not pin {self.module} {self.module_version}")
        tool = re.search(r"^tool (\S+)$", text, re.MULTILINE)
        if tool is None:
            raise BuildError(f"{go_mod} names no tool")
        return tool.group(1)


def _settings(work_directory: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _SETTINGS_DROPPED}
    return kept | {
        "CGO_ENABLED": "0",
        "GO111MODULE": "on",
        "GOWORK": "off",
        # Not empty, which would let the user's own flags in again. Readonly trusts go.sum;
        # a writable module cache can be removed like any folder.
        "GOFLAGS": "-mod=readonly -modcacherw -buildvcs=false",
        "GOCACHE": str(work_directory / "compiled"),
        "GOMODCACHE": str(work_directory / "modules"),
    }
