"""Train, export and measure on folders of real pictures; prints the README's table.

    python -m benchmarks.real_pictures DIR [DIR…] [--size 160] [--budget quick]

Each folder is MVTec style with good and defective test pictures. Test pictures take part in no choice.
Beside each figure stands what mean brightness alone reaches on the same pictures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.stamp import stamp
from kenpin.folder_names import GOOD
from kenpin.frame import read_picture
from kenpin.pictures import read_data
from kenpin.train.card import interval_of
from kenpin.train.metrics import auroc

COLUMNS = (
    "pictures",
    "train + report, s",
    "export, s",
    "image AUROC (95 %)",
    "brightness alone",
    "pixel AUROC",
    "AUPRO 30 %",
    "escapes per 1,000 at 10 false calls (95 %)",
    "image AUROC of INT8 (of float), 128 pictures",
    "p99 difference of scores, INT8",
)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--size", default="160")
    parser.add_argument("--budget", default="quick")
    parser.add_argument("--seed", default="0")
    options = parser.parse_args()
    setting = f"{options.size} px, {options.budget}, seed {options.seed}"
    print(f"{stamp()}, {setting}\n")
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    for folder in options.folders:
        print(row(folder, options), flush=True)


def row(folder: Path, options: argparse.Namespace) -> str:
    """Train and export one folder: a row of the table."""
    with tempfile.TemporaryDirectory() as scratch:
        run = str(Path(scratch) / "run")
        settings = ["--size", options.size, "--budget", options.budget, "--seed", options.seed]
        trained = kenpin("train", "--data", str(folder), "--run", run, *settings)
        key = f"{scratch}/signing.key"
        kenpin("bundle", "keygen", "--out", key)
        exported = kenpin("export", run, "--out", f"{scratch}/part.kenpin", "--key", key)
    parity = exported["parity"]
    cells = [
        folder.name,
        f"{trained['seconds']:.0f}",
        f"{exported['seconds']:.0f}",
        interval(trained["image_auroc"]),
        f"{brightness(folder):.3f}",
        f"{trained['pixel_auroc']:.3f}" if "pixel_auroc" in trained else "no masks",
        f"{trained['aupro_30']:.3f}" if "aupro_30" in trained else "no masks",
        interval(trained["escapes_at_10_per_1000"], digits=0),
        f"{parity['auroc']['int8']:.3f} (float {parity['auroc']['onnx']:.3f})",
        f"{parity['int8_shift']['p99']:.4f}",
    ]
    return f"| {' | '.join(cells)} |"


def interval(figure: dict[str, float | None], *, digits: int = 3) -> str:
    """Value and interval as text."""
    return f"{figure['value']:.{digits}f} ({interval_of(figure, f'.{digits}f')})"


def brightness(folder: Path) -> float:
    """AUROC of mean brightness alone, in the better direction."""
    test = read_data(folder).test
    means = np.array([read_picture(p.path).mean() for p in test])
    figure = auroc(means, np.array([p.label != GOOD for p in test]))
    return max(figure, 1 - figure)


def kenpin(*arguments: str) -> Any:
    """Run one verb and return its JSON document, where it gives one."""
    wanted = [] if arguments[0] == "bundle" else ["--json"]
    command = [sys.executable, "-m", "kenpin", *arguments, *wanted]
    printed = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return json.loads(printed) if wanted else None


if __name__ == "__main__":
    main()
