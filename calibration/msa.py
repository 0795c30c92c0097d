"""Measurement system analysis by attributes: the same parts, judged several times by the station or by people.

Effectiveness, miss rate, false alarm rate and kappa are those of AIAG, Measurement Systems Analysis, 3rd
edition, "Attribute Measurement Systems Study". Repeats of one part are not independent, so bounds count parts.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kenpin.calibration.scores import PictureScore, ScoreSet
from kenpin.calibration.threshold import caught_bound, false_call_bound
from kenpin.errors import DataError, reason_of
from kenpin.record import Bound

LEAST_REPEATS = 3
STATION = "station"
_BAD = {"good": False, "bad": True}
_STOPPED = {"ok": False, "stopped": True}
# Effectiveness at least, misses at most, false alarms at most.
_ACCEPTABLE, _MARGINAL = (0.90, 0.02, 0.05), (0.80, 0.05, 0.10)

Grade = Literal["acceptable", "marginal", "unacceptable", "incomplete"]


@dataclass(frozen=True)
class Judgement:
    """One part, judged once.

    Attributes:
        appraiser: Who judged.
        part: The part.
        is_bad: What it truly is.
        stopped: What was said: REVIEW and NG stop it.
    """

    appraiser: str
    part: str
    is_bad: bool
    stopped: bool


@dataclass(frozen=True)
class Study:
    """What one appraiser's judgements show.

    Attributes:
        appraiser: Who.
        parts: Number of parts.
        repeats: How often each was judged, at the least.
        effective: Parts that were judged right every time: lower limit of the share.
        same: Parts that were judged the same every time: lower limit of the share.
        miss: Share of the judgements of bad parts that let them pass; `None` without bad parts.
        missed: Bad parts that were let pass at least once: upper limit of the share.
        false_alarm: Share of the judgements of good parts that stopped them; `None` without good parts.
        alarmed: Good parts that were stopped at least once: upper limit of the share.
        kappa: Cohen's kappa against what the parts truly are; `None` where only one kind was shown.
        kappa_at_least: Lower limit, from those of misses and false alarms at 97.5 % each.
        grade: Against the limits of AIAG; `incomplete` where what was shown is within them, but one kind was
            not shown at all.
    """

    appraiser: str
    parts: int
    repeats: int
    effective: Bound
    same: Bound
    miss: float | None
    missed: Bound | None
    false_alarm: float | None
    alarmed: Bound | None
    kappa: float | None
    kappa_at_least: float | None
    grade: Grade


def station_judgements(scores: ScoreSet, t1: float) -> list[Judgement]:
    """What the station says of parts that were shown several times, each picture of a group once."""
    good = [Judgement(STATION, f"good {s.group}", False, s.score >= t1) for s in _once(scores.good)]
    return good + [Judgement(STATION, f"master {s.group}", True, s.score >= t1) for s in _once(scores.masters)]


def _once(scores: Sequence[PictureScore]) -> list[PictureScore]:
    """Without copies: of course they are judged alike."""
    return list({s.sha256 or s.name: s for s in scores}.values())


def read_judgements(path: Path) -> list[Judgement]:
    """Read judgements: CSV of part, reference (good or bad), decision (ok or stopped) and perhaps appraiser.

    Raises:
        DataError: The file cannot be read, or a line is wrong; it is named.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines, restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"cannot read the judgements: {reason_of(error)}", where=path, cure="give CSV in UTF-8"
        ) from None
    found = []
    for number, row in enumerate(rows, start=2):
        part, reference, decision = (row.get(name) or "" for name in ("part", "reference", "decision"))
        if not part or reference not in _BAD or decision not in _STOPPED:
            raise DataError(
                f"not a judgement: part {part!r}, reference {reference!r}, decision {decision!r}",
                where=f"{path}, line {number}",
                cure="give part, reference (good or bad) and decision (ok or stopped), separated by commas",
            )
        found.append(Judgement(row.get("appraiser") or STATION, part, _BAD[reference], _STOPPED[decision]))
    return found


def study(judgements: Sequence[Judgement]) -> list[Study]:
    """One study per appraiser, in the order of their names.

    Raises:
        DataError: There are no judgements, a part was judged too seldom, or is called both good and bad.
    """
    names = sorted({j.appraiser for j in judgements})
    if not names:
        raise DataError("nothing was judged", cure="show parts, each of them three times")
    truly: dict[str, bool] = {}
    for judgement in judgements:
        if truly.setdefault(judgement.part, judgement.is_bad) != judgement.is_bad:
            raise DataError(
                "the part is called both good and bad", where=judgement.part, cure="correct its reference"
            )
    return [_study(name, [j for j in judgements if j.appraiser == name]) for name in names]


def _study(appraiser: str, judgements: Sequence[Judgement]) -> Study:
    parts: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        parts.setdefault(judgement.part, []).append(judgement)
    _check(appraiser, parts)
    good = [shown for shown in parts.values() if not shown[0].is_bad]
    bad = [shown for shown in parts.values() if shown[0].is_bad]
    right = sum(all(j.stopped == j.is_bad for j in shown) for shown in parts.values())
    same = sum(len({j.stopped for j in shown}) == 1 for shown in parts.values())
    effective = caught_bound(right, len(parts))
    miss, false_alarm = _wrong_share(bad), _wrong_share(good)
    share = sum(map(len, bad)) / len(judgements)
    kappa = low = None
    if miss is not None and false_alarm is not None:
        kappa = _kappa(share, miss, false_alarm)
        limits = [_wrong_parts(kind, confidence=0.975) for kind in (bad, good)]
        low = _kappa(share, *(limit.bound for limit in limits if limit is not None))
    return Study(
        appraiser=appraiser,
        parts=len(parts),
        repeats=min(map(len, parts.values())),
        effective=effective,
        same=caught_bound(same, len(parts)),
        miss=miss,
        missed=_wrong_parts(bad),
        false_alarm=false_alarm,
        alarmed=_wrong_parts(good),
        kappa=kappa,
        kappa_at_least=low,
        grade=_grade(effective.seen / effective.of, miss, false_alarm),
    )


def _check(appraiser: str, parts: dict[str, list[Judgement]]) -> None:
    for part, shown in parts.items():
        if len(shown) < LEAST_REPEATS:
            raise DataError(
                f"{appraiser} judged part {part} {len(shown)} of {LEAST_REPEATS} times",
                where=part,
                cure=f"show every part {LEAST_REPEATS} times; a column group in manifest.csv says which "
                "pictures are of one part",
            )


def _wrong_share(parts: Sequence[Sequence[Judgement]]) -> float | None:
    wrong = [j.stopped != j.is_bad for shown in parts for j in shown]
    return sum(wrong) / len(wrong) if wrong else None


def _wrong_parts(parts: Sequence[Sequence[Judgement]], *, confidence: float = 0.95) -> Bound | None:
    wrong = sum(any(j.stopped != j.is_bad for j in shown) for shown in parts)
    return false_call_bound(wrong, len(parts), confidence=confidence) if parts else None


def _kappa(share: float, miss: float, false_alarm: float) -> float:
    """Cohen's kappa of the decision against the truth; it falls with both rates (Cohen 1960).

    Args:
        share: Of judgements that are of bad parts.
        miss: Rate among these.
        false_alarm: Rate among the others.
    """
    stopped = share * (1 - miss) + (1 - share) * false_alarm
    agreed = share * (1 - miss) + (1 - share) * (1 - false_alarm)
    by_chance = share * stopped + (1 - share) * (1 - stopped)
    return (agreed - by_chance) / (1 - by_chance)


def _grade(effectiveness: float, miss: float | None, false_alarm: float | None) -> Grade:
    def within(limits: tuple[float, float, float]) -> bool:
        return effectiveness >= limits[0] and (miss or 0.0) <= limits[1] and (false_alarm or 0.0) <= limits[2]

    if not within(_MARGINAL):
        return "unacceptable"
    if miss is None or false_alarm is None:
        return "incomplete"
    return "acceptable" if within(_ACCEPTABLE) else "marginal"
