"""Servers that are published as an archive in a Maven repository."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.servers.server import BuildError, Server

# What copies one artifact to a folder, from wherever this machine's Maven is told to look.
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
_JAVA_NEEDED = 17


@dataclass(frozen=True, kw_only=True)
class MavenZip(Server):
    """The archive a server is published as, its checksum, and what is run once it is unpacked.

    `artifact` is group:name; the archive holds one folder, in which `script` is the program and
    `preparation` its arguments on installing.
    """

    artifact: str
    sha256: str
    script: str
    preparation: tuple[str, ...]

    @property
    def program(self) -> Path:
        """The script, in the folder that the archive unpacks to."""
        return Path(self.installed_as) / self.script

    def check(self, work_directory: Path) -> None:  # noqa: ARG002 - as the others
        """Raise BuildError if there is no Maven, or no Java that is new enough."""
        advice = f"Maven and Java {_JAVA_NEEDED} or newer are needed for {self.title}"
        remedy = "install them from your distribution, then run make test again"
        if shutil.which("mvn") is None:
            raise BuildError(f"{advice}, and there is no `mvn` here: {remedy}.")
        home = os.environ.get("JAVA_HOME")
        java = str(Path(home, "bin/java")) if home else "java"  # as the programs choose it
        try:
            told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise BuildError(f"{advice}, and there is no `{java}` here: {remedy}.") from None
        version = re.search(r'version "(\d+)', told.stderr)
        if version is None or int(version.group(1)) < _JAVA_NEEDED:
            raise BuildError(f"{advice}: {remedy}.\n{told.stderr.strip()}")

    def build(self, work_directory: Path) -> Path:
        """Fetch the archive, hold it against its checksum, unpack and prepare it."""
        archive = self._fetch(work_directory)
        unpacked = work_directory / "unpacked"
        shutil.rmtree(unpacked, ignore_errors=True)
        with zipfile.ZipFile(archive) as contents:
            contents.extractall(unpacked)
        (folder,) = unpacked.iterdir()
        script = folder / self.script
        script.chmod(0o755)  # extracting forgets what was executable
        self.run([script, *self.preparation], work_directory)
        return folder

    def _fetch(self, work_directory: Path) -> Path:
        repository = work_directory / "maven"
        command = [
            "mvn",
            "--batch-mode",
            "--no-transfer-progress",
            _COPY,
            f"-Dartifact={self.artifact}:{self.version}:zip",
            f"-DoutputDirectory={work_directory}",
            f"-Dmaven.repo.local={repository}",
        ]
        self.run(command, work_directory)
        archive = work_directory / f"{self.artifact.rpartition(':')[2]}-{self.version}.zip"
        with archive.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if digest != self.sha256:
            archive.unlink()
            shutil.rmtree(repository, ignore_errors=True)  # else the next attempt finds it there
            raise BuildError(
                f"{self.title} came as something else than what is pinned:"
                f" SHA-256 {digest}, not {self.sha256}"
            )
        return archive
