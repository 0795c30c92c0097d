"""Learning that goes on: from a trained model to one that knows further good pictures, in a share of the time.

The same parts later, or on another line: the encoder stays as it is, and the head remembers the new pictures
beside the old ones. Similar parts: a short stage of training, and a memory of its own. What was tried besides
stands in `docs/transfer.md`.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from kenpin.bundle import MANIFEST, TRAINED, open_bundle
from kenpin.bundle_cli import trusted_keys
from kenpin.errors import ConfigError
from kenpin.picture_files import sha256_of
from kenpin.pictures import Picture, PictureSet
from kenpin.sight import Sight, sight_of
from kenpin.strips import WHOLE, Strips
from kenpin.train.fit import update_head
from kenpin.train.inspector import Inspector, inspector_of
from kenpin.train.model import Pretrained
from kenpin.train.recipe import HIERARCHICAL
from kenpin.train.run import RunFolder, learned_from, load_inspector

# A stage of training on top of an origin takes this share of the compute of a training.
STAGE = 0.15
# Nothing is staged: all levels know already what they look for.
TRANSFER = replace(HIERARCHICAL, name="transfer", start=0.0, allot=False, importance=0.0, growth=1.0)


@dataclass(frozen=True)
class Origin:
    """A trained model that a run begins with.

    Attributes:
        name: Product, version and identity of the bundle, or name of the run.
        inspector: Its encoder and head, on the CPU.
        learned_from: SHA-256 of every picture it learned from; their scores prove nothing.
        same_parts: Whether the new pictures show the same parts, so that what is remembered stays true.
        sight: What of a picture it looks at; `None` = all of it.
        product: What its parts are called.
        strips: Into how many strips a picture is cut for it.
    """

    name: str
    inspector: Inspector
    learned_from: frozenset[str]
    same_parts: bool
    sight: Sight | None = None
    product: str = ""
    strips: Strips = WHOLE

    @property
    def width(self) -> int:
        """Width of the encoder."""
        return self.inspector.encoder.channels[0]

    @property
    def size(self) -> int:
        """Side of the input that the head was fitted for, pixels."""
        return self.inspector.head.side

    def known_parts(self, pictures: Iterable[Picture]) -> frozenset[str]:
        """Groups of which it learned from a picture; other pictures of these parts prove nothing either."""
        return frozenset(p.group for p in pictures if sha256_of(p.path) in self.learned_from)

    def unseen(self, pictures: PictureSet, known: Collection[str]) -> PictureSet:
        """Without the test pictures of parts that it learned from, and without pictures it is to learn again.

        Remembered a second time, a picture of the same parts would count twice.

        Args:
            pictures: Of any parts.
            known: The `known_parts` of them.
        """
        test = tuple(p for p in pictures.test if p.group not in known)
        if not self.same_parts:
            return replace(pictures, test=test)
        train = tuple(
            p for p in pictures.train if p.group not in known or sha256_of(p.path) not in self.learned_from
        )
        return replace(pictures, train=train, test=test)

    def manifest(self) -> dict[str, list[str]]:
        """What the data manifest of a run has to tell about it."""
        return {"learned_before": sorted(self.learned_from)}


def load_origin(path: Path, *, same_parts: bool, trust: tuple[Path, ...] = ()) -> Origin:
    """Read the model of a finished run, or of a bundle after verifying it.

    Args:
        path: A run folder, a `.kenpin` file or the folder of an installed bundle.
        same_parts: Whether the new pictures show the same parts.
        trust: Public keys that may have signed a bundle; without any, this user's own.

    Raises:
        BundleError: The bundle is damaged or signed by a stranger.
        ConfigError: There is neither, the run is not finished, or the bundle holds no model that can learn on.
        TrainError: A file of the model is damaged.
    """
    folder = RunFolder(path)
    if folder.exists:
        learned = frozenset(learned_from(folder.data))
        return Origin(
            f"run {path.resolve().name}",
            load_inspector(path),
            learned,
            same_parts,
            folder.sight,
            folder.config.product,
            folder.config.strips,
        )
    if not (path.is_file() or (path / MANIFEST).is_file()):  # before a key is missed that no run needs
        raise ConfigError(
            "there is neither a finished run nor a bundle",
            where=path,
            cure="give the folder that kenpin train wrote with --run, or a .kenpin file",
        )
    bundle = open_bundle(path, trusted_keys(trust))
    missing = [name for name in TRAINED if name not in bundle.files]
    if missing:
        raise ConfigError(
            f"the bundle holds no model that can go on learning: it lacks {missing[0]}",
            where=path,
            cure="give the run folder it came from, or export that again with this kenpin",
        )
    encoder, head = (bundle.files[name] for name in TRAINED)
    manifest = bundle.manifest
    name = f"{manifest.product} {manifest.version} {bundle.sha256}"
    inspector = inspector_of(encoder, head, where=path)
    learned = frozenset(manifest.learned_from)
    strips = Strips.of_shape(*manifest.input_shape[1:3])
    return Origin(name, inspector, learned, same_parts, sight_of(bundle), manifest.product, strips)


def start_from(origin: Origin, model: Pretrained) -> None:
    """Fill a model with an origin's encoder and discriminators; its projections, which no run keeps, stay."""
    model.encoder.load_state_dict(origin.inspector.encoder.state_dict())
    model.discriminators.load_state_dict(origin.inspector.head.discriminators.state_dict())


def remember(origin: Origin, pictures: Tensor, held_back: Tensor, *, seed: int) -> Inspector:
    """The origin with a memory of new good pictures of the same parts beside the old ones.

    Args:
        origin: What is known already; it stays as it is.
        pictures: New good pictures, BGR uint8 (N, 3, S, S).
        held_back: Good pictures of other new parts, BGR uint8 (M, 3, S, S).
        seed: Decides the validation defects.
    """
    known = copy.deepcopy(origin.inspector).to(pictures.device)
    trained = Pretrained(origin.width).to(pictures.device)
    start_from(origin, trained)
    head = update_head(known.head, trained, pictures, held_back, seed=seed)
    return Inspector(known.encoder, head).eval()
