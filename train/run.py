"""The run folder: everything that one training leaves behind, without pickle.

config.json           resolved settings, seed, git commit
data.json             every picture used, with SHA-256 and role
metrics.jsonl         one line per step, with the seconds on the device so far; then one per evaluation
checkpoint.safetensors  weights and optimiser state, to resume
encoder.safetensors, head.safetensors   the finished model
doubts.safetensors    good pictures that are most unlike the others
report.html           what a person looks at
train.lock            held by the process that trains here
reference.png         the picture that the view was drawn on, where there is a view that needs it
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from kenpin import __version__
from kenpin.counted import counted
from kenpin.errors import ConfigError, TrainError, reason_of
from kenpin.sight import Sight
from kenpin.sole_use import sole_use
from kenpin.strips import WHOLE, Strips
from kenpin.synced_file import replace_synced
from kenpin.train.data import MEASURE
from kenpin.train.encoder import LEAST_WIDTH, MOST_WIDTH
from kenpin.train.inspector import Inspector, inspector_of
from kenpin.train.journal import append, cannot_write, read_journal, rewrite
from kenpin.train.tensor_file import read_tensors
from kenpin.train.training import Allotment, Training
from kenpin.view import REFERENCE, View

# What may differ when a run goes on.
_FREE = ("commit", "software")


class RunConfig(BaseModel):
    """Resolved settings of a run.

    Attributes:
        product: Name of the part, from the data folder or from the model of the same parts.
        data: Where the pictures came from.
        size: Side of the model's input, pixels.
        width: Width of the encoder.
        steps: Steps of pretraining; none where the weights come from an origin.
        batch: Pictures per step.
        seed: Seed of everything.
        importance: Whether hard pictures are shown more often early.
        init: SHA-256 of the file of initial weights, empty for random ones.
        origin: Product and version or run that the weights come from, empty where they do not.
        commit: Git commit of kenpin, empty outside a checkout.
        software: Version of kenpin.
        view: What of each picture is looked at; `None` = all of it.
        strips: Into how many strips that is cut for the model.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    product: str
    data: str
    size: int = Field(ge=64, le=1024, multiple_of=16)
    width: int = Field(ge=LEAST_WIDTH, le=MOST_WIDTH)
    steps: int = Field(ge=0)
    batch: int = Field(ge=2)
    seed: int
    importance: bool = True
    init: str = ""
    origin: str = ""
    commit: str = ""
    software: str = __version__
    view: View | None = None
    strips: Strips = WHOLE

    @property
    def input_shape(self) -> tuple[int, int]:
        """Height and width of the pictures that the model is given."""
        return self.strips.shape(self.size)

    @property
    def input_px(self) -> str:
        """The same in words, width first."""
        height, width = self.input_shape
        return f"{width} x {height}"


@dataclass(frozen=True)
class RunFolder:
    """A run folder on disk."""

    root: Path

    def create(
        self, config: RunConfig, data: Mapping[str, Any], *, resume: bool, reference: bytes = b""
    ) -> None:
        """Start the folder, or check that a resumed run has the same settings and pictures.

        Args:
            config: The settings.
            data: Every picture, with its role.
            resume: Whether the folder may hold this run already.
            reference: File of the picture that the view was drawn on, where there is one.

        Raises:
            ConfigError: The folder holds another run.
            TrainError: A file cannot be written.
        """
        # A run without a view looks like one from before there were views.
        settings = config.model_dump(mode="json", exclude_none=True)
        wanted = {"config.json": settings, "data.json": dict(data)}
        if not resume:
            self.refuse_taken()
        if self.exists:
            for name, content in wanted.items():
                if told := _difference(_read_json(self.root / name), content):
                    raise ConfigError(
                        f"{name} differs from the run that was interrupted: {told}",
                        where=self.root,
                        cure="resume with the same settings and pictures, or start a new --run",
                    )
            return
        self.root.mkdir(parents=True, exist_ok=True)
        if reference:
            _replace(self.root / REFERENCE, reference)
        # config.json comes last: with it the folder is a run, and all that a resume looks at has to be there.
        for name in ("data.json", "config.json"):
            _replace(self.root / name, (json.dumps(wanted[name], indent=1) + "\n").encode())

    def refuse_taken(self) -> None:
        """Refuse to begin a run where one is.

        Raises:
            ConfigError: There is, or it is no folder.
        """
        if self.exists or self.root.is_file():
            raise ConfigError(
                "the run folder " + ("holds a run already" if self.exists else "is a file"),
                where=self.root,
                cure="give another --run" + (", or --resume to go on with it" if self.exists else ""),
            )

    def sole_use(self) -> ExitStack:
        """Let nobody else train into the folder meanwhile: of two that save in turn, neither would be whole.

        Raises:
            ConfigError: Somebody does.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            return sole_use(self.root / "train.lock")
        except BlockingIOError:
            raise ConfigError(
                "another process trains into the run folder",
                where=self.root,
                cure="wait until it has ended, or give another --run",
            ) from None
        except OSError:
            # Not every network drive has locks, and what cannot be written is told by whoever writes.
            return ExitStack()

    @property
    def exists(self) -> bool:
        """Whether the folder holds a run, finished or not."""
        return (self.root / "config.json").exists()

    @property
    def finished(self) -> bool:
        """Whether the model is there."""
        return (self.root / "head.safetensors").exists()

    @property
    def config(self) -> RunConfig:
        """The settings.

        Raises:
            ConfigError: The folder is not a run.
        """
        try:
            return RunConfig.model_validate(_read_json(self.root / "config.json"))
        except ValidationError as error:
            raise ConfigError(
                f"config.json is damaged: {error.errors()[0]['msg']}", where=self.root, cure="train again"
            ) from None

    @property
    def sight(self) -> Sight | None:
        """The view at work; `None` where there is none.

        Raises:
            ConfigError, DataError: It cannot be used.
        """
        view, path = self.config.view, self.root / REFERENCE
        if view is None:
            return None
        return Sight(view, path.read_bytes() if path.exists() else b"", where=self.root)

    @property
    def data(self) -> dict[str, Any]:
        """The data manifest."""
        return _read_json(self.root / "data.json")

    def log(self, entry: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl.

        Raises:
            TrainError: It cannot be written.
        """
        append(self.root / "metrics.jsonl", entry)

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl."""
        return read_journal(self.root / "metrics.jsonl")

    def save_training(self, training: Training) -> None:
        """Write the checkpoint; the old one stays until the new one is complete."""
        tensors = training.tensors()
        if training.hardness is not None:
            tensors["hardness"] = training.hardness
        progress = {
            "step": training.step,
            "spent": training.spent,
            "allotment": asdict(training.allotment) if training.allotment else None,
            "scaling": training.scaling,
        }
        _save(tensors, self.root / "checkpoint.safetensors", {"progress": json.dumps(progress)})

    def load_training(self, training: Training) -> None:
        """Go on from the checkpoint, if there is one; later lines of metrics.jsonl are dropped.

        Raises:
            TrainError: The checkpoint is damaged.
        """
        path = self.root / "checkpoint.safetensors"
        if not path.exists():
            (self.root / "metrics.jsonl").unlink(missing_ok=True)
            return
        tensors, metadata = _load(path)
        training.load(tensors)
        progress = json.loads(metadata["progress"])
        training.step, training.spent = progress["step"], progress["spent"]
        training.hardness = tensors.get("hardness")
        if progress["allotment"]:
            training.allotment = Allotment(**progress["allotment"])
        training.scaling = progress["scaling"]
        # Lines without a step, as the allotment's, belong to the steps before them.
        kept = takewhile(lambda line: line.get("step", 0) <= training.step, self.metrics())
        rewrite(self.root / "metrics.jsonl", kept)

    def save_model(self, inspector: Inspector) -> None:
        """Write the finished model."""
        _save(dict(inspector.encoder.state_dict()), self.root / "encoder.safetensors", {})
        _save(dict(inspector.head.state_dict()), self.root / "head.safetensors", {})


def load_inspector(run: Path) -> Inspector:
    """The finished model of a run, on the CPU, in evaluation mode.

    Raises:
        ConfigError: The folder is not a finished run.
        TrainError: A file of it is damaged.
    """
    folder = RunFolder(run)
    config = folder.config
    if not folder.finished:
        raise ConfigError(
            "the run is not finished", where=run, cure="finish it with: kenpin train … --run RUN --resume"
        )
    encoder, head = (_bytes(run / f"{name}.safetensors") for name in ("encoder", "head"))
    inspector = inspector_of(encoder, head, where=run)
    if (inspector.encoder.channels[0], inspector.head.side) != (config.width, config.size):
        raise TrainError("the weights do not fit config.json", where=run, cure="train again")
    return inspector


def learned_from(data: Mapping[str, Any]) -> set[str]:
    """SHA-256 of every picture that a run or its origin learned from, by the run's data manifest."""
    own = {row["sha256"] for row in data["pictures"] if row["role"] not in MEASURE}
    return own | set(data.get("learned_before", ()))


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between two contents of a file of a run, but for the version; empty where nothing does."""
    names = [n for n in {**before, **now} if n not in _FREE and before.get(n) != now.get(n)]
    if "pictures" in names:
        was, is_now = ({row["file"]: row for row in content.get("pictures", ())} for content in (before, now))
        files = [file for file in {**was, **is_now} if was.get(file) != is_now.get(file)]
        return f"{counted(len(files), 'picture')}, like {files[0]}" if files else "the order of the pictures"
    short = [n for n in names if not isinstance(before.get(n) or now.get(n), dict | list)]
    told = [f"{n} was {before.get(n)}, is {now.get(n)}" for n in short]
    return ", ".join([*told, *(n for n in names if n not in short)])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        raise ConfigError(
            f"the folder is not a run: {path.name} is missing or damaged",
            where=path.parent,
            cure="give the folder that kenpin train wrote with --run",
        ) from None
    assert isinstance(content, dict)
    return content


def _save(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    _replace(path, save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata))


def _replace(path: Path, content: bytes) -> None:
    """Write a file of a run; the old one stays until the new one is on the disk, also over a power cut."""
    try:
        # Others of a group may use the run, as they may use metrics.jsonl.
        replace_synced(path, content, mode=0o666)
    except OSError as error:
        raise cannot_write(path, error) from None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TrainError(f"cannot read: {error.strerror}", where=path, cure="train again") from None


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        return read_tensors(path)
    except (OSError, SafetensorError) as error:
        raise TrainError(f"cannot read: {reason_of(error)}", where=path, cure="train again") from None
