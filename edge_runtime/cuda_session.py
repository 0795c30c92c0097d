"""What is open on the driver through pycuda: its errors in our words, and all that is to be given back."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Protocol, TypeVar

from kenpin.edge_runtime.cuda_driver import Driver
from kenpin.errors import DeviceLost, EngineError


class Owned(Protocol):
    """What is given back when a device is closed."""

    def free(self) -> None:
        """Give it back; a second time does nothing."""


_Anything = TypeVar("_Anything", bound=Owned)


class Session:
    """The driver, pycuda, and what was made with them.

    Args:
        driver: The driver.
        cuda: The module pycuda.driver.

    Attributes:
        told: `with session.told:` turns errors of pycuda into ours.
        owned: What is not freed.
        context: pycuda's context; None before it is there.
    """

    def __init__(self, driver: Driver, cuda: Any) -> None:
        self.driver = driver
        self.cuda = cuda
        self.told = _Told(self, cuda.Error)
        self.owned: set[Owned] = set()
        self.context: Any = None
        self._abandoned = False

    def own(self, owned: _Anything) -> _Anything:
        """Remember what is to be freed."""
        self.owned.add(owned)
        return owned

    def disown(self, owned: Owned) -> None:
        """Forget what was freed."""
        self.owned.discard(owned)

    def leave(self) -> None:
        """Take the context from this thread."""
        if not self._abandoned:
            with self.told:
                self.cuda.Context.pop()
            return
        # Of a dead context pycuda lets go only when it looks for a living one, as for a new stream.
        with suppress(self.cuda.Error):
            self.cuda.Stream()

    def close(self) -> None:
        """Give back all of it; of a lost device nothing, which the driver does when the process ends."""
        if self._abandoned:
            return
        try:
            with self.told:
                self.context.push()
                for owned in tuple(self.owned):
                    owned.free()
                self.context.detach()
        except DeviceLost:
            self.abandon()
        self.driver.pop_released()

    def abandon(self) -> None:
        """Declare the context of a lost device dead.

        Otherwise pycuda aborts the process when it frees something, or finds a context left on a thread, and
        no exit code tells the supervisor what happened.
        """
        if not self._abandoned:
            self._abandoned = True
            self.context.detach()


class _Told:
    """Turns errors of pycuda within a `with` into ours."""

    def __init__(self, session: Session, error: type[Exception]) -> None:
        self._session = session
        self._error = error

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if not isinstance(error, self._error):
            return
        # pycuda passes on only the text; of what concerns all calls, the driver tells the number again.
        said = str(error).splitlines()[0]
        session = self._session
        standing = session.driver.standing_error(said) if session.context is not None else None
        if isinstance(standing, DeviceLost):
            session.abandon()
        raise standing or EngineError(
            f"the GPU refused, {said}", cure="see nvidia-smi or tegrastats for what else uses its memory"
        ) from None
