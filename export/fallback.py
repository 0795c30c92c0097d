"""Return the most sensitive convolutions to float, one by one, until the gate holds.

Half of the pictures choose. What the others say about that choice is the report: it was not made for them.
Where verdicts among those change, more convolutions are returned, for no change is allowed on any picture; the
report stays, as no picture is left that could tell more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from onnx import ModelProto, TensorProto

from kenpin.errors import ExportError
from kenpin.export.bias import set_biases
from kenpin.export.gate import Judged, Judgement, Limits, Rows, judge
from kenpin.export.half import to_half
from kenpin.export.head_weights import store_head
from kenpin.export.outputs import Fusion, Outputs, run_onnx
from kenpin.export.placement import Placement, find_placement
from kenpin.export.quantize import quantize
from kenpin.export.scheme import Scheme
from kenpin.export.sensitivity import Sensitivity

# A model that flips one of the pictures nearest to the operating point need not see the others.
NEAREST = 32


@dataclass(frozen=True)
class Recipe:
    """What INT8 models are made of.

    Attributes:
        model: The float model.
        ranges: Range of each activation.
        scheme: Number formats.
        biases: What `correct_biases` found.
    """

    model: ModelProto
    ranges: Mapping[str, float]
    scheme: Scheme
    biases: Mapping[str, TensorProto] = field(default_factory=dict)

    def make(self, placement: Placement) -> ModelProto:
        """The model with these convolutions in INT8."""
        int8 = quantize(self.model, placement, self.ranges, self.scheme)
        set_biases(int8, self.biases, placement.convs)
        int8 = to_half(int8) if self.scheme.half else int8
        return store_head(int8) if self.scheme.weights == "int8" else int8


@dataclass(frozen=True)
class Unseen:
    """What pictures that did not choose say about what the others chose.

    Attributes:
        judgement: Theirs.
        returned: Convolutions that were float then. More of them are float in the end where verdicts changed.
    """

    judgement: Judgement
    returned: int


@dataclass(frozen=True)
class Settled:
    """The model that the gate lets pass.

    Attributes:
        model: The graph.
        placement: Which convolutions are INT8 and which are float.
        outputs: What it says about all judged pictures.
        judgement: What the gate found on all of them, those that chose among them.
        unseen: The report.
        at_first: What the gate found with every convolution in INT8.
    """

    model: ModelProto
    placement: Placement
    outputs: Outputs
    judgement: Judgement
    unseen: Unseen
    at_first: Judgement


def settle(
    recipe: Recipe,
    judged: Judged,
    ranking: Sequence[Sensitivity],
    *,
    limits: Limits,
    advance: Callable[[], object],
) -> Settled:
    """Quantise as much as the gate allows.

    Args:
        recipe: What to quantise.
        judged: Pictures and what float says about them.
        ranking: Every convolution, the most sensitive first.
        limits: What the gate allows.
        advance: Called after each attempt.

    Raises:
        ExportError: The gate does not hold even with one convolution in INT8.
    """
    choosing, others = judged.halves
    at_first: Judgement | None = None
    unseen: Unseen | None = None
    for count in range(len(ranking)):
        placement = find_placement(recipe.model, floats=[layer.conv for layer in ranking[:count]])
        model = recipe.make(placement)
        asked = range(len(judged.pictures)) if unseen else choosing
        advance()
        if at_first and _flips(judged, model, asked) > limits.flip_share * len(asked):
            continue
        outputs = run_onnx(model, judged.pictures, fusion=Fusion.NONE)
        judgement = judge(judged, outputs)
        at_first = at_first or judgement
        if not unseen and judge(judged, outputs, choosing).holds(limits):
            unseen = Unseen(judge(judged, outputs, others), count)
        if unseen and judgement.holds(limits):
            for _ in ranking[count + 1 :]:
                advance()
            return Settled(model, placement, outputs, judgement, unseen, at_first)
    assert at_first is not None
    raise _refusal(at_first, limits)


def _flips(judged: Judged, model: ModelProto, asked: Rows) -> int:
    """Verdicts that change among the pictures nearest to the operating point."""
    rows = sorted(asked, key=lambda row: float(judged.margins[row]))[:NEAREST]
    changed = run_onnx(model, judged.pictures[rows], fusion=Fusion.NONE).score
    return int(((judged.exact.score[rows] > judged.threshold) != (changed > judged.threshold)).sum())


def _refusal(first: Judgement, limits: Limits) -> ExportError:
    return ExportError(
        f"INT8 does not keep the verdicts: {first.flips} of {first.pictures} change at the operating point "
        f"(allowed {100 * limits.flip_share:g} %) and the AUROC by {first.auroc_points:.2f} points (allowed "
        f"{limits.auroc_points:g}), and no fall-back of single convolutions to float helped",
        cure="train longer or with more pictures, or export with --precision fp32",
    )
