"""Ctrl-C in the middle of an import: said at once, and at each later call."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import torch2mobile
from torch2mobile.errors import HalfImportedError
from torch2mobile.pipeline import whole_imports


class Lazy(nn.Module):
    """Imports something on its first call, as torch.export does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        import interrupted_library  # type: ignore[import-not-found]  # noqa: F401

        return x


class Slow(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt


CALL = (torch.zeros(2, 3),)


def test_an_interrupted_import_needs_a_new_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "site-packages" / "interrupted_library.py"
    library.parent.mkdir()
    library.write_text("import json\nraise KeyboardInterrupt\n")
    monkeypatch.syspath_prepend(library.parent)
    monkeypatch.setattr(whole_imports, "_half", [])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt, match=r"interrupted_library .* restart Python"):
        torch2mobile.export(Lazy(), CALL, simplify=False)
    assert "interrupted_library" not in sys.modules
    for call in (torch2mobile.export, torch2mobile.check):
        with pytest.raises(HalfImportedError, match="interrupted_library") as caught:
            call(nn.ReLU(), CALL)
        assert "kernel" in caught.value.remedy
    with pytest.raises(HalfImportedError):
        torch2mobile.verify(tmp_path)


def test_any_other_interrupt_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_imports, "_half", [])
    with pytest.raises(KeyboardInterrupt) as caught:
        torch2mobile.check(Slow(), CALL)
    assert str(caught.value) == ""
    assert whole_imports._half == []
