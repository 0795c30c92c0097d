"""What was given to calibrate on: folders of pictures, or scores that were stored."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import click
from rich.progress import Progress

from kenpin.bundle import Bundle
from kenpin.calibration.origin import origin_of
from kenpin.calibration.scores import MASTER, ScoreSet, check_fresh, read_scores, score_pictures
from kenpin.console import human_console
from kenpin.edge_runtime.engine_choice import choose_engine
from kenpin.errors import ConfigError
from kenpin.folder_names import GOOD
from kenpin.frame import Image
from kenpin.pictures import join_copies, read_folder
from kenpin.precision import Precision
from kenpin.quality import Quality, measure
from kenpin.quality_limits import learn_limits
from kenpin.station_folder import StationFolder


@dataclass(frozen=True)
class Shown:
    """Pictures, or scores.

    Attributes:
        good: Folder of good parts.
        masters: Folder of known bad parts.
        scores: List of scores, instead of the folders.
        precision: Which of the bundle's models; `None` = what this station would run.
    """

    good: Path | None
    masters: Path | None
    scores: Path | None
    precision: Precision | None

    def check(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            ConfigError: They do.
        """
        if (self.good is None) == (self.scores is None) or (self.masters and not self.good):
            raise ConfigError("give either --good DIR, with or without --masters DIR, or --scores CSV")
        if self.scores and not self.precision:
            raise ConfigError(
                "it is not clear which of the bundle's models gave the scores",
                cure="add --precision int8, fp16 or fp32",
            )


def score_shown(shown: Shown, bundle: Bundle, folder: StationFolder) -> tuple[ScoreSet, Precision]:
    """Score what was shown as the station would.

    Returns:
        The scores, and which of the bundle's models gave them.

    Raises:
        DataError: A picture cannot be read, was trained on, or is given twice; or the list is no list.
        EngineError: The model cannot be loaded or failed.
    """
    if shown.scores is not None:
        assert shown.precision is not None
        return read_scores(shown.scores), shown.precision
    assert shown.good is not None
    good = read_folder(shown.good, label=GOOD)
    masters = read_folder(shown.masters, label=MASTER) if shown.masters else []
    every, _ = join_copies([*good, *masters])
    check_fresh(every, bundle.manifest)
    good, masters = every[: len(good)], every[len(good) :]
    choice = choose_engine(folder, bundle, shown.precision)
    engine = choice.loaded()
    if choice.note:
        click.echo(f"note: ONNX Runtime scores instead of TensorRT: {choice.note}", err=True)
    with closing(engine), Progress(console=human_console()) as progress:
        bar = progress.add_task("score", total=len(good) + len(masters))
        seen: list[Quality] = []

        def look(image: Image) -> None:
            seen.append(measure(image))
            progress.advance(bar)

        scored_good = score_pictures(engine, good, shown.good, scored=look)
        place = engine.sight is None or engine.sight.view.align is None
        limits = learn_limits(seen, place=place, parts=len({picture.group for picture in good}))
        scored_masters = score_pictures(engine, masters, shown.masters or shown.good, scored=look)
    return ScoreSet(scored_good, scored_masters, limits, origin_of(good)), engine.precision
