"""Watching or replacing what torch runs, operation by operation, below autograd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """Within it, :meth:`operation` runs in place of each operation.

    A higher-order operator, such as torch.cond, runs as it is.
    """

    supports_higher_order_operators = True
    _higher_order = False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here: telling TorchDynamo so would import it, for some seconds."""
        return False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Hand the operation over; the types are torch's own."""
        if isinstance(func, HigherOrderOperator):
            self._higher_order = True
            return func(*args, **(kwargs or {}))
        return self.operation(func, args, kwargs or {})

    def __exit__(self, *error: object) -> None:
        """Let torch.cond compile anew: what TorchDynamo skipped in here it would skip for good."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        if self._higher_order:
            torch._dynamo.reset()

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Give what ``func(*args, **kwargs)`` gives, or something else in its place."""
        raise NotImplementedError


def arguments(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What an operation was given, by name, with the defaults of what was not."""
    named = {each.name: each.default_value for each in func._schema.arguments}
    return named | dict(zip(named, args, strict=False)) | dict(kwargs)


# What the CPU has an operator of its own for, that torch has the formula of.
_COUNTED_AS: Mapping[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        torch.ops.aten._scaled_dot_product_flash_attention
    )
}


def work_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """The floating-point operations of a call, by torch's formulas; 0 for what it has none for."""
    from torch.utils.flop_counter import flop_registry

    op = func.overloadpacket
    formula = flop_registry.get(_COUNTED_AS.get(op, op))
    if formula is None:
        return 0
    try:
        return int(formula(*args, **kwargs, out_val=result))
    except Exception:  # noqa: BLE001 (of shapes that it does not know)
        return 0


def short_name(func: Any) -> str:
    """``add`` of ``aten::add_.Tensor``: an operation whether or not it writes in place."""
    name: str = func._schema.name
    return name.removeprefix("aten::").removesuffix("_")
