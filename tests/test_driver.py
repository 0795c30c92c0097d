from __future__ import annotations

from pathlib import Path

from kenpin.driver import driver_version, is_jetson, l4t_release


def test_the_driver_and_jetson_linux_are_read_where_they_are_told(tmp_path: Path) -> None:
    told = {
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15": "535.104.05",
        "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release": "540.4.0",
        "something else": "",
    }
    path = tmp_path / "file"
    for text, version in told.items():
        path.write_text(text)
        assert driver_version(path) == version
    path.write_text("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64")
    assert l4t_release(path) == "36.4.3"
    assert is_jetson(path)
    assert not is_jetson(tmp_path / "none")
    assert driver_version(tmp_path / "none") == l4t_release(tmp_path / "none") == ""
