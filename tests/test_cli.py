from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import cv2
import numpy as np
import pytest

import kenpin
from kenpin import cli, errors
from kenpin.commit import git_commit
from kenpin.errors import KenpinError
from kenpin.station_folder import DEFAULT_STATE

REPOSITORY = Path(__file__).parent.parent
STAGES = ("kenpin", "train", "export", "edge_runtime", "calibration")
ERRORS = {name: value for name, value in vars(errors).items() if name.endswith("Error")}
# What brings more than the verbs' help needs; `kenpin --help` may import none of it.
HEAVY = ("cv2", "numpy", "onnx", "onnxruntime", "onnxscript", "pydantic", "rich", "torch")


def _run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)


def _kenpin(*arguments: str, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, where the packages `without` are not installed."""
    hidden = f"import sys; sys.modules.update(dict.fromkeys({without!r}))"
    return _run(f"{hidden}\nfrom kenpin.cli import main\nmain()", *arguments)


@pytest.fixture
def verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module whose command `kenpin probe` runs in this process."""
    module = tmp_path / "probe_verb.py"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(cli._VERBS, "probe", ("probe_verb:probe", "edge", "For this test."))
    monkeypatch.setattr(sys, "argv", ["kenpin", "probe"])
    monkeypatch.delitem(sys.modules, "probe_verb", raising=False)
    return module


def _main(module: Path, body: str, *, above: str = "") -> int | str | None:
    """Run `main` with a verb of this body; the exit code."""
    module.write_text(f"import click\n{above}\n@click.command()\ndef probe():\n    {body}\n")
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        ("ENOENT", "check the path"),
        ("EACCES", "let this user work there"),
        ("EROFS", "let this user work there"),
        ("ENOSPC", "make room there"),
    ],
)
def test_a_place_that_cannot_be_used_is_said_without_a_traceback(
    verb: Path, capsys: pytest.CaptureFixture[str], number: str, cure: str
) -> None:
    body = f"raise OSError(errno.{number}, os.strerror(errno.{number}), '/runs/part')"
    assert _main(verb, body, above="import errno, os") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: a file cannot be used: ")
    assert "\n  where: /runs/part\n" in said
    assert f"  cure:  {cure}" in said


def test_output_for_which_the_disk_has_no_room_is_told_without_a_traceback() -> None:
    command = [sys.executable, "-m", "kenpin", "config", "schema"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300)
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2,
        "error: a file cannot be used: No space left on device",
    )


@pytest.mark.parametrize("bug", ["OSError('no file')", "ValueError('x')", "ConnectionResetError(104, 'reset')"])
def test_what_is_about_no_file_keeps_its_traceback(verb: Path, bug: str) -> None:
    verb.write_text(f"import click\n@click.command()\ndef probe():\n    raise {bug}\n")
    with pytest.raises((OSError, ValueError)):
        cli.main()


def test_training_into_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    for k in range(12):
        picture = np.full((64, 64, 3), 10 * k, np.uint8)
        (tmp_path / f"{k}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    done = _kenpin("train", "--good", str(tmp_path), "--run", "/proc/none/run", "--steps", "1", "--size", "64")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "  where: /proc/none" in done.stderr


def test_help_names_every_verb_and_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom kenpin.cli import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    done = _run(program, "--help")
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in cli._VERBS)
    imported = {name.split(".")[0] for name in done.stderr.split()}
    assert imported.isdisjoint(HEAVY)


def test_version() -> None:
    commit = f" ({git_commit()})" if git_commit() else ""
    assert _kenpin("--version").stdout == f"kenpin, version {kenpin.__version__}{commit}\n"


@pytest.mark.parametrize("name", cli._VERBS)
def test_every_verb_has_a_help(name: str) -> None:
    done = _kenpin(name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"kenpin {name}" in done.stdout


def _commands(group: click.Command, path: str = "kenpin") -> Iterator[tuple[str, click.Command]]:
    if not isinstance(group, click.Group):
        yield path, group
        return
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield from _commands(command, f"{path} {name}")


def test_a_station_s_folder_is_meant_alike_by_all_commands() -> None:
    states = {path: p for path, command in _commands(cli.cli) for p in command.params if p.name == "state"}
    del states["kenpin simulate"]  # not a station's
    assert len(states) > 20
    assert {path for path, option in states.items() if option.default != DEFAULT_STATE} == set()


@pytest.mark.parametrize("name", cli._VERBS)
def test_a_verb_without_its_extra_says_what_to_install(name: str) -> None:
    extras = ("torch", "onnx", "onnxscript", "onnxruntime", "amqtt", "matplotlib", "safetensors")
    done = _kenpin(name, "--help", without=extras)
    if done.returncode != 0:
        assert done.returncode == 2
        assert f"kenpin {name} needs the Python package" in done.stderr
        assert f"pip install 'kenpin[{cli._VERBS[name][1]}]'" in done.stderr
        assert "Traceback" not in done.stderr


def test_extras_that_messages_name_exist() -> None:
    declared = (REPOSITORY / "pyproject.toml").read_text()
    named = {extra for _, extras, _ in cli._VERBS.values() for extra in extras.split(",")}
    assert all(f"\n{extra} = [" in declared for extra in named)


@pytest.mark.parametrize("when", ["at import", "when it runs"])
def test_a_missing_package_is_named_with_the_command_to_install_it(
    verb: Path, capsys: pytest.CaptureFixture[str], when: str
) -> None:
    missing = "import no_such_package.deep"
    early = when == "at import"
    assert _main(verb, "pass" if early else missing, above=missing if early else "") == 2
    message = capsys.readouterr().err
    assert "kenpin probe needs the Python package no_such_package" in message
    assert "pip install 'kenpin[edge]'" in message
    assert sys.prefix in message


def test_a_package_that_does_not_load_is_not_called_missing(
    verb: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(verb, "raise ImportError('numpy.core.multiarray failed to import', name='cv2')") == 2
    message = capsys.readouterr().err
    assert "cannot load a Python package: numpy.core.multiarray failed to import" in message


def test_a_jetson_gets_opencv_from_apt(
    verb: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert _main(verb, "raise ModuleNotFoundError('No module named cv2', name='cv2')") == 2
    assert "apt install python3-opencv" in capsys.readouterr().err


def test_a_fault_of_our_own_is_not_blamed_on_the_installation(verb: Path) -> None:
    verb.write_text("from kenpin.errors import NoSuchError\n")
    with pytest.raises(ImportError, match="NoSuchError"):
        cli.main()


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_errors_go_to_stderr_with_what_where_cure_and_their_exit_code(
    verb: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    body = f"raise errors.{name}('it broke', where='line 3', cure='mend it')"
    code = _main(verb, body, above="from kenpin import errors")
    assert code == (2 if name in ("ConfigError", "DataError") else 1)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: it broke\n  where: line 3\n  cure:  mend it\n"


@pytest.mark.parametrize(
    ("body", "code"),
    [("pass", 0), ("click.get_current_context().exit(1)", 1), ("raise KeyboardInterrupt", 130)],
    ids=["fine", "failed check", "Ctrl-C"],
)
def test_exit_codes(verb: Path, body: str, code: int) -> None:
    assert _main(verb, body) == code


def test_ctrl_c_ends_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "probe_verb.py").write_text(
        "import click, os, signal, time\n"
        "@click.command()\n"
        "def probe():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(30)\n"
    )
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop())\n"
        "from kenpin import cli\n"
        "cli._VERBS['probe'] = ('probe_verb:probe', 'edge', '')\n"
        "cli.main()"
    )
    done = _run(program, "probe", str(tmp_path))
    assert done.returncode == 130
    assert done.stderr.strip() == "stopped"


@pytest.mark.parametrize("arguments", [(), ("no-such-verb",), ("--no-such-option",)])
def test_wrong_usage_is_2_and_shows_the_way(arguments: tuple[str, ...]) -> None:
    done = _kenpin(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Usage: kenpin" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_stops_early_gives_no_traceback() -> None:
    program = "from kenpin.cli import main; main()"
    command = [sys.executable, "-c", program, "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


def _error_calls(path: Path) -> list[ast.Call]:
    names = {ast.Name: "id", ast.Attribute: "attr"}
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [c for c in calls if getattr(c.func, names.get(type(c.func), ""), "") in ERRORS]


def _begins_with_give(call: ast.Call) -> bool:
    what = call.args[0]
    return isinstance(what, ast.Constant) and str(what.value).startswith("give ")


def test_a_name_in_an_error_reaches_no_terminal_as_a_command() -> None:
    hostile = "a\x1b[2J\u202e\udcff\nvalid: all is well"
    said = str(KenpinError(f"{hostile} is damaged", where=Path(hostile), cure=f"mend {hostile}"))
    assert (said.replace("\n", "").isprintable(), "部品" in str(KenpinError("部品"))) == (True, True)
    where = next(line for line in said.splitlines() if line.startswith("  where: "))
    assert where == r"  where: a\x1b[2J\u202e\udcff\nvalid: all is well"


def test_every_error_that_is_raised_says_its_cure() -> None:
    """It may be left out only where `what` is the cure: "give --epochs or --steps, not both"."""
    silent = [
        f"{path.relative_to(REPOSITORY)}:{call.lineno}"
        for stage in STAGES
        for path in sorted((REPOSITORY / stage).glob("*.py"))
        for call in _error_calls(path)
        if "cure" not in {keyword.arg for keyword in call.keywords} and not _begins_with_give(call)
    ]
    assert not silent


def test_the_error_tree_is_the_one_drawn_in_its_module() -> None:
    drawn = errors.__doc__ or ""
    for name, error in ERRORS.items():
        if error is not KenpinError:
            line = next(line for line in drawn.splitlines() if f" {name} " in line)
            assert line.endswith(f"exit {error.exit_code}")
            assert error.__mro__[1] is KenpinError
