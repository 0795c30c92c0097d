"""The station's book of calibration records: one writer at a time, and every record in the audit first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from kenpin import __version__, audit
from kenpin.errors import CalibrationError
from kenpin.events import now_ms
from kenpin.record import CalibrationRecord, append_record, head, load_records, newest_for
from kenpin.signing import SecretKey
from kenpin.sole_use import sole_use
from kenpin.station_folder import StationFolder
from kenpin.station_key import station_key


@dataclass(frozen=True)
class Book:
    """All records of a station, verified.

    Attributes:
        folder: The station's folder.
        key: What signs them.
        records: Oldest first.
    """

    folder: StationFolder
    key: SecretKey
    records: tuple[CalibrationRecord, ...]

    def newest(self, bundle_sha256: str) -> CalibrationRecord:
        """The record that holds for a bundle.

        Raises:
            CalibrationError: There is none.
        """
        found = newest_for(self.records, bundle_sha256)
        if found is None:
            raise CalibrationError(
                f"bundle {bundle_sha256[:16]} has never been calibrated here",
                where=self.folder.records,
                cure=f"kenpin calibrate fit --good DIR --masters DIR {self.folder.as_option}",
            )
        return found

    def standing(self, record: CalibrationRecord) -> CalibrationRecord:
        """The record that set the thresholds that this one has."""
        return self.records[record.fresh.of_rev - 1] if record.fresh else record

    def append(self, content: Mapping[str, Any]) -> CalibrationRecord:
        """Write the change down in the audit, then sign the record and append it.

        Args:
            content: The fields of the record, without those that say when and where in the book it stands.

        Raises:
            CalibrationError: It cannot be written.
            StoreError: The audit cannot be written; nothing was changed.
        """
        place = {
            "rev": len(self.records) + 1,
            "created_ms": now_ms(),
            "software": __version__,
            "previous_sha256": head(self.folder.records),
            **{name: audit.one_line(content[name]) for name in ("by", "why")},
        }
        record = CalibrationRecord(**{**content, **place})
        old = _in_words(self.records[-1]) if self.records else ""
        audit.append(self.folder, audit.Entry("thresholds", record.by, old, _in_words(record), record.why))
        with writing(self.folder):
            append_record(self.folder.records, record, self.key)
        return record


def open_book(folder: StationFolder) -> Book:
    """Read and verify all records. The caller holds `calibration_lock`.

    Raises:
        CalibrationError: A record does not verify, the key is gone, or the folder cannot be written.
    """
    with writing(folder):
        key = station_key(folder)
        return Book(folder, key, tuple(load_records(folder.records, key.public)))


def calibration_lock(folder: StationFolder) -> ExitStack:
    """Let nobody else calibrate this station meanwhile.

    Raises:
        CalibrationError: Another calibration is running, or the folder cannot be written.
    """
    folder.create()
    with writing(folder):
        try:
            return sole_use(folder.root / "calibration.lock")
        except BlockingIOError:
            raise CalibrationError(
                "another calibration of this station is running",
                where=folder.root,
                cure="wait until it has ended, look at its result, then start again if you still want to",
            ) from None


@contextmanager
def writing(folder: StationFolder) -> Iterator[None]:
    """Turn what the file system raises into a CalibrationError."""
    try:
        yield
    except OSError as error:
        raise CalibrationError(
            f"the station's folder cannot be written: {error.strerror}",
            where=error.filename or folder.root,
            cure="make room, or calibrate as the user that owns it",
        ) from None


def _in_words(record: CalibrationRecord) -> str:
    limits = f"T1 {record.t1:.9g}, T2 {record.t2:.9g}"
    return f"record {record.rev}, {record.state}, bundle {record.bundle_sha256[:16]}, {limits}"
