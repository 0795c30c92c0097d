"""The supervisor with real processes."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from kenpin.edge_runtime import child as child_module
from kenpin.edge_runtime import processes
from kenpin.edge_runtime.child import Child, ChildSpec
from kenpin.edge_runtime.roles import STALE_S, station_state
from kenpin.edge_runtime.supervisor import Supervisor
from kenpin.edge_runtime.vitals import Vitals, read_vitals, write_vitals

# What each child does: says that it is ready, beats, and writes its number to a file.
BASE = """
import os, signal, sys, time
from pathlib import Path
from kenpin.edge_runtime.notify import Notifier
from kenpin.edge_runtime.supervisor import end_with_parent
end_with_parent()
notifier = Notifier.from_environment()
root = Path(sys.argv[1])
def live(seconds):
    notifier.ready()
    by = time.monotonic() + seconds
    while time.monotonic() < by:
        notifier.beat()
        time.sleep(0.05)
def on_term(*_):
    with (root.parent / "ends").open("a") as out: out.write(root.name + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, on_term)
with (root / "starts").open("a") as out: out.write(f"{os.getpid()}\\n")
"""
# The same for one that goes on when all the others have started, however long that takes.
LAST = """
while not all((role / "starts").exists() for role in root.parent.iterdir() if role.is_dir()): time.sleep(0.02)
"""


def spec(tmp_path: Path, role: str, body: str, **changes: Any) -> ChildSpec:
    (tmp_path / role).mkdir()
    return ChildSpec(role, (sys.executable, "-c", BASE + body, str(tmp_path / role)), **changes)


def starts(tmp_path: Path, role: str) -> list[int]:
    path = tmp_path / role / "starts"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def run(tmp_path: Path, *specs: ChildSpec, until: Callable[[], object] | None = None) -> int:
    """Supervise; when the condition holds, ask it to end."""
    supervisor = Supervisor(specs, tmp_path)
    over = threading.Event()

    def end() -> None:
        by_s = time.monotonic() + 120
        while until is not None and not until() and time.monotonic() < by_s:
            if over.wait(0.02):  # by itself: the signal would end the tests
                return
        os.kill(os.getpid(), signal.SIGTERM)

    ender = threading.Thread(target=end)
    if until is not None:
        ender.start()
    try:
        return supervisor.run()
    finally:
        over.set()
        if until is not None:
            ender.join()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_the_end_of_the_leading_child_ends_all_in_their_order(tmp_path: Path) -> None:
    code = run(
        tmp_path,
        spec(tmp_path, "station", LAST + "live(0.1)"),
        spec(tmp_path, "publisher", "live(999)"),
        spec(tmp_path, "capture-0", "live(999)"),
    )
    assert code == 0
    assert (tmp_path / "ends").read_text().split() == ["publisher", "capture-0"]


def test_a_signal_ends_all_in_their_order_and_leaves_nobody(tmp_path: Path) -> None:
    names = ("station", "publisher")
    specs = [spec(tmp_path, name, "live(999)") for name in names]
    assert run(tmp_path, *specs, until=lambda: all(starts(tmp_path, name) for name in names)) == 0
    assert (tmp_path / "ends").read_text().split() == list(names)
    assert not any(alive(pid) for name in names for pid in starts(tmp_path, name))


@pytest.mark.parametrize("code", [1, 2])
def test_what_does_not_come_up_at_the_first_start_ends_all_with_its_code(tmp_path: Path, code: int) -> None:
    leading = spec(tmp_path, "station", "live(999)")
    assert run(tmp_path, leading, spec(tmp_path, "capture-0", f"time.sleep(0.3); sys.exit({code})")) == code
    assert len(starts(tmp_path, "capture-0")) == 1


def test_what_comes_up_at_no_later_start_ends_nobody_else(tmp_path: Path) -> None:
    """It may have been killed at the first one, before it was ready."""
    first = "len((root / 'starts').read_text().split()) == 1"
    killed = spec(tmp_path, "publisher", f"os.kill(os.getpid(), signal.SIGKILL) if {first} else sys.exit(2)")
    leading = spec(tmp_path, "station", "live(999)")
    assert run(tmp_path, leading, killed, until=lambda: len(starts(tmp_path, "publisher")) == 3) == 0
    assert len(starts(tmp_path, "station")) == 1


def test_a_killed_child_is_started_again_and_the_others_go_on(tmp_path: Path) -> None:
    def kill_and_see() -> bool:
        found = starts(tmp_path, "capture-0")
        if found and len(found) < 4 and alive(found[-1]):
            os.kill(found[-1], signal.SIGKILL)
        return len(found) == 4

    leading = spec(tmp_path, "station", "live(999)")
    assert run(tmp_path, leading, spec(tmp_path, "capture-0", "live(999)"), until=kill_and_see) == 0
    assert len(starts(tmp_path, "station")) == 1


def test_a_silent_child_is_killed(tmp_path: Path) -> None:
    stopped: list[bool] = []

    def stop_and_see() -> bool:
        found = starts(tmp_path, "capture-0")
        if len(found) == 1 and not stopped:
            time.sleep(0.2)
            os.kill(found[0], signal.SIGSTOP)
            stopped.append(True)
        return len(found) > 1

    capture = spec(tmp_path, "capture-0", "live(999)", watchdog_s=0.8)
    assert run(tmp_path, spec(tmp_path, "station", "live(999)"), capture, until=stop_and_see) == 0
    assert stopped
    assert len(starts(tmp_path, "capture-0")) >= 2  # on a machine that stands still, a silent one again


def test_a_crash_loop_is_given_up_for_a_while_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "_BACK_OFF_S", (0.01, 0.05))

    def told() -> bool:
        supervisor = read_vitals(tmp_path).get("supervisor")
        states.append(supervisor.state if supervisor is not None else "")
        return supervisor is not None and "tried again later" in supervisor.reason

    states: list[str] = []
    capture = spec(tmp_path, "capture-0", "live(0.1); sys.exit(1)")
    assert run(tmp_path, spec(tmp_path, "station", "live(999)"), capture, until=told) == 0
    vitals = read_vitals(tmp_path)["supervisor"]
    assert (states[-1], vitals.state) == ("DEGRADED", "STOPPED")
    assert "capture-0: it ended with exit code 1" in vitals.reason
    assert vitals.numbers['process_up{role="station"}'] == 1
    assert vitals.numbers['process_up{role="capture-0"}'] == 0
    assert len(starts(tmp_path, "capture-0")) == child_module.BUDGET


def test_a_gpu_that_is_lost_is_taken_again_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "_BACK_OFF_S", (60.0, 60.0))
    body = 'live(0.1)\nif len((root / "starts").read_text().split()) == 1: sys.exit(3)\nlive(0.5)'
    assert run(tmp_path, spec(tmp_path, "station", body)) == 0
    assert len(starts(tmp_path, "station")) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whoever_asks_twice_does_not_wait(tmp_path: Path, wait_for: Any, number: signal.Signals) -> None:
    deaf = "for n in (signal.SIGTERM, signal.SIGINT): signal.signal(n, signal.SIG_IGN)\nlive(999)\n"
    roles = ("station", "publisher", "health")
    supervisor = Supervisor([spec(tmp_path, role, deaf, stop_s=120.0) for role in roles], tmp_path)

    def ask_twice() -> None:
        try:
            wait_for(lambda: all(child.was_ready for child in supervisor._children), "the children")
        finally:  # or they would run on
            os.kill(os.getpid(), number)
            asked_s.append(time.monotonic())
            wait_for(lambda: supervisor._stopping, "the first one to be heard")
            os.kill(os.getpid(), number)

    asked_s: list[float] = []
    asker = threading.Thread(target=ask_twice)
    asker.start()
    assert supervisor.run() == 0
    asker.join()
    assert time.monotonic() - asked_s[0] < 100  # each of the three would have been given 120
    assert not any(alive(pid) for role in roles for pid in starts(tmp_path, role))


def test_a_child_that_lived_long_is_started_again_as_quickly_as_at_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 1000.0
    monkeypatch.setattr(child_module, "time", SimpleNamespace(monotonic=lambda: now_s))
    child = Child(ChildSpec("station", (sys.executable, "-c", "")), "")

    def pause_s(life_s: float) -> float:
        """How long it is left alone after it has lived for so long."""
        nonlocal now_s
        while not child.start_if_due():
            now_s += 0.01
        assert child._process is not None
        child._process.wait()
        now_s += life_s
        assert child.reap()
        ended_s = now_s
        while not child.start_if_due():
            now_s += 0.01
        child.wait_for_end(now_s + 60)
        return now_s - ended_s

    assert [pause_s(1.0) > least for least in (0.07, 0.15, 0.3)] == [True] * 3
    assert pause_s(child_module.WINDOW_S + 1) < 0.15


def test_a_child_that_cannot_be_started_now_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, wait_for: Any
) -> None:
    def no_memory(*_: object, **_kwargs: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    child = Child(ChildSpec("station", (sys.executable, "-c", "import os; os.kill(os.getpid(), 40)")), "")
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", no_memory)
        assert not child.start_if_due()
        assert child.trouble == "station: it could not be started: Cannot allocate memory"
        assert not child.start_if_due()
    assert child.restarts == 0
    wait_for(child.start_if_due, "the next attempt", 5.0)
    wait_for(child.reap, "its end", 30.0)
    assert child.trouble == "station: it was ended by signal 40"  # one of those without a name


def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path, wait_for: Any) -> None:
    (tmp_path / "station").mkdir()
    code = f"""
import sys
from pathlib import Path
from kenpin.edge_runtime.child import ChildSpec
from kenpin.edge_runtime.supervisor import Supervisor
root = Path({str(tmp_path)!r})
command = (sys.executable, "-c", {(BASE + "live(999)")!r}, str(root / "station"))
Supervisor([ChildSpec("station", command)], root).run()
"""
    supervisor = subprocess.Popen([sys.executable, "-c", code])
    wait_for(lambda: starts(tmp_path, "station"), "the child")
    (pid,) = starts(tmp_path, "station")
    supervisor.kill()
    supervisor.wait()
    wait_for(lambda: not alive(pid), "the end of the child")


def test_a_signal_to_the_whole_group_ends_all_in_their_order_too(tmp_path: Path, wait_for: Any) -> None:
    """As of Ctrl-C in a terminal, or of `timeout`: what the station leaves, the publisher must carry away."""
    slow = """
def leave_slowly(*_):
    time.sleep(1)
    on_term()
for number in (signal.SIGTERM, signal.SIGINT): signal.signal(number, leave_slowly)
"""
    quick = "signal.signal(signal.SIGINT, on_term)\n"
    specs = [
        spec(tmp_path, "station", slow + "live(999)"),
        spec(tmp_path, "publisher", quick + "live(999)"),
    ]
    code = f"""
from pathlib import Path
from kenpin.edge_runtime.child import ChildSpec
from kenpin.edge_runtime.supervisor import Supervisor
Supervisor({specs!r}, Path({str(tmp_path)!r})).run()
"""
    supervisor = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    wait_for(lambda: all(starts(tmp_path, one.role) for one in specs), "the children")
    os.killpg(supervisor.pid, signal.SIGINT)
    supervisor.wait()
    assert (tmp_path / "ends").read_text().split() == ["station", "publisher"]


@pytest.mark.parametrize(("manager", "code"), [("@kenpin", 0), ("", -signal.SIGTERM)])
def test_whoever_has_a_manager_ends_in_order_though_the_signal_comes_twice(manager: str, code: int) -> None:
    """From a shutdown, which signals all that runs, and from the supervisor, which kills who stays too long."""
    asked_twice = """
import os, signal
from kenpin.edge_runtime.roles import stop_signals
with stop_signals() as stopping:
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
    assert stopping()
"""
    environment = {**os.environ, "NOTIFY_SOCKET": manager}
    done = subprocess.run([sys.executable, "-c", asked_twice], env=environment, check=False)
    assert done.returncode == code


def test_restarts_leave_no_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "_BACK_OFF_S", (0.0, 0.0))
    monkeypatch.setattr(child_module, "WINDOW_S", 0.0)
    gc.collect()  # what other tests have left open
    before = len(list(Path("/proc/self/fd").iterdir()))
    quick = ChildSpec("capture-0", ("/bin/sh", "-c", f"echo 1 >> {tmp_path}/quick; exit 9"))
    leading = spec(tmp_path, "station", "live(999)")
    counted = tmp_path / "quick"
    assert run(tmp_path, leading, quick, until=lambda: counted.exists() and counted.stat().st_size >= 60) == 0
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


@pytest.mark.parametrize(
    ("told", "is_there", "ends", "is_fault"),
    [
        ("STOPPED", True, False, False),  # it gives back engines; its supervisor does not know yet
        ("STOPPED", False, True, False),  # the supervisor that started this process ends all of them
        ("STOPPED", False, False, True),
        ("RUNNING", True, False, True),  # it hangs
    ],
)
def test_a_station_that_takes_long_to_end_is_not_told_as_a_fault(
    workshop: Any, told: Any, is_there: bool, ends: bool, is_fault: bool
) -> None:
    run = workshop.ready().folder.run
    run.mkdir()
    with subprocess.Popen(["/bin/true"]) as gone:
        pass
    long_ago_ns = time.monotonic_ns() - round((STALE_S + 1) * 1e9)
    pid = os.getpid() if is_there else gone.pid
    write_vitals(run, Vitals(role="station", pid=pid, state=told, written_ns=long_ago_ns))
    write_vitals(run, Vitals(role="supervisor", pid=os.getppid() if ends else 1, state="STOPPED"))
    fault = ("FAULT", "the station's process is not running")
    assert station_state(workshop.folder) == (fault if is_fault else None)


def test_a_station_whose_disk_is_full_is_not_told_as_gone(workshop: Any) -> None:
    run = workshop.ready().folder.run
    run.mkdir()
    long_ago_ns = time.monotonic_ns() - round((STALE_S + 1) * 1e9)
    write_vitals(run, Vitals(role="station", pid=os.getpid(), written_ns=long_ago_ns))
    (run / ".probe").symlink_to("/dev/full")  # what is written there fails as on a full disk
    full = f"the disk of {run} is full: processes cannot tell how they are"
    assert station_state(workshop.folder) == ("FAULT", full)


@pytest.mark.parametrize("name", ["run", "long" * 30])
def test_no_other_user_can_leave_the_children_no_room(tmp_path: Path, name: str) -> None:
    leading = spec(tmp_path, "station", "live(0.1)")
    supervisor = Supervisor([leading], tmp_path / name)
    assert Path(supervisor._address).stat().st_mode & 0o777 == 0o600
    assert supervisor.run() == 0
    assert supervisor._children[0].was_ready


def test_children_are_heard_when_the_run_folder_was_emptied(tmp_path: Path) -> None:
    body = 'live(0.1); (root.parent / "supervisor.sock").unlink(); live(2)'
    leading = spec(tmp_path, "station", body, watchdog_s=1.0)
    run(tmp_path, leading, until=lambda: len(starts(tmp_path, "station")) > 1)
    assert len(starts(tmp_path, "station")) == 1


def test_messages_of_strangers_are_ignored(tmp_path: Path) -> None:
    supervisor = Supervisor([ChildSpec("station", ("/bin/true",))], tmp_path)
    environment = {**os.environ, "NOTIFY_SOCKET": supervisor._address}
    code = "from kenpin.edge_runtime.notify import Notifier; Notifier.from_environment().ready()"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    supervisor._hear()
    assert not supervisor._children[0].was_ready
    supervisor._socket.close()


def test_a_run_that_was_stopped_before_it_began_reports_no_parts_of_an_earlier_one(
    workshop: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = workshop.ready().folder.run
    run.mkdir()
    write_vitals(run, Vitals(role="station", pid=1, numbers={'parts_total{verdict="OK"}': 7.0}))
    monkeypatch.setattr(processes, "Supervisor", lambda *_: SimpleNamespace(run=lambda: 0))
    config = workshop.config("synthetic:cap?rate=5")
    with pytest.raises(click.exceptions.Exit) as ended:
        processes.run_processes(config, workshop.toml("synthetic:cap?rate=5"), source_url=None, max_parts=None)
    assert ended.value.exit_code == 0
    assert "before the station had begun" in capsys.readouterr().err
