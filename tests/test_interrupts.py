"""SIGINT and SIGTERM: before the exchange nothing is written, after it everything."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from torch2mobile import cli, interrupts
from torch2mobile.exporter import staging
from torch2mobile.exporter.bundle import load_bundle, tampered_files
from torch2mobile.exporter.bundle_writer import BundleWriter
from torch2mobile.pipeline.results import ExportResult
from torch2mobile.records import Check, Manifest, Report, Status

MANIFEST = Manifest("net", "net", "", 20, False, 0, (), (), {}, (), {}, {})
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
both = pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)


@pytest.fixture(autouse=True)
def _handlers_stay() -> Iterator[None]:
    before = [signal.getsignal(number) for number in CODES]
    yield
    assert [signal.getsignal(number) for number in CODES] == before


def export_a_bundle(out: Path, text: str = "new", hook: Callable[[], Any] = int) -> ExportResult:
    """What an export does at its end; the hook is called in the middle."""
    with BundleWriter(out) as writer:
        (writer.stage / "model.onnx").write_text(text)
        hook()
        bundle = writer.commit(MANIFEST)
    report = Report("export", "net", (Check("bundle", Status.PASSED, "written"),))
    return ExportResult(report, bundle)


def state(out: Path) -> str:
    """Which bundle stands there: whole, and with nothing beside it but the report."""
    assert tampered_files(load_bundle(out)) == []
    assert {path.name for path in out.parent.iterdir()} <= {out.name, "report.json"}
    return (out / "model.onnx").read_text()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line with an export that is only its end."""
    export_a_bundle(tmp_path / "net", "old")

    def start(hook: Callable[[], Any] = int) -> int:
        monkeypatch.setattr(
            "torch2mobile.pipeline.export.export_request",
            lambda *_, out, **__: export_a_bundle(out, hook=hook),
        )
        report = tmp_path / "report.json"
        return cli.run(
            ["export", "sample:net", "--out", str(tmp_path / "net"), "--report", str(report)]
        )

    return start


@both
def test_before_the_exchange_nothing_is_written(
    run: Callable[..., int], tmp_path: Path, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(lambda: os.kill(os.getpid(), number)) == CODES[signal.Signals(number)]
    assert state(tmp_path / "net") == "old"
    assert not (tmp_path / "report.json").exists()
    told = capsys.readouterr()
    assert (told.out, told.err.splitlines()[-1]) == ("", "interrupted; nothing was written")


@both
@pytest.mark.parametrize("place", ["before", "after"])
def test_at_the_exchange_everything_is(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int,
    place: str, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    real = staging._exchange

    def hit(new: Path, where: Path) -> None:
        for moment in ("before", "after"):
            if moment == place:
                os.kill(os.getpid(), number)
            if moment == "before":
                real(new, where)

    monkeypatch.setattr(staging, "_exchange", hit)
    assert run() == 0
    assert state(tmp_path / "net") == "new"
    assert (tmp_path / "report.json").exists()
    assert "PASSED" in capsys.readouterr().out


@both
def test_after_the_exchange_the_first_changes_nothing_and_a_second_ends_it(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    real = cli.finish

    def late(*arguments: Any) -> int:
        for _ in range(times):
            os.kill(os.getpid(), number)
        return real(*arguments)

    monkeypatch.setattr(cli, "finish", late)
    times = 1
    assert run() == 0
    times = 2
    assert run() == CODES[signal.Signals(number)]
    assert "interrupted; what was written is whole" in capsys.readouterr().err
    assert state(tmp_path / "net") == "new"


def test_one_that_was_swallowed_counts_at_the_exchange(
    run: Callable[..., int], tmp_path: Path
) -> None:
    def swallowed() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)

    assert run(swallowed) == 143
    assert state(tmp_path / "net") == "old"


def test_without_the_command_line_ctrl_c_waits_for_the_end_of_the_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = staging._exchange

    def hit(new: Path, place: Path) -> None:
        signal.raise_signal(signal.SIGINT)
        real(new, place)

    monkeypatch.setattr(staging, "_exchange", hit)
    with pytest.raises(KeyboardInterrupt):
        export_a_bundle(tmp_path / "net")
    assert state(tmp_path / "net") == "new"


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.handled(), interrupts.exchange():
            signal.raise_signal(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_has_no_signals(tmp_path: Path) -> None:
    thread = threading.Thread(target=export_a_bundle, args=[tmp_path / "net"])
    thread.start()
    thread.join()
    assert state(tmp_path / "net") == "new"


# --- real processes ---------------------------------------------------------------------------

PROCESS = """
import sys
import time
from pathlib import Path

sys.path.insert(0, "")
from test_interrupts import export_a_bundle
from torch2mobile import cli
from torch2mobile.pipeline import export

def quick(*_, out, **__):
    def ready():
        print("ready", file=sys.stderr, flush=True)
        time.sleep(0.02)  # or a quick machine is through before any signal is sent
    return export_a_bundle(out, hook=ready)

export.export_request = quick
cli.main()
"""


@pytest.mark.slow
@both
def test_a_process_that_is_hit_at_any_point_leaves_all_or_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    out, drawn, seen = tmp_path / "net", random.Random(0), []
    for _ in range(12):
        export_a_bundle(out, "old")
        process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, "export", "sample:net", "--out", str(out)],
            cwd=Path(__file__).parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        assert "ready\n" in iter(process.stderr.readline, "")
        time.sleep(drawn.uniform(0, 0.05))
        process.send_signal(number)
        told = process.communicate(timeout=60)
        code = process.returncode
        seen.append(code)
        assert (code, state(out)) in {(CODES[number], "old"), (0, "new")}, told
        assert ("PASSED" in told[0]) is (code == 0), told
    # Both sides of the exchange were hit.
    assert set(seen) == {0, CODES[number]}
