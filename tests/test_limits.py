"""What may be taken and asked for: every number of every command and function has a range."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch

import torch2mobile
from torch2mobile import limits
from torch2mobile.cli import cli, run
from torch2mobile.cli_options import Number
from torch2mobile.errors import UsageError
from torch2mobile.records import ParityOptions, Tolerance

OPTIONS = [
    (name, option.opts[0])
    for name, command in cli.commands.items()
    for option in command.params
    if isinstance(option.type, (Number, click.types.IntParamType, click.types.FloatParamType))
]
# These are read from a text that may name an output or a symbol first.
OPTIONS += [(name, f"--{kind}") for name in ("export", "verify") for kind in ("atol", "rtol")]
BAD = ["nan", "inf", "-1", "1e400", "9" * 20, "9" * 5000, "x", "", "0x10", "1e999"]
ARGUMENTS = {
    "export": ["gone.py:Net"],
    "check": ["gone.py:Net"],
    "verify": ["gone", "--against", "gone.py:Net", "--mutants", "2"],
    "debug": ["gone", "--against", "gone.py:Net"],
    "simplify": ["gone.onnx", "out.onnx"],
}


@pytest.mark.parametrize(("command", "option"), OPTIONS, ids=[" ".join(row) for row in OPTIONS])
def test_options_have_ranges(command: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = option.removeprefix("--").replace("-", "_")
    bad = [text for text in BAD if not (name in {"atol", "rtol"} and text == "9" * 20)]
    for text in bad:
        assert run([command, *ARGUMENTS[command], f"{option}={text}"]) == 2
        said = capsys.readouterr().err
        assert f"{option} {text[:40]}: this is not a" in said.splitlines()[0], text[:40]
    assert run([command, *ARGUMENTS[command], f"{option}=1"]) == 2
    assert "gone" in capsys.readouterr().err


def test_a_size_to_fix_has_a_range(capsys: pytest.CaptureFixture[str]) -> None:
    for text in (*BAD, "0", "2.5"):
        assert run(["check", "gone.onnx", "--provider", "nnapi", f"--fix-dim=N={text}"]) == 2
        assert f"--fix-dim N={text[:40]}: this is not a" in capsys.readouterr().err


def parity(**numbers: Any) -> dict[str, Any]:
    return {"parity": ParityOptions(**numbers)}


NET, CALL = torch.nn.ReLU(), (torch.zeros(2),)
WRONG = [float("nan"), float("inf"), -1, 10**20, "1", None, True, np.float64("nan")]


@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_the_api_refuses_the_same(value: Any, tmp_path: Path) -> None:
    tolerance = Tolerance(atol=-1.0 if value == 10**20 else value)
    given: list[dict[str, Any]] = [parity(probes=value), parity(seed=value), parity(timeout=value)]
    given.append(parity(tolerances={"": tolerance}))
    verbs: list[Callable[..., Any]] = [
        partial(torch2mobile.export, NET, CALL),
        partial(torch2mobile.verify, tmp_path),
        partial(torch2mobile.verify, tmp_path, NET, CALL),
        partial(torch2mobile.verify, "gone.onnx", NET, CALL),
        partial(torch2mobile.debug, "gone", NET, CALL),
        partial(torch2mobile.simplify, "gone", "out"),
    ]
    for options, verb in itertools.product(given, verbs):
        with pytest.raises(UsageError, match="this is not a"):
            verb(**options)
    more = [
        lambda: torch2mobile.export(NET, CALL, simplify_timeout=value),
        lambda: torch2mobile.simplify("gone", "out", timeout=value),
        lambda: torch2mobile.verify("gone", NET, CALL, mutants=value),
        lambda: torch2mobile.verify("gone", NET, CALL, mutants=2, min_caught=value),
        lambda: torch2mobile.check(NET, CALL, providers=["nnapi"], fix_dims={"N": value}),
    ]
    if value is not None:
        more.append(lambda: torch2mobile.check(NET, CALL, opset=value))
        more.append(lambda: torch2mobile.export(NET, CALL, opset=value))
    for call in more:
        with pytest.raises(UsageError, match="this is not a"):
            call()


def test_numpy_numbers_are_numbers() -> None:
    limits.check_number("probes", np.int64(3))
    limits.check_number("timeout", np.float32(3.5))
    limits.check_number("min_caught", 1)
