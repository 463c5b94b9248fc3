"""The operators and CPU kernels of the installed ONNX Runtime, as it lists them itself.

A kernel is chosen as ``KernelRegistry`` does: by the version in which the operator last changed,
and by the types of the first argument given for each of the kernel's type constraints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

PROVIDER = "CPUExecutionProvider"
_NO_END = 2**31 - 1
Types = Sequence[str | None]
"""The types of a node's inputs or outputs: None for one left out, "" for one not known."""


@dataclass(frozen=True)
class Parameter:
    """A formal input or output: its name, its type constraint (or type) and what that allows."""

    name: str
    constraint: str
    types: frozenset[str]
    variadic: bool
    homogeneous: bool


@dataclass(frozen=True)
class AttributeOf:
    """An attribute of an operator: its type, empty where the runtime does not name it."""

    kind: str
    required: bool


@dataclass(frozen=True)
class Schema:
    """An operator in the version that an opset has of it."""

    domain: str
    name: str
    since: int
    deprecated: bool
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]
    attributes: Mapping[str, AttributeOf]
    input_range: tuple[int, int]
    output_range: tuple[int, int]


@dataclass(frozen=True)
class Kernel:
    """One kernel: the versions of the operator and the types that it implements."""

    start: int
    end: int
    types: Mapping[str, frozenset[str]]

    def implements(self, since: int) -> bool:
        """Whether it is for the operator as it has been since this version.

        A kernel without an end is only for the version it was written for.
        """
        return self.start == since or (self.end != _NO_END and self.start <= since <= self.end)


@cache
def _raw_schemas() -> dict[tuple[str, str], dict[int, Any]]:
    from onnxruntime.capi import _pybind_state

    found: dict[tuple[str, str], dict[int, Any]] = {}
    for schema in _pybind_state.get_all_operator_schema():
        found.setdefault((schema.domain, schema.name), {})[schema.since_version] = schema
    return found


@cache
def _raw_kernels() -> dict[tuple[str, str], list[Any]]:
    from onnxruntime.capi import _pybind_state

    found: dict[tuple[str, str], list[Any]] = {}
    for kernel in _pybind_state.get_all_opkernel_def():
        if kernel.provider == PROVIDER:
            found.setdefault((kernel.domain, kernel.op_name), []).append(kernel)
    return found


def versions(domain: str, name: str) -> tuple[int, ...]:
    """The opsets in which an operator began or changed, ascending; empty if there is none."""
    return tuple(sorted(_raw_schemas().get((domain, name), ())))


def domains() -> frozenset[str]:
    """The domains of all operators that the runtime knows."""
    return frozenset(domain for domain, _ in _raw_schemas())


def newest_opset(domain: str = "") -> int:
    """The newest opset of a domain in which any operator changed."""
    return max(max(found) for (space, _), found in _raw_schemas().items() if space == domain)


@cache
def schema(domain: str, name: str, opset: int) -> Schema | None:
    """The operator as this opset has it; None where it has none."""
    since = max((v for v in versions(domain, name) if v <= opset), default=None)
    if since is None:
        return None
    raw = _raw_schemas()[domain, name][since]
    return Schema(
        domain,
        name,
        since,
        bool(raw.deprecated),
        tuple(_parameter(item) for item in raw.inputs),
        tuple(_parameter(item) for item in raw.outputs),
        {name: _attribute(a) for name, a in raw.attributes.items()},
        (raw.min_input, raw.max_input),
        (raw.min_output, raw.max_output),
    )


def _attribute(raw: Any) -> AttributeOf:
    kind = raw.type.name
    return AttributeOf(kind if kind.isidentifier() else "", bool(raw.required))


def _parameter(raw: Any) -> Parameter:
    variadic = raw.option.name == "Variadic"
    return Parameter(raw.name, raw.typeStr, frozenset(raw.types), variadic, raw.isHomogeneous)


@cache
def kernels(domain: str, name: str) -> tuple[Kernel, ...]:
    """All kernels of an operator, of all its versions."""
    return tuple(
        Kernel(
            raw.version_range[0],
            raw.version_range[1],
            {name: frozenset(types) for name, types in raw.type_constraints.items()},
        )
        for raw in _raw_kernels().get((domain, name), ())
    )


def formal(parameters: Sequence[Parameter], index: int) -> Parameter | None:
    """The formal parameter of the argument at this position."""
    if index < len(parameters):
        return parameters[index]
    return parameters[-1] if parameters and parameters[-1].variadic else None


def output_type(schema: Schema, index: int, inputs: Types) -> str:
    """The type of an output as far as the schema alone says it: an input's, or the only one."""
    parameter = formal(schema.outputs, index)
    if parameter is None:
        return ""
    for position, given in enumerate(inputs):
        source = formal(schema.inputs, position)
        if given and source is not None and source.constraint == parameter.constraint:
            return given
    return next(iter(parameter.types)) if len(parameter.types) == 1 else ""


def forbidden_type(schema: Schema, inputs: Types, outputs: Types) -> str:
    """What the operator itself says against these types; empty if nothing.

    Arguments of one constraint must agree, unless they are variadic and free to differ.
    """
    bound: dict[str, str] = {}
    arguments = [
        (formal(parameters, index), given)
        for parameters, types in ((schema.inputs, inputs), (schema.outputs, outputs))
        for index, given in enumerate(types)
    ]
    for parameter, given in arguments:
        if parameter is None or not given:
            continue
        if given not in parameter.types:
            return f"{parameter.name} may not be {given}"
        if not parameter.homogeneous:
            continue
        other = bound.setdefault(parameter.constraint, given)
        if other != given:
            return f"{parameter.name} is {given} where another of its arguments is {other}"
    return ""


def refused_type(kernel: Kernel, schema: Schema, inputs: Types, outputs: Types) -> str | None:
    """The first type that a kernel does not take; "" if that hangs on one not known, else None."""
    for constraint, allowed in kernel.types.items():
        given = _first(schema, constraint, inputs, outputs)
        if given is not None and given not in allowed:
            return given
    return None


def _first(schema: Schema, constraint: str, inputs: Types, outputs: Types) -> str | None:
    """The type of the first argument there is for a constraint, or for a parameter's name."""
    sides = ((schema.inputs, inputs), (schema.outputs, outputs))
    for field in ("constraint", "name"):
        named = False
        for parameters, types in sides:
            for position, parameter in enumerate(parameters):
                if getattr(parameter, field) == constraint:
                    named = True
                    if position < len(types) and types[position] is not None:
                        return types[position]
        if named:
            return None
    return None


def types_of(found: Iterable[Kernel], constraint: str) -> list[str]:
    """The types that some kernel takes for a constraint, by the word for the element."""
    allowed = {kind for kernel in found for kind in kernel.types.get(constraint, ())}
    return sorted(kind.removeprefix("tensor(").removesuffix(")") for kind in allowed)
