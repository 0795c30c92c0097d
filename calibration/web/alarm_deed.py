"""What an operator does to an alarm at the page: into the audit first, then the same as by a command over MQTT.

The station's table of alarms is the truth for every process. A deed is on disk, with its event, when the page
answers, whether the station runs or not; the station goes on from there.
"""

from __future__ import annotations

from contextlib import closing

from kenpin import audit
from kenpin.calibration.web.line_alarms import SHELVE_MIN, Deed, ShownAlarm
from kenpin.edge_runtime.alarm import Action
from kenpin.edge_runtime.alarm_board import AlarmBoard
from kenpin.edge_runtime.announce import Identity
from kenpin.edge_runtime.database import connect, transaction
from kenpin.edge_runtime.vitals import read_vitals
from kenpin.station_folder import StationFolder

_WORDS = {
    "ack": "acknowledged",
    "reset": "reset",
    "shelve": f"set aside for {SHELVE_MIN} min",
    "unshelve": "brought back",
}


def do_to_alarm(folder: StationFolder, station: str, alarm: ShownAlarm, deed: Deed, *, by: str) -> str:
    """Do it, if the alarm still is the one that was looked at.

    Args:
        folder: The station's folder.
        station: The station's id.
        alarm: The alarm as it was read just now.
        deed: What.
        by: Who.

    Returns:
        Why it was not done, in words; empty when it was.

    Raises:
        StoreError: The audit or the database cannot be written; the alarm stands as it did.
    """
    key, standing = alarm.spec.key, alarm.standing
    old = f"{key} {standing.state.value}, raise {standing.occurrence}"
    audit.append(folder, audit.Entry("alarm", by, old, f"{key} {_WORDS[deed]}"))
    action = Action(deed, by, SHELVE_MIN if deed == "shelve" else 0.0, standing.occurrence)
    with closing(connect(folder.database)) as connection:
        board = AlarmBoard(connection, _identity(folder, station))
        with transaction(connection):
            refusal = board.act(key, action)
    if refusal:
        audit.append(folder, audit.Entry("alarm", by, f"{key} {_WORDS[deed]}", "not done", refusal))
    return refusal


def _identity(folder: StationFolder, station: str) -> Identity:
    """As the station itself speaks, as far as it has told."""
    told = read_vitals(folder.run).get("station")
    if told is None or not told.session_id:
        return Identity(station)
    return Identity(station, test=told.texts.get("test") == "1", session_id=told.session_id)
