"""Calls in another process: whatever happens there, here it is a value or one clear error."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_models
import pytest

from torch2mobile import environments, limits
from torch2mobile.environments import Environment, Worker, describe_exit
from torch2mobile.errors import (
    InputError,
    MissingToolError,
    ModelFileError,
    WorkerCallError,
    WorkerCrashError,
    WorkerTimeoutError,
)
from torch2mobile.isolation import IsolatedRunner

WAIT = 60.0


@pytest.fixture(scope="module")
def shared() -> Iterator[Worker]:
    """A worker for the tests that leave it alive."""
    with Worker() as worker:
        yield worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker() as worker:
        yield worker


# --- calls ------------------------------------------------------------------------------------


def test_a_call_returns(shared: Worker) -> None:
    assert shared.call("math:gcd", 12, 18, timeout=WAIT) == 6
    assert shared.call("os:getpid", timeout=WAIT) not in {os.getpid(), os.getppid()}


def test_answers_come_in_order(shared: Worker) -> None:
    for number in range(5):
        shared.submit("operator:neg", number)
    assert [shared.result(WAIT) for _ in range(5)] == [0, -1, -2, -3, -4]


def test_large_arrays_there_and_back(shared: Worker) -> None:
    array = np.arange(4_000_000, dtype="f4").reshape(1000, -1)
    back = shared.call("numpy:negative", array, timeout=WAIT)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, -array)


@pytest.mark.parametrize("text", ["junk", "\x80\x05junk.\n" * 10_000])
def test_prints_do_not_disturb_the_answers(shared: Worker, text: str) -> None:
    assert shared.call("builtins:print", text, timeout=WAIT) is None
    assert shared.call("os:write", 1, text.encode(), timeout=WAIT) > 0
    assert shared.call("os:system", "echo from a child process", timeout=WAIT) == 0
    assert shared.call("math:gcd", 12, 18, timeout=WAIT) == 6


def test_the_worker_reads_nothing_from_the_requests(shared: Worker) -> None:
    """File descriptor 0 is not the pipe with the requests: code that reads it gets nothing."""
    assert shared.call("os:read", 0, 10, timeout=WAIT) == b""
    assert shared.call("math:gcd", 12, 18, timeout=WAIT) == 6


def test_what_goes_to_stderr_is_kept(worker: Worker) -> None:
    worker.call("os:write", 2, b"first\n", timeout=WAIT)
    position = worker.log_position()
    worker.call("os:write", 2, b"second \xff\n", timeout=WAIT)
    assert worker.log_since(0) == "first\nsecond \ufffd\n"
    assert worker.log_since(position) == "second \ufffd\n"


# --- errors -----------------------------------------------------------------------------------


def test_an_exception_comes_back_with_its_message(shared: Worker) -> None:
    with pytest.raises(WorkerCallError, match=r"^ValueError: math domain error$|nonnegative"):
        shared.call("math:sqrt", -1.0, timeout=WAIT)
    with pytest.raises(WorkerCallError, match=r"AttributeError.*nothing"):
        shared.call("math:nothing", timeout=WAIT)
    with pytest.raises(MissingToolError, match="ModuleNotFoundError: No module named 'nowhere'"):
        shared.call("nowhere:nothing", timeout=WAIT)
    assert shared.alive


def test_our_own_errors_come_back_whole(shared: Worker) -> None:
    with pytest.raises(InputError) as caught:
        shared.call(
            "torch2mobile.exporter.loading.inputs:parse_input", "x:float33[2]", timeout=WAIT
        )
    assert "unknown dtype 'float33'" in caught.value.message
    assert "float32" in caught.value.remedy


def test_an_error_keeps_all_its_parts_when_it_travels() -> None:
    error = ModelFileError("message", "remedy", ("place",), ("detail",))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is ModelFileError
    assert (again.message, again.remedy, again.locations, again.details) == (
        "message", "remedy", ("place",), ("detail",),
    )  # fmt: skip
    assert str(again) == "message"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (("os:abort",), "died of SIGABRT"),
        (("signal:raise_signal", signal.SIGSEGV), "died of SIGSEGV"),
        (("signal:raise_signal", signal.SIGKILL), "died of SIGKILL"),
        (("sys:exit", 3), "exited with status 3"),
        (("os:_exit", 7), "exited with status 7"),
        (("sys:exit", "so long"), r"exited with status 1 \(so long\)"),
        (("threading:Lock",), r"exited with status 1 \(TypeError: cannot pickle"),
    ],
)
def test_a_death_is_named(worker: Worker, call: tuple[Any, ...], text: str) -> None:
    with pytest.raises(WorkerCrashError, match=f"^the worker process {text}"):
        worker.call(*call, timeout=WAIT)
    assert not worker.alive
    # And so is every call after it.
    with pytest.raises(WorkerCrashError, match=text.split(" ", maxsplit=1)[0]):
        worker.call("math:gcd", 1, 1, timeout=WAIT)


def test_a_signal_without_a_name() -> None:
    assert describe_exit(-200) == "exited with status -200"
    assert describe_exit(-9) == "died of SIGKILL"


def test_the_last_words_are_told(worker: Worker) -> None:
    worker.call("os:write", 2, b"early\n", timeout=WAIT)
    worker.call("os:write", 2, b"free(): invalid pointer\n\n", timeout=WAIT)
    with pytest.raises(WorkerCrashError, match=r"SIGABRT \(free\(\): invalid pointer\)"):
        worker.call("os:abort", timeout=WAIT)


def test_too_long_a_call_is_stopped(worker: Worker) -> None:
    with pytest.raises(WorkerTimeoutError, match=r"no answer within 0\.2 s") as caught:
        worker.call("time:sleep", 600, timeout=0.2)
    assert "--timeout" in caught.value.remedy
    assert not worker.alive


def test_the_last_words_before_a_hang_are_told(worker: Worker) -> None:
    worker.call("os:write", 2, b"pass 3 of 9\n", timeout=WAIT)
    with pytest.raises(WorkerTimeoutError, match=r"and was stopped \(pass 3 of 9\)"):
        worker.call("time:sleep", 600, timeout=0.2)


@pytest.mark.parametrize("before", [float("inf"), WAIT, 1.0])
def test_each_call_has_a_time_of_its_own(worker: Worker, before: float) -> None:
    """One watchdog serves them all, whatever it was told before, and leaves the idle alone."""
    worker.call("math:gcd", 1, 1, timeout=WAIT)  # the process has started
    for _ in range(3):
        worker.call("math:gcd", 1, 1, timeout=before)
    time.sleep(1.2)
    assert worker.call("math:gcd", 12, 18, timeout=WAIT) == 6
    with pytest.raises(WorkerTimeoutError, match="no answer"):
        worker.call("time:sleep", 600, timeout=0.1)


def test_calls_start_no_threads_of_their_own(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take longer than a small model runs."""
    worker.call("math:gcd", 1, 1, timeout=WAIT)
    started: list[threading.Thread] = []
    monkeypatch.setattr(threading.Thread, "start", started.append)
    for _ in range(5):
        worker.call("math:gcd", 1, 1, timeout=WAIT)
    assert not started


def test_an_endless_timeout_can_be_asked_for(shared: Worker) -> None:
    assert shared.call("math:gcd", 12, 18, timeout=float("inf")) == 6


def test_close_abandons_a_running_call_and_may_be_repeated() -> None:
    worker = Worker()
    pid = worker.call("os:getpid", timeout=WAIT)
    worker.submit("time:sleep", 600)
    worker.close()
    assert gone(pid)
    worker.close()


# --- what the worker may and may not ----------------------------------------------------------


def test_torch_is_there_only_where_it_is_wanted(shared: Worker) -> None:
    with pytest.raises(MissingToolError, match=r"ModuleNotFoundError.*torch"):
        shared.call("torch:get_num_threads", timeout=WAIT)
    with Worker(environment=Environment(torch=True)) as worker:
        assert worker.call("torch:get_num_threads", timeout=WAIT) >= 1


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("socket:create_connection", (("127.0.0.1", 9), 1.0)),
        ("socket:gethostbyname_ex", ("localhost",)),
        ("socket:gethostbyaddr", ("127.0.0.1",)),
        ("socket:getaddrinfo", ("localhost", 80)),
        ("socket:getnameinfo", (("127.0.0.1", 80), 0)),
        ("urllib.request:urlopen", ("http://127.0.0.1:9/count", None, 1.0)),
    ],
)
def test_a_worker_that_tries_the_network_is_refused(
    shared: Worker, function: str, arguments: tuple[Any, ...]
) -> None:
    with pytest.raises(WorkerCallError, match="there is no network for converters"):
        shared.call(function, *arguments, timeout=WAIT)


def test_a_worker_may_talk_to_its_own_machine_by_files(shared: Worker) -> None:
    with pytest.raises(WorkerCallError, match="FileNotFoundError"):
        shared.call("multiprocessing.connection:Client", "/no/such/socket", timeout=WAIT)


def test_another_python_sees_nothing_that_was_made_for_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch2mobile").symlink_to(Path(environments.__file__).parent)
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('for another processor')")
    monkeypatch.setattr(environments, "_PACKAGE_ROOT", str(tmp_path))
    other = Environment("a Python of its own", python=sys.executable)
    with Worker(environment=other) as worker:
        assert worker.call("colorsys:rgb_to_hsv", 0, 0, 0, timeout=WAIT) == (0, 0, 0)
        assert worker.call("torch2mobile.limits:size_text", 1 << 30, timeout=WAIT)


def test_preloaded_modules_are_there_and_missing_ones_no_matter() -> None:
    with Worker(preload=["colorsys", "not_installed_here"]) as worker:
        loaded = worker.call("builtins:eval", "list(__import__('sys').modules)", timeout=WAIT)
    assert "colorsys" in loaded
    assert "numpy" not in loaded


def test_the_working_directory_is_not_imported_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('a trap')")
    monkeypatch.chdir(tmp_path)
    with Worker() as worker:
        assert worker.call("colorsys:rgb_to_hsv", 0, 0, 0, timeout=WAIT) == (0, 0, 0)


def test_ctrl_c_is_the_parents_affair() -> None:
    # A background job ignores SIGINT, and so would its children in any case.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Worker() as worker:
            os.kill(worker.call("os:getpid", timeout=WAIT), signal.SIGINT)
            assert worker.call("math:gcd", 12, 18, timeout=WAIT) == 6
    finally:
        signal.signal(signal.SIGINT, before)


# --- the parent's death -----------------------------------------------------------------------

PARENT = """
import sys, time
from torch2mobile.environments import Worker
worker = Worker()
print(worker.call("os:getpid", timeout=60), flush=True)
if sys.argv[1] == "busy":
    worker.submit("time:sleep", 600)
time.sleep(600)
"""


def gone(pid: int) -> bool:
    """Whether the process ends within some seconds (or is dead and not collected)."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    return True
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_worker_ends_with_its_parent(state: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, state], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout as lines:
        pid = int(lines.readline())
        os.kill(pid, 0)
        time.sleep(0.2 if state == "busy" else 0)
        parent.kill()
        parent.wait()
    assert gone(pid)


STARTED = ["sh", "-c", "echo $$ > pid; exec sleep 600"]


def started_in(folder: Path) -> int:
    """The program that a worker has started there, when it has."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            return int((folder / "pid").read_text())
        time.sleep(0.02)
    raise AssertionError


def test_a_program_that_a_worker_has_started_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Worker() as worker, pytest.raises(WorkerTimeoutError):
        worker.call("subprocess:run", STARTED, timeout=2)
    assert gone(started_in(tmp_path))
    text = PARENT.replace('"time:sleep", 600', f'"subprocess:run", {STARTED!r}')
    (tmp_path / "pid").unlink()
    with subprocess.Popen([sys.executable, "-c", text, "busy"], stdout=subprocess.PIPE) as parent:
        pid = started_in(tmp_path)
        os.kill(pid, 0)
        parent.kill()
    assert gone(pid)


# --- runners ----------------------------------------------------------------------------------

HELPER = """
import os, sys, time
from torch2mobile.records import OutputSpec

class Runner:
    def __init__(self, name, *, fail=False):
        print("loading", name, file=sys.stderr, flush=True)
        if name == "bad":
            from torch2mobile.errors import ModelFileError
            raise ModelFileError("cannot load it")
        if name == "deadly":
            os.abort()
        self.name = name
    def inputs(self):
        return (OutputSpec("x", "float32", ("N",)),)
    def outputs(self):
        return (OutputSpec(self.name, "int64", ()),)
    def run(self, feeds):
        value = feeds["x"][0]
        if value == -1:
            os.abort()
        if value == -2:
            time.sleep(600)
        if value == -3:
            raise ValueError("not this one")
        return [("pid", os.getpid()), ("y", 2 * feeds["x"])]
"""
LOADER = "worker_helper:Runner"


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "worker_helper.py").write_text(HELPER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def feeds(value: float) -> dict[str, Any]:
    return {"x": np.array([value])}


def pid_of(runner: IsolatedRunner) -> int:
    found = dict(runner.run(feeds(1)))
    np.testing.assert_array_equal(found["y"], [2])
    return int(found["pid"])


def test_a_runner_elsewhere_is_like_one_here(helper: None) -> None:
    with IsolatedRunner(LOADER, "net", timeout=WAIT) as runner:
        assert [spec.name for spec in runner.inputs()] == ["x"]
        assert [spec.name for spec in runner.outputs()] == ["net"]
        pid = pid_of(runner)
        assert pid not in {os.getpid(), 0}
        assert pid_of(runner) == pid
        assert runner.load_log == "loading net\n"
    assert gone(pid)


@pytest.mark.parametrize(
    ("value", "error", "timeout"), [(-1, WorkerCrashError, WAIT), (-2, WorkerTimeoutError, 0.3)]
)
def test_after_a_death_the_next_call_has_a_new_process(
    helper: None, value: int, error: type[Exception], timeout: float
) -> None:
    with IsolatedRunner(LOADER, "net", timeout=WAIT) as runner:
        before = pid_of(runner)
        runner._timeout = timeout
        with pytest.raises(error):
            runner.run(feeds(value))
        runner._timeout = WAIT
        assert pid_of(runner) != before


def test_after_an_exception_the_process_stays(helper: None) -> None:
    with IsolatedRunner(LOADER, "net", timeout=WAIT) as runner:
        before = pid_of(runner)
        with pytest.raises(WorkerCallError, match="ValueError: not this one"):
            runner.run(feeds(-3))
        assert pid_of(runner) == before


@pytest.mark.parametrize(("name", "error"), [("bad", ModelFileError), ("deadly", WorkerCrashError)])
def test_what_does_not_load_fails_on_each_call(
    helper: None, name: str, error: type[Exception]
) -> None:
    with IsolatedRunner(LOADER, name, timeout=WAIT) as runner:
        for _ in range(2):
            with pytest.raises(error):
                runner.inputs()


def test_loading_can_begin_before_it_is_waited_for(helper: None) -> None:
    with IsolatedRunner(LOADER, "net", timeout=WAIT) as runner:
        runner.begin()
        runner.load()
        assert runner.load_log == "loading net\n"
        pid_of(runner)


def test_runners_can_share_a_process(helper: None) -> None:
    with Worker() as worker:
        first = IsolatedRunner(LOADER, "first", timeout=WAIT, worker=worker)
        second = IsolatedRunner(LOADER, "second", timeout=WAIT, worker=worker)
        first.begin()
        second.begin()
        first.load()
        second.load()
        assert pid_of(first) == pid_of(second) == worker.call("os:getpid", timeout=WAIT)
        assert second.outputs()[0].name == "second"
        assert (first.load_log, second.load_log) != ("", "")
        first.close()
        assert worker.alive
        assert second.outputs()[0].name == "second"
        second.close()
        assert worker.alive


def test_a_shared_process_that_dies_is_replaced_for_each(helper: None) -> None:
    with Worker() as worker:
        runners = [IsolatedRunner(LOADER, n, timeout=WAIT, worker=worker) for n in ("a", "b")]
        before = {pid_of(runner) for runner in runners}
        assert len(before) == 1
        with pytest.raises(WorkerCrashError):
            runners[0].run(feeds(-1))
        after = {pid_of(runner) for runner in runners}
        assert len(after) == 2
        assert not after & before
        assert [runner.outputs()[0].name for runner in runners] == ["a", "b"]
        for runner in runners:
            runner.close()
        assert all(gone(pid) for pid in after)


@pytest.mark.parametrize(
    "environment",
    [
        Environment("an emulator", launcher=("no-such-emulator",), install="make one"),
        Environment("a Python of its own", python="/no/such/python", install="make one"),
    ],
)
def test_an_environment_that_is_not_there_says_what_makes_it(environment: Environment) -> None:
    with pytest.raises(MissingToolError, match=f"{environment.name} needs .*no") as caught:
        Worker(environment=environment)
    assert caught.value.remedy == "Run: make one"


def test_a_launcher_and_variables_reach_the_process() -> None:
    environment = Environment(launcher=("env", "SEEN=launcher"), variables={"ALSO": "variables"})
    with Worker(environment=environment) as worker:
        seen = [worker.call("os:getenv", name, timeout=60) for name in ("SEEN", "ALSO")]
    assert seen == ["launcher", "variables"]


# --- memory -----------------------------------------------------------------------------------

SMALL = Environment(memory=1 << 30)


def test_memory_has_a_limit_and_the_worker_lives_on() -> None:
    with Worker(environment=SMALL) as worker:
        with pytest.raises(WorkerCallError, match=r"a process may take 1\.1 GB"):
            worker.call("numpy:ones", 400_000_000, timeout=WAIT)
        assert worker.call("math:gcd", 12, 18, timeout=WAIT) == 6


def test_a_small_file_that_asks_for_much_is_refused(tmp_path: Path) -> None:
    node = onnx_models.one("Expand", [1], constants={"shape": np.array([1 << 32])})
    onnx.save(node, tmp_path / "model.onnx")
    loader = "torch2mobile.exporter.targets.ort:OrtRunner"
    with (
        Worker(environment=SMALL) as worker,
        IsolatedRunner(loader, tmp_path / "model.onnx", timeout=WAIT, worker=worker) as runner,
        pytest.raises(WorkerCallError, match="ran out of memory"),
    ):
        runner.run({"x": np.ones(1, "f4")})


def test_by_default_a_worker_may_take_three_quarters_of_the_machine() -> None:
    assert Environment().memory == limits.machine_memory() * 3 // 4 > 1 << 28
