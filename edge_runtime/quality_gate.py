"""The quality gate: a frame that is no good picture of a part is never judged."""

from __future__ import annotations

from kenpin.frame import Image
from kenpin.preprocess import check_frame
from kenpin.quality import Quality, measure
from kenpin.quality_limits import Finding, QualityLimits


class QualityGate:
    """Watches one camera.

    Args:
        limits: Learned at the sign-off; `None` = only what holds for every camera is checked.
        live: Whether it is a camera: one keeps its size, and the same content again and again means that it
            has frozen. Files may differ and repeat, and so may a compressed stream.

    Attributes:
        seen: What the newest frame measures; `None` before the first.
    """

    def __init__(self, limits: QualityLimits | None, *, live: bool) -> None:
        self.seen: Quality | None = None
        self._limits = limits
        self._reference = limits.reference_picture() if limits is not None else None
        self._live = live
        self._size: tuple[int, int] | None = None
        self._content: int | None = None
        self._repeats = 0

    def check(self, image: Image) -> tuple[Finding, str] | None:
        """Look at the camera's next frame.

        Args:
            image: BGR uint8, shape (H, W, 3).

        Returns:
            What is wrong with it, as one word and in words; `None` where it can be judged.

        Raises:
            DataError: It is no frame at all.
        """
        check_frame(image)
        self.seen = seen = measure(image)
        self._repeats = self._repeats + 1 if seen.content == self._content else 1
        self._content = seen.content
        # Exposure first: black frames of a dead light are alike, too.
        finding = self._limits.check(seen, self._reference) if self._limits is not None else None
        if finding is None:
            finding = self._check_size(seen.size)
        # Noise makes every two of them differ: what looks like the part before is a part that was not seen.
        if self._live and self._repeats > 1 and (finding is None or finding[0] is not Finding.BLACK):
            finding = Finding.FROZEN, f"frozen: the camera gave the same picture {self._repeats} times"
        return finding

    def _check_size(self, size: tuple[int, int]) -> tuple[Finding, str] | None:
        """A camera whose sign-off says nothing keeps the size that it came with."""
        self._size = self._size or size
        if not self._live or size == self._size:
            return None
        (rows, columns), (height, width) = self._size, size
        what = f"the frame is {width} x {height} pixels, the frames before were {columns} x {rows}"
        return Finding.WRONG_SIZE, what
