"""The steps of the demo: where everything lies, and running kenpin's own commands one by one."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from kenpin.console import human_console
from kenpin.demo_data import Folders
from kenpin.station_folder import StationFolder

# A station may take some seconds to say goodbye to the broker.
_END_S = 20.0
console = human_console()


@dataclass(frozen=True)
class Plan:
    """What the demo shall do, and where everything goes.

    Attributes:
        out: Folder that gets everything.
        data: The user's pictures; without them parts are drawn.
        product: Which part to draw.
        parts: Parts on the line.
        training: Options of `kenpin train`: how long and at which size.
    """

    out: Path
    data: Path | None
    product: str
    parts: int
    training: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the station and the bundle are called."""
        return "part" if self.data else self.product

    @property
    def topic(self) -> str:
        """The station's topic."""
        return f"demo/site/area/line/{self.name}"

    @property
    def folders(self) -> Folders:
        """The pictures."""
        return Folders(self.out / "pictures")

    @property
    def run(self) -> Path:
        """The training run."""
        return self.out / "run"

    @property
    def bundle(self) -> Path:
        """The bundle."""
        return self.out / f"{self.name}-1.kenpin"

    @property
    def key(self) -> Path:
        """The key that signs the bundle."""
        return self.out / "signing.key"

    @property
    def trust(self) -> Path:
        """Its public part, which the station trusts."""
        return self.out / "signing.pub"

    @property
    def station(self) -> StationFolder:
        """The station's folder."""
        return StationFolder(self.out / "station")

    @property
    def config(self) -> Path:
        """The station's configuration."""
        return self.out / "station.toml"


@dataclass
class Journal:
    """Runs the steps, says what they are, and keeps what they gave.

    Attributes:
        seconds: Time of each step that has ended.
        documents: What each command printed as JSON.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Say a step's name and take its time."""
        console.rule(name, align="left")
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)

    def kenpin(self, name: str, *arguments: object) -> None:
        """Run a kenpin command as a user would; its messages and progress go to the terminal.

        Raises:
            click.exceptions.Exit: It failed; with its exit code.
        """
        words = [str(argument) for argument in arguments]
        with self.step(name):
            console.print(f"$ kenpin {shlex.join(words)}", style="bold", soft_wrap=True, highlight=False)
            output = _run([sys.executable, "-m", "kenpin", *words], name)
        if "--json" in words:
            self.documents[name] = json.loads(output)


def _run(command: Sequence[str], name: str) -> str:
    """Run a command to its end and return what it printed; end it when the demo is interrupted."""
    # In a session of its own, so that the one Ctrl-C it gets is the one that is handed on here.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            output, _ = process.communicate()
        except KeyboardInterrupt:
            console.print(f"ending the step: {name}")
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)
            process.kill()
            raise
    code = process.returncode
    if code:
        console.print(output, end="", highlight=False)
        console.print(f"FAILED at the step: {name}", style="bold red")
        raise click.exceptions.Exit(code if code > 0 else 128 - code)
    return output
