"""The station's folder: where everything lies that one station keeps."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from kenpin.errors import BundleError, ConfigError
from kenpin.synced_file import sync_folder

DEFAULT_STATE = Path("/var/lib/kenpin")


def owner_name(uid: int) -> str:
    """Name of a user, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


@dataclass(frozen=True)
class StationFolder:
    """Paths below `--state DIR`.

    Attributes:
        root: The folder.
    """

    root: Path

    @property
    def database(self) -> Path:
        """SQLite: parts and events."""
        return self.root / "station.db"

    @property
    def bundles(self) -> Path:
        """Installed bundles, one folder each, named by SHA-256."""
        return self.root / "bundles"

    @property
    def active(self) -> Path:
        """Link to the bundle in use."""
        return self.root / "active"

    @property
    def activation(self) -> Path:
        """Which bundle is in use, and which one it came from; the link follows it."""
        return self.root / "activation.json"

    @property
    def as_option(self) -> str:
        """How a command is told this folder, to be pasted into a shell."""
        return f"--state {quote(str(self.root))}"

    @property
    def configuration(self) -> Path:
        """What the station started with the last time, so that a change shows."""
        return self.root / "configuration.json"

    @property
    def shadow(self) -> Path:
        """Parts that a watched bundle would have judged otherwise, one per line."""
        return self.root / "shadow.jsonl"

    @property
    def calibrating(self) -> Path:
        """A note that lies here while a technician calibrates."""
        return self.root / "calibrating.json"

    @property
    def paused(self) -> Path:
        """A note that lies here while SCADA has paused the station."""
        return self.root / "paused.json"

    @property
    def records(self) -> Path:
        """Calibration records, one per line, append-only."""
        return self.root / "calibration.jsonl"

    @property
    def key(self) -> Path:
        """The station's own key, which signs its calibration records."""
        return self.root / "station.key"

    @property
    def public_key(self) -> Path:
        """Its other half, by which everybody verifies what the station signed."""
        return self.key.with_suffix(".pub")

    @property
    def engines(self) -> Path:
        """TensorRT engines, one folder per model, TensorRT version and GPU; never carried elsewhere."""
        return self.root / "engines"

    @property
    def engine_key(self) -> Path:
        """The secret by which this station knows the engines that it built itself."""
        return self.root / "engine.key"

    @property
    def images(self) -> Path:
        """Pictures of parts that were not released, under a quota."""
        return self.root / "images"

    @property
    def run(self) -> Path:
        """What the running processes tell each other; means nothing after a boot.

        A file system in memory where systemd gives one (`RuntimeDirectory=`), as it is written every second. A
        command that somebody types is not told where that is; it follows the station's link.
        """
        if given := os.environ.get("RUNTIME_DIRECTORY"):
            return Path(given)
        # A link that leads nowhere is of before the last boot. Unlike Path's, this never raises.
        return self._run_of_service if os.path.isdir(self._run_of_service) else self.root / "run"  # noqa: PTH112

    @property
    def _run_of_service(self) -> Path:
        return self.root / "run-of-service"

    def show_run(self) -> None:
        """Let commands find what systemd gave to the station; whoever holds the station's lock calls this.

        Raises:
            OSError: The link cannot be made.
        """
        given = os.environ.get("RUNTIME_DIRECTORY", "")
        link = self._run_of_service
        if not given or (link.is_symlink() and str(link.readlink()) == given):
            return
        link.unlink(missing_ok=True)
        link.symlink_to(given)

    @property
    def active_sha256(self) -> str:
        """The bundle in use; empty = none."""
        return self.active.resolve().name if self.active.exists() else ""

    def installed(self) -> Path:
        """The folder of the bundle in use.

        Raises:
            BundleError: None is installed.
        """
        if not self.active.exists():
            raise BundleError(
                "no bundle is installed",
                where=self.root,
                cure=f"install one with: kenpin bundle install FILE {self.as_option}",
            )
        return self.active.resolve()

    def create(self) -> None:
        """Make the folder, for its user alone: who may read a file there can lock it, and so stop the line.

        Raises:
            ConfigError: It cannot be made or written, or is another user's and this is root.
        """
        self.refuse_root()
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.bundles.mkdir(exist_ok=True)
        except OSError as error:
            name = self._other_owner()
            cure = f"run this as {name}: sudo -u {name} …" if name else "create it for this user"
            raise ConfigError(
                f"cannot make the station folder: {error.strerror}",
                where=self.root,
                cure=f"{cure}; or give another --state DIR",
            ) from None

    def require(self) -> None:
        """Make sure that the folder is there, where nothing in it would look like nothing to tell.

        Raises:
            ConfigError: It is not.
        """
        if not self.root.is_dir():
            cure = "give the station's folder: --state DIR"
            raise ConfigError("there is no such station folder", where=self.root, cure=cure)

    def refuse_stranger(self) -> None:
        """Tell a user who may not read the folder whose it is.

        Raises:
            ConfigError: It is there, and this user may not read it, or it is a file.
        """
        if self.root.is_file():
            raise ConfigError(
                "the station's folder is a file", where=self.root, cure="give the station's folder: --state DIR"
            )
        if os.access(self.root, os.F_OK) and not os.access(self.root, os.R_OK | os.X_OK):
            name = self._other_owner()
            cure = f"run this as {name}: sudo -u {name} …" if name else f"chmod u+rwx {quote(str(self.root))}"
            raise ConfigError("this user may not read the station's folder", where=self.root, cure=cure)

    def refuse_root(self) -> None:
        """Keep root from making files in another user's folder, which that user's station could not use.

        Raises:
            ConfigError: This is root, and the folder belongs to somebody else.
        """
        if os.geteuid() == 0 and (name := self._other_owner()):
            raise ConfigError(
                f"the station's folder belongs to {name}, who could not use files that root makes there",
                where=self.root,
                cure=f"run this as {name}: sudo -u {name} …",
            )

    def _other_owner(self) -> str:
        """Whose folder it is; empty where it is this user's, or not there."""
        try:
            owner = self.root.stat().st_uid
        except OSError:
            return ""
        return owner_name(owner) if owner != os.geteuid() else ""

    def activate(self, installed: Path) -> None:
        """Let `active` point to an installed bundle: the old one or the new one, never neither."""
        pending = self.root / ".active.new"
        pending.unlink(missing_ok=True)
        pending.symlink_to(installed.relative_to(self.root))
        pending.replace(self.active)
        sync_folder(self.root)
