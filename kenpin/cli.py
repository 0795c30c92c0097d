"""The command line: a thin skin. Each stage is imported only when one of its verbs is asked for."""

from __future__ import annotations

import errno
import platform
import sys
from typing import NoReturn

import click

from kenpin import __version__
from kenpin.commit import git_commit
from kenpin.errors import ConfigError, KenpinError
from kenpin.lazy_group import LazyGroup

# verb -> (module:command, extra that brings what it needs, help). The help stands here so that
# `kenpin --help` need not import torch.
_VERBS = {
    "demo": ("kenpin.demo:demo", "demo", "The whole line on this machine: no camera, GPU, broker or network."),
    "train": ("kenpin.train.cli:train", "train", "Learn what good parts look like."),
    "evaluate": ("kenpin.train.evaluate_cli:evaluate", "train", "Measure a run or a bundle on test pictures."),
    "report": ("kenpin.train.report_cli:report", "train", "Rewrite a run's report, or compare runs."),
    "bench": ("kenpin.bench_cli:bench", "train", "Measure the training against flat ones, and more."),
    "export": ("kenpin.export.cli:export", "export,train", "Turn a run into a signed bundle."),
    "bundle": ("kenpin.bundle_cli:bundle", "edge", "Verify, show and install bundles; make signing keys."),
    "calibrate": ("kenpin.calibration.cli:calibrate", "edge", "Set the thresholds, with proof."),
    "masters": (
        "kenpin.calibration.masters_cli:masters",
        "edge",
        "Keep limit samples, and check that the station still sees them.",
    ),
    "web": ("kenpin.calibration.web_cli:web", "ui", "Serve the technician's page."),
    "review": ("kenpin.calibration.review_cli:review", "edge", "Use the answers of the review bench."),
    "audit": ("kenpin.audit_cli:audit", "edge", "Read and check the station's audit."),
    "build-engine": (
        "kenpin.export.build_engine_cli:build_engine",
        "edge",
        "Build the TensorRT engine of a bundle, on the station.",
    ),
    "verify-engine": (
        "kenpin.edge_runtime.verify_engine:verify_engine",
        "edge",
        "Score known frames with the station's engine, and sign the outcome.",
    ),
    "run": ("kenpin.edge_runtime.cli:run", "edge", "Run the station: frames to verdicts to MQTT."),
    "record": ("kenpin.edge_runtime.source_cli:record", "edge", "Write a source's frames to a folder."),
    "trigger": ("kenpin.edge_runtime.source_cli:trigger", "edge", "Ask a running station for one part."),
    "events": ("kenpin.edge_runtime.cli:events", "edge", "Read the station's events."),
    "doctor": ("kenpin.edge_runtime.doctor_cli:doctor", "edge", "Say what is wrong here, and what to do."),
    "support": (
        "kenpin.edge_runtime.doctor_cli:support",
        "edge",
        "Collect what a helper needs, without secrets.",
    ),
    "mqtt": ("kenpin.edge_runtime.mqtt_cli:mqtt", "edge", "Make certificates and rules for the MQTT broker."),
    "command": ("kenpin.edge_runtime.command_cli:command", "edge", "Sign commands to a station."),
    "simulate": (
        "kenpin.edge_runtime.simulate_cli:simulate",
        "edge",
        "Publish all that a station can say, without a camera.",
    ),
    "service": ("kenpin.edge_runtime.service_cli:service", "edge", "Run a station by systemd."),
    "config": ("kenpin.edge_runtime.config_cli:config", "edge", "Check a station's configuration."),
}

_FULL = (errno.ENOSPC, errno.EDQUOT)


class _Verbs(LazyGroup):
    """Says which package a verb lacks."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ImportError as error:
            if error.name is not None and error.name.split(".")[0] == "kenpin":
                raise
            raise _package_error(error, str(ctx.invoked_subcommand)) from None


def _package_error(error: ImportError, verb: str) -> ConfigError:
    """Say which package a verb lacks, at its import or later: heavy ones are imported when it runs."""
    what = f"kenpin {verb} needs the Python package {error.name}, which is not installed"
    if not isinstance(error, ModuleNotFoundError):
        what = f"kenpin {verb} cannot load a Python package: {error}"
    cure = f"pip install 'kenpin[{_VERBS[verb][1]}]'"
    if error.name is not None and error.name.split(".")[0] == "cv2" and platform.machine() == "aarch64":
        cure = "apt install python3-opencv, in an environment made with --system-site-packages"
    return ConfigError(what, where=sys.prefix, cure=cure)


def _file_error(error: OSError) -> ConfigError:
    """Say what is wrong with the file or folder that a verb could not use."""
    cure = "check the path"
    if error.errno in _FULL:
        cure = "make room there, or choose another place"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        cure = "let this user work there, or choose another place"
    where = error.filename or "where the output goes"
    return ConfigError(f"a file cannot be used: {error.strerror}", where=where, cure=cure)


def _tell_version(context: click.Context, _option: click.Parameter, is_asked: bool) -> None:
    if is_asked:
        commit = git_commit()
        click.echo(f"kenpin, version {__version__}{f' ({commit})' if commit else ''}")
        context.exit()


@click.group(cls=_Verbs, commands_at=_VERBS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_tell_version,
    help="Show version and commit.",
)
def cli() -> None:
    """Visual inspection stations from pictures of good parts.

    Start with: kenpin demo
    """


def main() -> NoReturn:
    """Run the command line. Exit codes: 0 fine, 1 failed check, 2 wrong usage, 130 stopped by Ctrl-C."""
    try:
        sys.exit(cli.main(standalone_mode=False, prog_name="kenpin") or 0)
    except KenpinError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except OSError as error:
        if error.filename is None and error.errno not in _FULL:
            raise  # not about a place that somebody has chosen: its traceback is needed
        failed = _file_error(error)
        click.echo(f"error: {failed}", err=True)
        sys.exit(failed.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
