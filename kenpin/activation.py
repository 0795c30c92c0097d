"""The activation: which bundle a station runs, which one it ran before, and which one is to follow.

`activation.json` is the truth, and the link `active` follows it: whoever finds them apart, as after a power cut
between the two, sets the link. So a station runs the old bundle or the new one at every moment.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
from collections.abc import Callable
from shlex import quote
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from kenpin.canonical_json import canonical_json
from kenpin.errors import BundleError
from kenpin.manifest import Manifest
from kenpin.station_folder import StationFolder
from kenpin.synced_file import replace_synced

Task = Literal["", "shadow", "activate"]
_JSON = TypeAdapter(dict[str, Any])


class Activation(BaseModel):
    """Content of `activation.json`. Bundles are named by their SHA-256; empty = none.

    Attributes:
        current: The bundle that the station runs.
        previous: The one that it goes back to.
        state: `trial` until the current one has proven itself in service.
        starts: Starts of the station in the trial that did not end cleanly; stored before each one.
        candidate: The bundle that is to follow.
        task: What is to be done with the candidate: only to be watched, or to be taken.
        left: The bundle that was refused or given up, until another one is wanted or runs.
        reason: Why it was, in words; or what became of the file.
        newest: Newest version of each product that ran here.
        floors: Oldest version of each product that may run here from now on, as bundles that ran here say.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal["kenpin.activation.v1"] = Field(default="kenpin.activation.v1", alias="schema")
    current: str = ""
    previous: str = ""
    state: Literal["good", "trial"] = "good"
    starts: int = Field(default=0, ge=0)
    candidate: str = ""
    task: Task = ""
    left: str = ""
    reason: str = ""
    newest: dict[str, str] = {}
    floors: dict[str, str] = {}

    def wanting(self, sha256: str, task: Task) -> Activation:
        """A bundle is to follow; what was given up before it is over with."""
        over = {"left": "", "reason": ""} if sha256 else {}
        return self._with(candidate=sha256, task=task, **over)

    def running(self, sha256: str, manifest: Manifest, *, on_trial: bool) -> Activation:
        """The station runs this bundle from now on."""
        product = manifest.product
        highest = max(self.newest.get(product, ""), manifest.version, key=version_order)
        floor = max(self.floors.get(product, ""), manifest.floor, key=version_order)
        return self._with(
            current=sha256,
            previous=self.current if on_trial else "",
            state="trial" if on_trial else "good",
            starts=1,
            candidate="",
            task="",
            left="",
            reason="",
            newest={**self.newest, product: highest},
            floors={**self.floors, product: floor},
        )

    def started(self) -> Activation:
        """The station starts once more."""
        return self._with(starts=self.starts + 1)

    def ended_cleanly(self) -> Activation:
        """Whatever ends now was stopped on purpose."""
        return self._with(starts=0)

    def proven(self) -> Activation:
        """The trial is over, and well."""
        return self._with(state="good", starts=0)

    def gone_back(self, reason: str) -> Activation:
        """The current bundle is given up for the previous one."""
        back = self.wanting("", "") if self.candidate == self.previous else self
        return back._with(
            current=self.previous, previous="", state="good", starts=0, left=self.current, reason=reason
        )

    def refused(self, reason: str) -> Activation:
        """The candidate is not taken."""
        return self._with(candidate="", task="", left=self.candidate, reason=reason)

    @property
    def trouble(self) -> str:
        """What became of the file, with the cure; empty where it was read."""
        return "" if self.left else self.reason

    def _with(self, **changes: object) -> Activation:
        return self.model_copy(update=changes)


def read_activation(folder: StationFolder) -> Activation:
    """What is in force. Without the file, or where it cannot be read, the link says which bundle that is."""
    try:
        return _read(folder)
    except OSError as error:
        return _linked(folder, f"cannot be read ({error.strerror})", "remove it, then: ")


def _read(folder: StationFolder) -> Activation:
    linked = folder.active_sha256
    try:
        content = _JSON.validate_json(folder.activation.read_bytes())
        told = content.pop("sha256", "")
        found = Activation.model_validate(content)
    except FileNotFoundError:
        return Activation(current=linked)
    except ValidationError:
        return _linked(folder, "was damaged")
    if told not in ("", _sum_of(content)):  # a flipped bit may leave another version
        return _linked(folder, "was damaged")
    # Or, in a file of before, a name of no bundle; followed, it would lead the link astray, and nothing ran.
    if linked and found.current not in ("", linked) and not (folder.bundles / found.current).exists():
        return _linked(folder, "was damaged: it names a bundle that is not there")
    return found


def _sum_of(content: dict[str, object]) -> str:
    """Of what stands in the file, not of what this kenpin makes of it: another one may know more fields."""
    return hashlib.sha256(canonical_json(content)).hexdigest()


def _linked(folder: StationFolder, why: str, first: str = "") -> Activation:
    """What the link says; the cure writes the file anew, once what keeps it from that is done `first`."""
    current = folder.active_sha256
    bundle = folder.bundles / current if current else "FILE"
    cure = f"{first}kenpin bundle install {quote(str(bundle))} {folder.as_option}"
    return Activation(current=current, reason=f"{folder.activation} {why}; {cure}")


def change_activation(folder: StationFolder, step: Callable[[Activation], Activation]) -> Activation:
    """Change what is in force; the station and the command line may both do so.

    Args:
        folder: The station's folder.
        step: Gets what is in force and returns what shall be.

    Returns:
        What is in force now, on disk, with the link behind it.

    Raises:
        OSError: It cannot be read or written; the old one is in force.
    """
    with folder.activation.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = _read(folder)
        after = step(before)
        if after != before:
            content = after.model_dump(mode="json", by_alias=True)
            replace_synced(folder.activation, canonical_json({**content, "sha256": _sum_of(content)}))
        if after.current not in ("", folder.active_sha256):
            folder.activate(folder.bundles / after.current)
        return after


def refuse_older(activation: Activation, manifest: Manifest, *, is_kept: bool) -> None:
    """Keep a station from being led back to faults that a newer bundle has mended.

    A bundle that is kept here may run again, as that is how a person goes back; one that comes from outside
    must not be older than what ran here; and none may be older than the floor.

    Raises:
        BundleError: It is too old.
    """
    product, version = manifest.product, manifest.version
    floor, newest = activation.floors.get(product, ""), activation.newest.get(product, "")
    if version_order(version) < version_order(floor):
        raise BundleError(
            f"{product} {version} may not run here any more: a bundle that ran here asks for {floor} or newer",
            where=version,
            cure="use a newer one",
        )
    if not is_kept and version_order(version) < version_order(newest):
        raise BundleError(
            f"{product} {version} is older than {newest}, which ran here",
            where=version,
            cure="go back to a bundle that is kept here with kenpin bundle activate, or export this one again",
        )


def version_order(version: str) -> list[tuple[int, int, str]]:
    """A key that sorts versions: 1.9 < 1.10rc1 < 1.10 < 1.10.1. An empty one is below all."""
    parts = re.findall(r"[0-9]+|[A-Za-z]+", version)
    key = [(2, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]
    return [*key, (1, 0, "")] if parts else []
