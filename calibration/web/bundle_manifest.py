"""What the manifest of an installed bundle says, for the pages."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from kenpin.bundle import MANIFEST
from kenpin.errors import BundleError


def bundle_manifest(bundle: Path) -> dict[str, Any]:
    """Read the manifest, which the station has verified.

    Args:
        bundle: Folder of the bundle.

    Raises:
        FileNotFoundError: There is no bundle.
        BundleError: Its manifest was damaged since, or cannot be read.
    """
    found = None
    with suppress(ValueError):
        found = json.loads(_content(bundle))
    if not isinstance(found, dict):
        raise _unusable("is damaged", bundle)
    return found


def _content(bundle: Path) -> bytes:
    try:
        return (bundle / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unusable(f"cannot be read: {error.strerror}", bundle) from None


def _unusable(why: str, bundle: Path) -> BundleError:
    return BundleError(
        f"the manifest of the bundle {why}",
        where=bundle / MANIFEST,
        cure="install that bundle once more: kenpin bundle install FILE, with this station's --state",
    )
