"""What the page shows of a position is what the signed record says; doubtful parts and the camera's bars."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kenpin.book import calibration_lock
from kenpin.bundle import install_bundle, open_bundle
from kenpin.calibration.confirm import counts_with_fresh
from kenpin.calibration.web import calibrate_parts, calibrate_shown
from kenpin.calibration.web.calibrate_camera import Measured, bars
from kenpin.calibration.web.calibrate_limits import assess, nearest, suggest
from kenpin.calibration.web.calibrate_parts import NamedMaster, Shown, ShownPart, read_shown
from kenpin.calibration.web.calibrate_plot import BOTTOM, LEFT, RIGHT, draw_plot
from kenpin.calibration.web.calibrate_run import Label, Run, Start
from kenpin.calibration.web.calibrate_shown import learned_from
from kenpin.calibration.web.calibrate_sign import sign
from kenpin.calibration.web.signature import Signature
from kenpin.calibration.words import describe
from kenpin.edge_runtime.database import open_database
from kenpin.errors import CalibrationError
from kenpin.signing import PublicKey
from kenpin.station_folder import StationFolder
from tests.calibration.web.page_station import add_parts

GOOD = [10.0 + 0.1 * k for k in range(50)]
MASTERS = [20.0 + k for k in range(12)]


def part(seq: int, score: float) -> ShownPart:
    return ShownPart(seq, f"p{seq}", 2000 * seq, score, "", "")


def shown(good: list[float], masters: list[float]) -> Shown:
    named = [
        NamedMaster(part(1000 + k, score), Label("master", f"M-{k:02}", "dent"))
        for k, score in enumerate(sorted(masters))
    ]
    return Shown([part(k + 1, score) for k, score in enumerate(good)], named)


def test_the_suggestion_may_be_signed() -> None:
    seen = shown(GOOD, MASTERS)
    found = assess(seen, *_place(seen))
    assert found.is_suggested
    assert not found.refusal
    assert (found.stopped, found.good, found.passing) == (0, 50, [])
    assert found.calls is not None
    assert found.caught is not None
    assert (found.calls.bound, found.caught.bound, found.more) == (0.0582, 0.779, 249)
    assert found.weakest == ("M-00", 20.0)


def test_a_master_that_would_pass_is_named_and_refused() -> None:
    found = assess(shown(GOOD, MASTERS), 21.5, 25.0)
    assert found.refusal == "limits_passing"
    assert found.passing == ["M-00", "M-01"]
    assert found.in_review == 3


def test_too_many_good_parts_as_ng_are_refused() -> None:
    seen = shown(GOOD, MASTERS)
    assert assess(seen, 14.85, 14.85).refusal == "limits_many"
    assert assess(seen, 14.85, 15.0).refusal == ""  # on the review bench it is no NG


def test_too_few_good_parts_are_refused() -> None:
    seen = shown(GOOD[:4], MASTERS)
    assert assess(seen, *_place(seen)).refusal == "limits_few"


@pytest.mark.parametrize(("t1", "is_proved"), [(14.0, False), (16.0, True)])
def test_only_above_all_good_parts_a_hand_keeps_the_proof(t1: float, *, is_proved: bool) -> None:
    found = assess(shown(GOOD, MASTERS), t1, 20.0)
    assert (found.calls is not None) is is_proved
    assert found.more == 299


def test_pictures_that_were_trained_on_are_refused_at_every_position() -> None:
    seen = shown(GOOD, MASTERS)
    known = replace(seen, learned=seen.good[:1])
    assert assess(known, *_place(known)).refusal == assess(known, 21.5, 25.0).refusal == "limits_learned"


def test_a_bundle_says_what_it_was_trained_on(
    station: StationFolder, make_bundle: Callable[..., Path], trusted: Path
) -> None:
    bundle = open_bundle(make_bundle("2", learned_from=("ab" * 32,)), [PublicKey.load(trusted)])
    installed = install_bundle(bundle, station.bundles)
    assert learned_from(station, installed.name) == {"ab" * 32}
    assert learned_from(station, "0" * 64) == frozenset()


def test_without_masters_nothing_is_known_of_escapes() -> None:
    seen = shown(GOOD, [])
    found = assess(seen, *_place(seen))
    assert found.caught is None
    assert found.weakest is None


def test_the_nearest_are_the_highest_good_parts_and_the_lowest_masters() -> None:
    near = nearest(shown(GOOD, MASTERS), 14.85, 20.5)
    assert [n.seq for n in near] == [47, 48, 49, 50, 1000, 1001, 1002, 1003]
    assert [n.verdict for n in near] == ["OK", "OK", "OK", "REVIEW", "REVIEW", "NG", "NG", "NG"]
    assert len(nearest(shown(GOOD, MASTERS[:1]), 1.0, 2.0)) == 8


def test_a_part_far_above_the_others_is_doubted() -> None:
    far = calibrate_parts._far_out([part(k, score) for k, score in enumerate([*GOOD, 21.0, 40.0])])
    assert [p.score for p in far] == [40.0]
    assert not calibrate_parts._far_out([part(k, 10.0 + k) for k in range(7)])


def test_the_drawing_stands_still_while_thresholds_move() -> None:
    seen = shown(GOOD, MASTERS)
    one, other = draw_plot(seen, 12.0, 12.0), draw_plot(seen, 500.0, 500.0)
    assert (one.low, one.high, one.bars) == (other.low, other.high, other.bars)
    assert LEFT < one.t1_x == one.t2_x < other.t1_x == RIGHT
    assert all(y + height == pytest.approx(BOTTOM, abs=0.1) for _, y, _, height in one.bars)


def test_equal_scores_can_be_drawn() -> None:
    assert draw_plot(shown([3.0] * 5, []), 3.0, 3.0).bars


@pytest.fixture
def sign_at(station: StationFolder, make_bundle: Callable[..., Path], trusted: Path) -> Callable[..., object]:
    sha256 = open_bundle(make_bundle("1"), [PublicKey.load(trusted)]).sha256
    start = Start("sato", sha256, "int8", 0)

    def at(seen: Shown, t1: float, t2: float) -> object:
        return sign(station, start, seen, assess(seen, t1, t2), Signature("sato", "new lens"))

    return at


def test_a_position_by_hand_is_signed_as_one(sign_at: Callable[..., object]) -> None:
    record = sign_at(shown(GOOD, MASTERS), 14.0, 20.5)
    assert (record.t1, record.t2, record.rank, record.rev) == (14.0, 20.5, 0, 2)  # type: ignore[attr-defined]
    assert record.false_calls is None  # type: ignore[attr-defined]


def test_only_parts_that_were_scored_for_a_calibration_count(folder: StationFolder) -> None:
    add_parts(folder, ["NG"] * 6)
    with closing(open_database(folder.database)) as connection:
        connection.execute("UPDATE part SET cause = 'calibrating' WHERE seq IN (2, 4, 5)")
        connection.execute("UPDATE part SET score = NULL, cause = 'blurred' WHERE seq = 3")
    seen = read_shown(folder.database, Run(Start("sato", "b", "int8", 1), 4, "good", None, None))
    assert [p.seq for p in seen.good] == [2, 4]
    assert [p.seq for p in seen.newest] == [5]
    assert seen.unscored == {"blurred": 1}


@pytest.mark.parametrize(
    ("dated_ms", "captured_s", "minutes"),
    [
        ((1_795_810_000_000, 1_795_810_120_000, 1_795_810_240_000), (60, 180, 300), 4),
        ((4_000, 1_795_810_000_000, 1_795_810_120_000), (60, 180, 300), 4),  # the clock is set meanwhile
        ((1_795_810_000_000, 1_795_809_000_000, 1_795_809_120_000), (60, 180, 300), 4),  # or set back
        (
            (1_795_810_000_000, 1_795_810_180_000, 1_795_810_240_000),
            (900, 60, 120),
            4,
        ),  # the machine started anew
    ],
)
def test_a_clock_that_is_set_does_not_lengthen_the_time_in_which_parts_were_shown(
    folder: StationFolder, dated_ms: tuple[int, ...], captured_s: tuple[int, ...], minutes: int
) -> None:
    add_parts(folder, ["OK"] * 3)
    with closing(open_database(folder.database)) as connection:
        for seq, at in enumerate(zip(dated_ms, captured_s, strict=True), start=1):
            change = "cause = 'calibrating', ts_ms = ?, captured_mono_ns = ? * 1000000000"
            connection.execute(f"UPDATE part SET {change} WHERE seq = ?", (*at, seq))
    seen = read_shown(folder.database, Run(Start("sato", "b", "int8", 0), None, "good", None, None))
    assert (seen.origin.minutes, seen.minutes) == (minutes, minutes)


@settings(max_examples=15, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(
    good=st.lists(st.floats(0, 50, width=32), min_size=5, max_size=30),
    masters=st.lists(st.floats(30, 90, width=32), min_size=1, max_size=12),
    move=st.one_of(st.none(), st.tuples(st.floats(-5, 30), st.floats(0, 30))),
)
def test_what_is_shown_is_what_is_signed(
    sign_at: Callable[..., object], good: list[float], masters: list[float], move: tuple[float, float] | None
) -> None:
    seen = shown(good, masters)
    t1, t2 = _place(seen)
    if move is not None:
        t1 += move[0]
        t2 = t1 + move[1]
    found = assess(seen, t1, t2)
    if found.passing:
        with pytest.raises(CalibrationError, match="would pass"):
            sign_at(seen, t1, t2)
        return
    record = sign_at(seen, t1, t2)
    assert (record.t1, record.t2) == (t1, t2)  # type: ignore[attr-defined]
    assert record.false_calls == found.calls  # type: ignore[attr-defined]
    assert record.rank == (1 if found.is_suggested else 0)  # type: ignore[attr-defined]
    if found.is_suggested:
        assert record.caught == found.caught  # type: ignore[attr-defined]


def test_parts_that_were_left_out_stand_in_the_record(sign_at: Callable[..., object]) -> None:
    seen = replace(shown(GOOD, MASTERS), left=[part(17, 9.0), part(31, 9.0)])
    record = sign_at(seen, *_place(seen))
    assert record.why == "new lens (left out: seq 17, 31)"  # type: ignore[attr-defined]
    assert record.origin.minutes == pytest.approx(49 * 2 / 60)  # type: ignore[attr-defined]
    assert record.good["seq 1"] == 10.0  # type: ignore[attr-defined]


def test_who_leaves_the_highest_out_proves_nothing(sign_at: Callable[..., object]) -> None:
    out = [part(100 + k, 15.0 + k) for k in range(3)]
    seen = replace(shown(GOOD, MASTERS), left=out, left_good=out)
    found = assess(seen, *_place(seen))
    assert (found.calls, found.left, found.is_alone, found.more) == (None, 3, True, 299)
    assert assess(seen, 18.5, 20.0).calls is None  # a hand has placed it, in view of these scores
    record = sign_at(seen, *_place(seen))
    assert (record.false_calls, record.state) == (None, "TRIAL")  # type: ignore[attr-defined]
    assert record.method.endswith("; left out of the parts shown as good, although T1 stops them: 3")  # type: ignore[attr-defined]
    assert "false calls: NOT PROVED" in describe(record)  # type: ignore[arg-type]
    assert not counts_with_fresh(record)  # type: ignore[arg-type]


def test_who_leaves_low_ones_out_proves_as_much_as_before(sign_at: Callable[..., object]) -> None:
    seen = replace(shown(GOOD, MASTERS), left_good=[part(100, 9.0)])
    found = assess(seen, *_place(seen))
    assert found.calls is not None
    assert found.calls == sign_at(seen, *_place(seen)).false_calls  # type: ignore[attr-defined]


def test_what_the_model_was_trained_on_is_left_out_for_that(
    folder: StationFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = [replace(part(1, 20.0), image_sha256="ab" * 32), part(2, 20.0)]
    monkeypatch.setattr(calibrate_shown, "read_shown", lambda *_: Shown(left_good=out))
    monkeypatch.setattr(calibrate_shown, "_manifest", lambda *_: {"learned_from": ["ab" * 32]})
    run = Run(Start("s", "f" * 64, "int8", 0), None, "good", None, None)
    assert calibrate_shown.shown_for(folder, run).left_good == out[1:]


def test_another_bundle_is_not_signed_for(station: StationFolder) -> None:
    seen = shown(GOOD, MASTERS)
    with pytest.raises(CalibrationError, match="another bundle"):
        sign(station, Start("s", "f" * 64, "int8", 0), seen, assess(seen, *_place(seen)), Signature("s", "w"))
    with calibration_lock(station):
        assert not station.records.exists()


def test_before_the_first_sign_off_the_bars_have_zones_of_any_camera() -> None:
    last = [Measured(ts_ms=k, light_abs=100.0, focus_abs=0.5) for k in range(12)]
    assert {bar.key: bar.state for bar in bars(last)} == {
        "bar_light": "ok",
        "bar_clipped": "ok",
        "bar_focus": "ok",
        "bar_place": "open",
        "bar_steady": "ok",
    }
    assert bars(last[:3])[-1].state == "open"


@pytest.mark.parametrize(
    ("changes", "bad"),
    [
        ({"light_abs": 120.0}, "bar_light"),
        ({"clipped": 0.02}, "bar_clipped"),
        ({"focus_abs": 0.1}, "bar_focus"),
        ({"shift": 0.1}, "bar_place"),
        ({"match": 0.2}, "bar_place"),
    ],
)
def test_each_measure_has_its_bar(changes: dict[str, float], bad: str) -> None:
    usual = Measured(
        light_abs=100.0,
        light_low=90.0,
        light_high=110.0,
        clipped_max=0.01,
        focus_abs=0.5,
        focus_min=0.3,
        match=0.9,
        match_min=0.7,
        shift=0.01,
        shift_max=0.03,
    )
    assert not [bar for bar in bars([usual]) if bar.state == "bad"]
    seen = bars([usual, usual.model_copy(update=changes)])
    assert [bar.key for bar in seen if bar.state == "bad"] == [bad]
    assert all(0 <= bar.zone[0] <= bar.zone[1] <= 1 and 0 <= bar.at <= 1 for bar in seen)


def test_flicker_is_seen() -> None:
    last = [Measured(ts_ms=k, light_abs=100.0 + 8 * (k % 2)) for k in range(20)]
    assert bars(last)[-1].state == "bad"


def _place(seen: Shown) -> tuple[float, float]:
    suggested = suggest(seen)
    return suggested.t1, suggested.t2


def test_where_a_master_places_t1_the_page_asks_for_as_many_parts_as_the_record() -> None:
    seen = shown(GOOD, [14.75, *MASTERS])
    found = assess(seen, *_place(seen))
    assert (found.is_suggested, found.stopped, found.is_alone, found.more) == (True, 2, True, 299)
    assert not assess(shown(GOOD, MASTERS), *_place(shown(GOOD, MASTERS))).is_alone
    assert assess(seen, 14.7, 14.95).is_alone
