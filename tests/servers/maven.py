"""Servers that are published as an archive in a Maven repository."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import zipfile
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

from tests.servers.server import BuildError, Server, told_version

# What copies one artifact to a folder, from wherever this machine's Maven is told to look.
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
_JAVA_NEEDED = 17

# As the programs in archives are named, after the names that Python has.
_SYSTEMS = {"Linux": "linux", "Darwin": "darwin"}
_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True, kw_only=True)
class MavenArchive(Server):
    """The archive a server is published as, group:name:version:kind, and its checksum."""

    artifact: str
    sha256: str

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
        unpacked.mkdir()
        return self.unpack(archive, unpacked)

    @abstractmethod
    def unpack(self, archive: Path, directory: Path) -> Path:
        """Take the server out of the archive into the empty `directory`; return what it is."""

    def _fetch(self, work_directory: Path) -> Path:
        repository = work_directory / "maven"
        command = [
            "mvn",
            "--batch-mode",
            "--no-transfer-progress",
            _COPY,
            f"-Dartifact={self.artifact}",
            f"-DoutputDirectory={work_directory}",
            f"-Dmaven.repo.local={repository}",
        ]
        self.run(command, work_directory)
        _, name, version, kind = self.artifact.split(":")
        archive = work_directory / f"{name}-{version}.{kind}"
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


@dataclass(frozen=True, kw_only=True)
class MavenFolder(MavenArchive):
    """An archive of one folder: `script` in it is the program, run once with `preparation`."""

    script: str
    preparation: tuple[str, ...]

    @property
    def program(self) -> Path:
        """The script, in the folder that the archive unpacks to."""
        return Path(self.installed_as) / self.script

    def unpack(self, archive: Path, directory: Path) -> Path:
        """Unpack everything and prepare it."""
        with zipfile.ZipFile(archive) as contents:
            contents.extractall(directory)
        (folder,) = directory.iterdir()
        script = folder / self.script
        script.chmod(0o755)  # extracting forgets what was executable
        self.run([script, *self.preparation], directory.parent)
        return folder


@dataclass(frozen=True, kw_only=True)
class MavenProgram(MavenArchive):
    """An archive of one program for each kind of machine.

    `member` is the program's name in it, `{system}` and `{machine}` to be filled in. As good is
    what is on PATH under one of the `names`, from the major version `oldest` on.
    """

    member: str
    names: tuple[str, ...]
    oldest: int

    def on_path(self) -> Path | None:
        """Return the first of the names on PATH that is new enough."""
        for name in self.names:
            found = shutil.which(name)
            version = re.search(r"v=(\d+)\.", told_version(found)) if found is not None else None
            if found is not None and version is not None and int(version.group(1)) >= self.oldest:
                return Path(found)
        return None

    def check(self, work_directory: Path) -> None:
        """Raise BuildError also if it is not published for this machine."""
        if platform.system() not in _SYSTEMS or platform.machine() not in _MACHINES:
            raise BuildError(
                f"{self.title} is not published for {platform.system()} {platform.machine()}:"
                f" install {' or '.join(self.names)} {self.oldest} or newer from your distribution,"
                " then run make test again."
            )
        super().check(work_directory)

    def unpack(self, archive: Path, directory: Path) -> Path:
        """Take out this machine's program."""
        member = self.member.format(
            system=_SYSTEMS[platform.system()], machine=_MACHINES[platform.machine()]
        )
        with zipfile.ZipFile(archive) as contents:
            unpacked = Path(contents.extract(member, directory))
        unpacked.chmod(0o755)  # extracting forgets what was executable
        return unpacked
