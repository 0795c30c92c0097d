"""Recipes: the hierarchical method, and the references and ablations that it is compared with.

All run through the same loop (`pretrain.py`) with the same encoder, data and compute.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from kenpin.train.levels import COARSE, FINE, LEVELS, MID, Level


@dataclass(frozen=True)
class Recipe:
    """A method of pretraining.

    Attributes:
        name: How it is called in tables.
        levels: The levels it trains.
        mix: Share of the steps of each level, after the start.
        start: Share of the compute that goes to the levels one after the other, in their order.
        allot: Whether the mix is corrected by the gain that each level shows in a probe.
        importance: How strongly pictures with a high loss are preferred early; 0 is uniform.
        growth: Resolution of the first fifth, relative to the rest.
        freeze_from: Share of the compute after which the stem and the first stage are frozen; 1 is never.
        left_out: Level whose maps the complete head does without; empty is none.
    """

    name: str
    levels: tuple[Level, ...] = LEVELS
    mix: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3)
    start: float = 0.25
    allot: bool = True
    importance: float = 0.5
    growth: float = 0.75
    freeze_from: float = 0.7
    left_out: str = ""


HIERARCHICAL = Recipe("hierarchical")


def _single(name: str, level: Level) -> Recipe:
    """One level alone, from the first step to the last, nothing staged."""
    return Recipe(name, (level,), (1.0,), start=0, allot=False, importance=0, growth=1, freeze_from=1)


_ALL_SIZES = (0.02, 0.45)
_FULL = Level("flat", (0.9, 1.0), _ALL_SIZES, resolution=1.0, places=16)
_CROPS = Level("crops", (0.45, 1.0), _ALL_SIZES)

# What the hierarchy is compared with.
REFERENCES = (
    _single("flat, full picture", _FULL),
    _single("flat, crops of all sizes", _CROPS),
    _single("flat, SimCLR", replace(_CROPS, negatives="pictures", temperatures=(0.2, 0.2))),
    _single("coarse only", COARSE),
    _single("mid only", MID),
    _single("fine only", FINE),
    replace(
        HIERARCHICAL,
        name="discrimination only",
        levels=tuple(replace(level, losses=(0.0, 0.0, 1.0)) for level in LEVELS),
        importance=0,
    ),
    replace(HIERARCHICAL, name="mixed, not staged", start=0, allot=False),
)

# The hierarchy with one thing taken away. A level is its training and its maps.
ABLATIONS = (
    replace(HIERARCHICAL, name="without coarse", levels=(MID, FINE), mix=(0.5, 0.5), left_out="coarse"),
    replace(HIERARCHICAL, name="without mid", levels=(COARSE, FINE), mix=(0.5, 0.5), left_out="mid"),
    replace(HIERARCHICAL, name="without fine", levels=(COARSE, MID), mix=(0.5, 0.5), left_out="fine"),
    replace(
        HIERARCHICAL,
        name="one temperature",
        levels=tuple(replace(level, temperatures=(0.15, 0.15)) for level in LEVELS),
    ),
    replace(
        HIERARCHICAL,
        name="same negatives at every level",
        levels=tuple(replace(level, defect_sizes=_ALL_SIZES) for level in LEVELS),
    ),
    replace(HIERARCHICAL, name="pictures drawn uniformly", importance=0),
    replace(HIERARCHICAL, name="not staged", start=0),
    replace(HIERARCHICAL, name="fixed shares", allot=False),
    replace(HIERARCHICAL, name="full resolution from the start", growth=1),
    replace(HIERARCHICAL, name="nothing frozen", freeze_from=1),
)

RECIPES = {recipe.name: recipe for recipe in (HIERARCHICAL, *REFERENCES, *ABLATIONS)}
