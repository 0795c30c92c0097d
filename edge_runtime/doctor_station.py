"""What the doctor looks at on a station: folder, database, bundle, calibration, engine, and its other parts."""

from __future__ import annotations

import contextlib
import errno
import os
import statistics
import time
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from urllib.parse import parse_qs

from kenpin.activation import read_activation
from kenpin.bundle import open_bundle
from kenpin.calibrating import read_calibrating
from kenpin.config import StationConfig
from kenpin.edge_runtime.command_key import load_keys
from kenpin.edge_runtime.damage import find_damage
from kenpin.edge_runtime.database import reading
from kenpin.edge_runtime.doctor import Check, Diagnosis, failed, passed, warned
from kenpin.edge_runtime.doctor_broker import broker_checks
from kenpin.edge_runtime.doctor_camera import camera_checks
from kenpin.edge_runtime.doctor_host import FEWER_FILES, files_left
from kenpin.edge_runtime.doctor_service import service_check
from kenpin.edge_runtime.migrations import MIGRATIONS
from kenpin.edge_runtime.outputs import check_outputs
from kenpin.edge_runtime.readiness import Readiness, check_readiness
from kenpin.edge_runtime.trigger_input import check_trigger
from kenpin.edge_runtime.vitals import read_vitals
from kenpin.errors import private_again
from kenpin.events import now_ms, rfc3339
from kenpin.frame import decode_picture
from kenpin.hold import read_hold
from kenpin.masters_due import read_demand
from kenpin.signing import PublicKey
from kenpin.station_folder import StationFolder, owner_name
from kenpin.station_key import require_key

_RUNS = 20
_OLD_DAYS = 90
_DAY_MS = 24 * 3600 * 1000
_KEYS = "trusted keys"
_DISK_CURES = {
    errno.ENOSPC: "make room on that disk: sudo du -xh --max-depth=2 / | sort -h | tail",
    errno.EDQUOT: "make room, or raise this user's quota",
    errno.EROFS: "the file system is read-only, as after an error of the disk: see dmesg, check it, remount it",
}


def station_checks(config: StationConfig) -> list[Check]:
    """Checks of one station. Where it runs, camera and engine are told from its vitals: they are in use.

    Args:
        config: Its configuration.

    Raises:
        ConfigError: This user may not look into the station's folder.
    """
    folder = StationFolder(config.station.state_dir)
    folder.refuse_stranger()
    checks = [
        Check("folder", lambda: _folder(folder)),
        Check("secrets", lambda: _secrets(config, folder)),
        Check("database", lambda: _database(folder)),
        Check("line", lambda: _line(config)),
        Check(_KEYS, lambda: _keys(config)),
        Check("bundle", lambda: _bundle(config, folder), needs=_KEYS),
        Check("calibration", lambda: _calibration(config, folder), needs=_KEYS),
    ]
    station = read_vitals(folder.run).get("station")
    if station is not None and station.is_alive:
        checks.append(Check("running station", lambda: _running(folder)))
    else:
        checks.append(Check("engine", lambda: _engine(config, folder), needs=_KEYS))
        checks += camera_checks(config, lambda: _ready(config, folder), needs=_KEYS)
    if config.mqtt.url:
        checks += broker_checks(config)
    return [*checks, service_check(config)]


def _folder(folder: StationFolder) -> Diagnosis:
    folder.create()
    probe = folder.root / ".doctor"
    try:
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        cure = _DISK_CURES.get(error.errno or 0, "run this as the station's user")
        if error.errno == errno.ENOSPC and not files_left(folder.root):
            cure = FEWER_FILES
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
        return failed(f"{folder.root} cannot be written: {error.strerror}", cure)
    if strange := _not_usable(folder.root):
        command = f"sudo chown -R {owner_name(os.geteuid())} {quote(str(folder.root))}"
        cure = f"{command}; work there as that user, never as root"
        return failed(f"this user cannot read or write {', '.join(strange)} in {folder.root}", cure)
    if folder.root.stat().st_mode & 0o007:
        words = f"every user of this machine may look into {folder.root}, lock what is there, and stop the line"
        return warned(words, f"chmod o-rwx {quote(str(folder.root))}")
    return passed(str(folder.root))


def _not_usable(root: Path) -> list[str]:
    """What the station writes and this user may not, as after somebody has worked there as root."""
    own = (path for path in sorted(root.iterdir()) if not path.is_symlink() and path.suffix != ".pub")
    return [path.name for path in own if not os.access(path, os.R_OK | os.W_OK)]


def _secrets(config: StationConfig, folder: StationFolder) -> Diagnosis:
    cameras = [parse_qs(url.partition("?")[2]).get("password_file", []) for url in config.source.urls]
    private = [folder.key, folder.engine_key, config.mqtt.password_file, config.mqtt.key_file]
    private += [Path(name) for names in cameras for name in names]
    open_ones = [str(path) for path in private if _is_open(path, 0o077)]
    # A page's key may belong to a group, as those below /etc/ssl/private do.
    open_ones += [str(path) for path in (config.web.tls_key_file,) if _is_open(path, 0o007)]
    if open_ones:
        return failed(f"others can read {', '.join(open_ones)}", private_again(*open_ones))
    if config.commands.keys is not None:
        load_keys(config.commands.keys)
    require_key(folder)
    return passed("only this user can read them")


def _is_open(path: Path | None, mask: int) -> bool:
    with contextlib.suppress(OSError):  # what this user cannot look at, others do not read by it either
        return path is not None and path.is_file() and bool(path.stat().st_mode & mask)
    return False


def _database(folder: StationFolder) -> Diagnosis:
    if not folder.database.exists():
        return passed("none yet: the first run makes it")
    with reading(folder.database) as connection:
        if finding := find_damage(connection):
            cure = "start the station: it moves the damaged file aside and goes on; keep that file"
            return failed(f"damaged: {finding}", cure)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            cure = "update kenpin here, or put back the station's folder as it was before that kenpin"
            return failed("it was written by a newer kenpin", cure)
        # Not how many: to count a year of them reads 10 GB, and the check would be taken for a disk that hangs.
        ends = "SELECT (SELECT coalesce(min(seq), 0) FROM part), (SELECT coalesce(max(seq), 0) FROM part)"
        first, last = connection.execute(ends).fetchone()
    return passed(f"parts {first:,} to {last:,}" if last else "no part yet")


def _line(config: StationConfig) -> Diagnosis:
    """How the line triggers and hears; nothing is opened, as a line would take it for a result."""
    check_trigger(config, has_modbus=bool(config.output.modbus))
    check_outputs(config.output)
    output, by_gpio = config.output, config.source.trigger.startswith("gpio:")
    for is_used, package, extra in (
        (output.modbus, "pymodbus", "modbus"),
        (output.gpio or by_gpio, "gpiod", "gpio"),
    ):
        if is_used and find_spec(package) is None:
            cure = f"pip install 'kenpin[{extra}]'"
            return failed(f"the Python package {package} is not installed", cure)
    if output.log is not None and not os.access(output.log.parent, os.W_OK):
        cure = "make that folder and let the station's user own it"
        return failed(f"{output.log} cannot be written", cure)
    names = [name for name, value in output.model_dump().items() if value]
    return passed(
        f"triggered by {config.source.trigger or 'the source'}, results to {', '.join(names) or 'none'}"
    )


def _trusted(config: StationConfig) -> list[PublicKey]:
    return [PublicKey.load(path) for path in config.station.trusted_keys]


def _keys(config: StationConfig) -> Diagnosis:
    names = [key.name for key in _trusted(config)]
    if not names:
        cure = "set trusted_keys in [station] to the .pub file that lies beside the signing key"
        return failed("none, so no bundle may run", cure)
    return passed(", ".join(names))


def _bundle(config: StationConfig, folder: StationFolder) -> Diagnosis:
    found = open_bundle(folder.installed(), _trusted(config))
    words = f"{found.manifest.product} {found.manifest.version}, signed by {found.signed_by}"
    activation = read_activation(folder)
    if activation.state == "trial":
        words += ", on trial"
    if activation.trouble:
        what, _, cure = activation.trouble.partition("; ")
        return warned(f"{words}; {what}", cure)
    if activation.left and activation.reason:
        given_up = f"{words}; {activation.left[:16]} was given up: {activation.reason}"
        return warned(given_up, "have that bundle mended; kenpin bundle list shows all")
    age_days = (now_ms() - found.manifest.created_ms) // _DAY_MS
    if age_days < -1:
        ahead = f"{words}, made {-age_days} days after what the clock says"
        return failed(ahead, "set the clock, here or on the workstation that exported it")
    if age_days > _OLD_DAYS:
        return warned(f"{words}, {age_days} days old", "ask whether there is a newer one")
    return passed(words)


def _ready(config: StationConfig, folder: StationFolder) -> Readiness:
    return check_readiness(folder, _trusted(config))


def _calibration(config: StationConfig, folder: StationFolder) -> Diagnosis:
    ready = _ready(config, folder)
    ready.close()
    if ready.fault:
        what, _, cure = ready.fault.partition("; ")
        return failed(what, cure or "see the lines above")
    assert ready.record is not None
    if note := read_calibrating(folder):
        words = f"{note.by} calibrates or shows masters since {rfc3339(note.since_ms)}; no part is released"
        cure = "wait until that is ended, or end it on the page; a killed kenpin masters check: begin it anew"
        return failed(words, cure)
    if note := read_hold(folder.paused):
        words = f"paused by {note.by} since {rfc3339(note.since_ms)}; no part is released"
        cure = f"send the command pause with paused = false; where nobody can, remove {folder.paused}"
        return failed(words, cure)
    if due := read_demand(folder).why(now_ms()):
        return failed(due.words, due.cure)
    words = f"record {ready.record.rev}, {ready.record.state}, by {ready.record.by}"
    if ready.record.quality is None:
        cure = "calibrate again with 20 or more pictures: kenpin calibrate fit"
        return warned(f"{words}; no limits for light, focus and position", cure)
    return passed(words)


def _engine(config: StationConfig, folder: StationFolder) -> Diagnosis:
    ready = _ready(config, folder)
    if ready.engine is None:
        return failed("none runs", "see the lines above")
    with closing(ready.engine) as engine:
        found = open_bundle(folder.installed(), _trusted(config))
        height, width = engine.input_size
        golden = found.manifest.golden[0].file
        image = decode_picture(found.files[golden], where=golden)
        times = []
        for _ in range(_RUNS):
            started_s = time.perf_counter()
            engine.score(image)
            times.append((time.perf_counter() - started_s) * 1000)
        speed = f"median {statistics.median(times):.1f} ms"
        words = f"{engine.precision} on {engine.runtime}, {height} x {width}, {speed}"
    if ready.note:
        return warned(f"{words}; {ready.note}", "kenpin build-engine")
    return passed(f"{words}; scores the golden frames as it should")


def _running(folder: StationFolder) -> Diagnosis:
    found = read_vitals(folder.run)
    station = found["station"]
    words = f"{station.state}, camera and engine are in use by it"
    if station.numbers.get("ready"):
        return passed(words)
    return failed(f"{words}; {station.reason}", "see /readyz and the lines above")
