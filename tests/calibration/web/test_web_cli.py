from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kenpin.calibration import web_cli
from kenpin.config import WebSection
from kenpin.errors import ConfigError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "station.toml"
    path.write_text(
        f'[station]\ntopic = "plant/l2/L2-03"\nstate_dir = "{tmp_path / "state"}"\n'
        '[source]\nurl = "synthetic:cast_disc"\n[evidence]\nreview_mb = 7\n'
    )
    return path


def test_the_page_of_a_configured_station_is_served_and_then_told(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served: list[Any] = []
    monkeypatch.setattr(web_cli, "serve", lambda *given: served.extend(given))
    result = CliRunner().invoke(web_cli.web, ["--config", str(config)], catch_exceptions=False)
    assert result.exit_code == 0
    app, section, listens = served
    assert "the page is at" not in result.stderr  # nor where the port is taken
    listens()
    assert capsys.readouterr().err == "the page is at http://127.0.0.1:8080\n"
    assert section == WebSection()
    assert (app.state.site.station, app.state.site.review_mb) == ("L2-03", 7)
    assert app.state.site.folder.root == config.parent / "state"


def test_a_configuration_is_needed() -> None:
    result = CliRunner().invoke(web_cli.web, [])
    assert result.exit_code == 2
    assert "--config station.toml" in result.stderr


def test_a_missing_configuration_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        CliRunner().invoke(web_cli.web, ["--config", str(tmp_path / "x.toml")], catch_exceptions=False)
