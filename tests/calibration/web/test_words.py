"""Every language has every word, with the same placeholders, and the page asks for no other."""

from __future__ import annotations

import json
import re
import string
from pathlib import Path
from typing import get_args

import pytest

import kenpin.calibration.web as package
from kenpin.calibration.web.words import LANGUAGES, Words, load_words
from kenpin.edge_runtime.alarm_catalogue import CATALOGUE
from kenpin.edge_runtime.decide import Verdict
from kenpin.edge_runtime.vitals import Vitals
from kenpin.masters_due import DueKey
from kenpin.quality_limits import Finding

FOLDER = Path(str(package.__file__)).parent


def texts(language: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((FOLDER / f"{language}.json").read_text(encoding="utf-8"))
    return found


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("language", ["ja", "de"])
def test_every_language_has_every_word(language: str) -> None:
    english, other = texts("en"), texts(language)
    assert list(other) == list(english)
    for key, text in english.items():
        assert placeholders(other[key]) == placeholders(text), key
        assert other[key].strip(), key


def test_the_languages_offered_are_those_there_are() -> None:
    assert set(LANGUAGES) == {path.stem for path in FOLDER.glob("*.json")} == set(load_words())


@pytest.mark.parametrize("language", ["ja", "de"])
def test_words_are_translated(language: str) -> None:
    english, other = texts("en"), texts(language)
    # What is the same everywhere, on purpose.
    allowed = {
        "login_pin",
        "login_name",
        "verdict_OK",
        "verdict_NG",
        "state_FAULT",
        "passed",
        "failed",
        "what_masters",
    }
    assert {key for key in english if other[key] == english[key]} <= allowed


def test_what_the_templates_and_modules_ask_for_is_there() -> None:
    asked = set()
    for path in [*FOLDER.glob("templates/*.html"), *FOLDER.glob("*.py")]:
        asked |= set(re.findall(r"""words\(['"](\w+)['"][,)]""", path.read_text()))
        asked |= set(re.findall(r"""Refused\(\d+, ['"](\w+)['"]""", path.read_text()))
    assert len(asked) > 40
    assert asked <= set(texts("en"))


def test_every_alarm_verdict_state_and_finding_has_words() -> None:
    english = texts("en")
    for alarm in CATALOGUE:
        assert english[f"alarm_{alarm.key}"] == alarm.message
        assert english[f"alarm_{alarm.key}_do"] == alarm.operator_action
    wanted = {f"verdict_{verdict.value}" for verdict in Verdict}
    wanted |= {f"cause_{finding.value}" for finding in Finding}
    wanted |= {f"due_{key}" for key in get_args(DueKey)}
    wanted |= {f"state_{state}" for state in Vitals.model_fields["state"].annotation.__args__}  # type: ignore[union-attr]
    assert wanted <= set(english)


def test_no_word_stands_there_for_nothing() -> None:
    text = "".join(path.read_text() for path in [*FOLDER.glob("templates/*.html"), *FOLDER.glob("*.py")])
    made = (
        "alarm_",
        "verdict_",
        "cause_",
        "state_",
        "calibration_",
        "nav_",
        "role_",
        "what_",
        "due_",
        "unfit_",
    )
    assert not [key for key in texts("en") if not key.startswith(made) and key not in text]


@pytest.mark.parametrize(
    ("language", "number", "score"),
    [("en", "1,284.5", "0.2500"), ("ja", "1,284.5", "0.2500"), ("de", "1.284,5", "0,2500")],
)
def test_numbers_are_written_as_the_language_does(language: str, number: str, score: str) -> None:
    words = Words(language, {"hello": "{n} of {who}"})
    assert words.number(1284.5, 1) == number
    assert words.score(0.25) == score
    few, none, half = (words.per_thousand(seen, of) for seen, of in ((1, 3000), (0, 3000), (25, 50)))
    assert (few.replace(",", "."), none, half) == ("0.4", "0", "500")
    assert words.score(1234.4) == "1234"
    assert words("hello", n=1284, who="1284") == words.number(1284) + " of 1284"
