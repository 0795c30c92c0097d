"""The series that a station offers to Prometheus: their names, and how they are read from the vitals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from kenpin.edge_runtime.series_name import parse_series


@dataclass(frozen=True)
class Series:
    """One series.

    Attributes:
        kind: A counter only grows while its process lives.
        labels: Names of its labels.
        about: What it says.
    """

    kind: Literal["counter", "gauge"]
    labels: tuple[str, ...]
    about: str


SERIES: Mapping[str, Series] = {
    "parts_total": Series("counter", ("verdict",), "Parts by verdict."),
    "causes_total": Series("counter", ("cause",), "Parts without a decision by cause."),
    "findings_total": Series("counter", ("camera", "finding"), "Frames that were no good pictures of a part."),
    "events_total": Series("counter", (), "Events of parts that are NG or REVIEW."),
    "events_acked_total": Series("counter", (), "Events that the broker acknowledged."),
    "broker_rejected_total": Series("counter", (), "Events that the broker refused; they are sent again."),
    "no_subscriber_total": Series("counter", (), "Events that the broker took and nobody subscribes to."),
    "broker_connections_total": Series("counter", (), "Connections that the broker accepted."),
    "broker_connected": Series("gauge", (), "1 while the broker has accepted the publisher's connection."),
    "broker_unstable": Series("gauge", (), "1 while the broker drops the connection again and again."),
    "broker_denied": Series(
        "gauge", (), "1 while the broker refuses the station or messages, or has no valid certificate."
    ),
    "commands_total": Series("counter", (), "Commands over MQTT that were carried out."),
    "commands_refused_total": Series("counter", ("reason",), "Messages at cmd/ that were refused."),
    "frames_total": Series("counter", ("camera",), "Frames that a camera delivered."),
    "frame_faults_total": Series("counter", ("camera",), "Parts of which a camera had no usable frame."),
    "dropped_total": Series("counter", ("stage", "reason", "camera"), "What was dropped, and why."),
    "restarts_total": Series("counter", ("role",), "Times that a process was started again."),
    "trigger_restarts_total": Series("counter", (), "Times that the line's counter of triggers was set anew."),
    "decision_seconds": Series("gauge", ("quantile",), "From the exposure to the verdict, last 10,000 parts."),
    "engine_seconds": Series("gauge", ("quantile",), "Time of the engine, last 10,000 parts."),
    "commit_seconds": Series("gauge", ("quantile",), "Time to bring a record to the disk, last 10,000 parts."),
    "frame_age_seconds": Series("gauge", (), "Time since the last part."),
    "queue_depth": Series("gauge", (), "Parts that wait for the station."),
    "owed_parts": Series("gauge", (), "Parts whose record waits for the store."),
    "elapsed_seconds": Series("gauge", (), "Time since the station's start."),
    "ready": Series("gauge", (), "1 while the station can release parts."),
    "camera_up": Series("gauge", ("camera",), "1 while a camera delivers."),
    "process_up": Series("gauge", ("role",), "1 while a process runs."),
    "process_age_seconds": Series("gauge", ("role",), "Time since a process said how it is."),
    "resident_bytes": Series("gauge", (), "Memory of the station's process."),
    "evidence_bytes": Series("gauge", (), "Size of all pictures that are kept."),
    "score_psi": Series("gauge", (), "How far the scores have moved from the calibration's (PSI)."),
    "temperature_celsius": Series("gauge", (), "Highest temperature of the machine; 0 = not known."),
    "power_watts": Series("gauge", (), "What a Jetson's module takes; not there where nothing measures it."),
    "outbox_depth": Series("gauge", (), "Events that wait for the broker."),
    "outbox_oldest_seconds": Series("gauge", (), "Age of the oldest event that waits."),
    "outbox_dropped": Series("gauge", (), "Events that were evicted before they were acknowledged, ever."),
    "disk_free_bytes": Series("gauge", (), "Free space where the station's folder is."),
    "clock_synced": Series("gauge", (), "1 while the clock is synchronised."),
    "bundle_on_trial": Series("gauge", (), "1 while a new bundle is on trial."),
    "shadow_parts_total": Series("counter", (), "Parts that the watched bundle has judged too."),
    "shadow_disagreements_total": Series("counter", (), "Parts that it would have judged otherwise."),
    "bundle_info": Series("gauge", ("model", "precision", "bundle_sha256"), "What judges the parts."),
}


def families(numbers: Iterable[tuple[str, float]]) -> tuple[list[Metric], int]:
    """Sort numbers into families of Prometheus.

    Args:
        numbers: Names of series with their labels, as `kenpin.edge_runtime.series_name` has them, and values.

    Returns:
        The families, and how many numbers belong to no known series.
    """
    found: dict[str, Metric] = {}
    unknown = 0
    for text, value in numbers:
        name, labels = parse_series(text)
        series = SERIES.get(name)
        if series is None:
            unknown += 1
            continue
        family = found.setdefault(name, _family(name, series))
        family.add_metric([labels.get(label, "") for label in series.labels], value)  # type: ignore[attr-defined]
    return list(found.values()), unknown


def _family(name: str, series: Series) -> Metric:
    make = CounterMetricFamily if series.kind == "counter" else GaugeMetricFamily
    return make(f"kenpin_{name}", series.about, labels=series.labels)
