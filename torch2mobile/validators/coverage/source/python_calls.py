"""What the code does beside torch while it runs: attributes, new layers, clocks, prints.

Called by Python itself, as a profiler is, at each call of a function.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

import torch

from torch2mobile.validators.coverage.source.lasting_containers import Containers
from torch2mobile.validators.coverage.source.sightings import Observation, Stack

# What is read from outside is fixed at the moment of the export.
_OUTSIDE = {"time", "datetime", "random", "os", "uuid", "secrets", "socket"}
_PRINTING = {"print", "open", "input", "breakpoint"}
_LOGGING = {"debug", "info", "warning", "warn", "error", "exception", "critical", "log"}
_EXPORTING = {"is_exporting", "is_compiling", "is_in_onnx_export"}
_STDLIB = sysconfig.get_paths()["stdlib"]
_NEVER = "runs while exporting, never on the phone"


class PythonCalls:
    """A profiler that notes what the rules ask; ``stack`` finds the user's lines."""

    def __init__(self, stack: Stack, seen: Observation, containers: Containers) -> None:
        self._stack, self._seen, self._containers = stack, seen, containers
        self._actions: dict[CodeType, Callable[[FrameType], None] | None] = {
            torch.nn.Module.__setattr__.__code__: self._attribute,
            torch.nn.Module.__init__.__code__: self._made,
            torch.nn.Parameter.__new__.__code__: self._made,
            torch.autograd.Function.apply.__func__.__code__: self._own_function,  # type: ignore[attr-defined]
            torch.autograd.grad_mode.set_grad_enabled.__init__.__code__: self._grad_mode,
        }

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        """Look at a call of a function of Python's or of C's."""
        if event == "c_call":
            self._native(frame, arg)
        elif event == "call":
            code = frame.f_code
            if code not in self._actions:
                self._actions[code] = self._action(frame)
            action = self._actions[code]
            if action is not None:
                action(frame)

    def _action(self, frame: FrameType) -> Callable[[FrameType], None] | None:
        """What to do at calls of a function that was not called before."""
        code, module = frame.f_code, str(frame.f_globals.get("__name__", ""))
        if self._stack.is_users(code):
            place = self._stack.place(frame)
            if place is not None:
                self._seen.ran[code] = place
            self._containers.add_globals(frame)
        elif module in _OUTSIDE:
            return self._outside
        elif module == "logging" and code.co_name in _LOGGING:
            return self._logged
        elif module == "torch.autograd.grad_mode" and code.co_name == "__enter__":
            return self._grad_mode
        elif module.startswith("torch.") and code.co_name in _EXPORTING:
            return self._exporting
        return None

    def _native(self, frame: FrameType, function: Any) -> None:
        module = getattr(function, "__module__", None)
        if not isinstance(module, str):
            owner = function.__self__
            module = (owner if isinstance(owner, type) else type(owner)).__module__
        name = function.__name__
        if name in _PRINTING and module in {"builtins", "io", "_io"}:
            self._direct(frame, "T2M142", f"{name}() {_NEVER}")
        elif module in _OUTSIDE:
            self._direct(frame, "T2M143", f"{module}.{name}() is asked once, while exporting")

    def _direct(self, frame: FrameType | None, code: str, message: str) -> None:
        """Keep a sighting if a line of the user's makes the call, the standard library between."""
        for each in self._stack.up(frame):
            name = each.f_code.co_filename
            if "importlib" in name:
                return
            if not name.startswith(("<frozen", _STDLIB)) or "site-packages" in name:
                if self._stack.is_users(each.f_code):
                    self._seen.see(code, self._stack.place(each), message)
                return

    def _outside(self, frame: FrameType) -> None:
        module, name = frame.f_globals["__name__"], frame.f_code.co_name
        what = f"{module}.environ" if name.startswith("__") else f"{module}.{name}()"
        self._direct(frame.f_back, "T2M143", f"{what} is asked once, while exporting")

    def _logged(self, frame: FrameType) -> None:
        self._direct(frame.f_back, "T2M142", f"logging.{frame.f_code.co_name}() {_NEVER}")

    def _exporting(self, frame: FrameType) -> None:
        name = f"{frame.f_globals['__name__']}.{frame.f_code.co_name}()"
        self._direct(frame.f_back, "T2M145", f"{name} is true only while exporting")

    def _grad_mode(self, frame: FrameType) -> None:
        name = type(frame.f_locals["self"]).__name__
        self._direct(frame.f_back, "T2M141", f"{name} changes nothing in a file")

    def _own_function(self, frame: FrameType) -> None:
        kind = frame.f_locals["cls"]
        if kind.__module__.partition(".")[0] != "torch":
            message = f"{kind.__name__} is an autograd.Function of your own"
            self._seen.see("T2M110", self._stack.place(frame), message)

    def _attribute(self, frame: FrameType) -> None:
        """An attribute of one of the module's layers is set, by a line of the user's."""
        owner, name = frame.f_locals["self"], frame.f_locals["name"]
        path, caller = self._stack.paths.get(id(owner)), frame.f_back
        while caller is not None and caller.f_code.co_name == "__setattr__":
            caller = caller.f_back
        if path is None or caller is None or not self._stack.is_users(caller.f_code):
            return
        place = self._stack.place(caller)
        if name in owner._buffers:
            self._seen.see("T2M122", place, f"the buffer {name} is replaced")
            return
        sighting = self._seen.see("T2M124", place, f"self.{name} is set while forward runs")
        if sighting is not None:
            self._seen.kept.append((path, name, sighting))

    def _made(self, frame: FrameType) -> None:
        """A layer or parameter is made; of a layer's parts only the layer counts."""
        outermost, kind = frame, frame.f_locals.get("cls")
        for each in self._stack.up(frame):
            made = each.f_locals.get("self") if each.f_code.co_name == "__init__" else None
            if isinstance(made, torch.nn.Module):
                outermost, kind = each, type(made)
        maker = outermost.f_back
        if kind is not None and maker is not None and self._stack.is_users(maker.f_code):
            message = f"{kind.__name__} is made anew at every call"
            self._seen.see("T2M123", self._stack.place(maker), message)
