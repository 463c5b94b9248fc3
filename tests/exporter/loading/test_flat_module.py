"""Every way to call a module, as a flat list of tensors in and named tensors out."""

from __future__ import annotations

import collections
import types
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from torch2mobile.errors import InputError
from torch2mobile.exporter.loading.flat_module import (
    FlatModule,
    Slot,
    flatten_outputs,
    make_template,
    named_leaves,
    slot_paths,
    template_of,
)
from torch2mobile.records import ConstantSpec


class Point(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


@dataclass
class Boxes:
    corners: torch.Tensor
    scale: float = 2.0


@dataclass(frozen=True)
class Doubling:
    """Computes in its constructor: made anew, it would double once more."""

    value: torch.Tensor
    doubled: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", 2 * self.value)
        object.__setattr__(self, "doubled", 2 * self.value)


class Batch(collections.UserDict[str, torch.Tensor]):
    """A mapping that is more than a dict, as tokenizers return."""

    def total(self) -> torch.Tensor:
        return self["a"] + self["b"]


def one(value: float = 1.0) -> torch.Tensor:
    return torch.tensor([value])


def flat(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[FlatModule, list[str], Any]:
    """The module behind its flat signature, the dotted paths of its tensors, and the tensors."""
    template, tensors = template_of(args, kwargs)
    paths = [".".join(map(str, path)) for path in slot_paths(module, template)]
    return FlatModule(module, template), paths, tensors


# --- calls ------------------------------------------------------------------------------------


class Everything(nn.Module):
    def forward(
        self, a: Any, /, b: Any, *rest: Any, key: Any, other: Any = None, **more: Any
    ) -> Any:
        return {"a": a, "b": b, "rest": rest, "key": key, "other": other, "more": more}


def test_every_kind_of_parameter_names_its_tensors() -> None:
    _, paths, _ = flat(Everything(), one(), one(), one(), one(), key=one(), extra=one())
    assert paths == ["a", "b", "rest.0", "rest.1", "key", "extra"]


def test_order_is_the_callers_not_the_signatures() -> None:
    module, paths, tensors = flat(Everything(), one(0), extra=one(1), key=one(2), b=one(3))
    assert paths == ["a", "extra", "key", "b"]
    called = module.call(*(tensor + 10 for tensor in tensors))
    assert [called["a"], called["more"]["extra"], called["key"], called["b"]] == [10, 11, 12, 13]


def test_nested_containers_none_and_numbers_stay_where_they_are() -> None:
    args = ({"u": one(1), "v": [one(2), None, (one(3), 4.5)]}, "text")
    module, paths, tensors = flat(Everything(), *args, key=True)
    assert paths == ["a.u", "a.v.0", "a.v.2.0"]
    called = module.call(*(10 * tensor for tensor in tensors))
    assert called["a"] == {"u": 10, "v": [20, None, (30, 4.5)]}
    assert called["b"] == "text"
    assert called["key"] is True
    assert isinstance(called["a"]["v"], list)


def test_namedtuple_and_dataclass_arrive_as_what_they_are() -> None:
    module, paths, tensors = flat(Everything(), Point(one(1), one(2)), Boxes(one(3), 7.0), key=None)
    assert paths == ["a.x", "a.y", "b.corners"]
    called = module.call(*(10 * tensor for tensor in tensors))
    assert called["a"] == Point(10, 20)
    assert isinstance(called["a"], Point)
    assert called["b"] == Boxes(30, 7.0)


def test_a_dataclass_is_not_constructed_a_second_time() -> None:
    given = Doubling(one(1))
    module, paths, tensors = flat(Everything(), given, None, key=None)
    assert paths == ["a.value", "a.doubled"]
    called = module.call(*(10 * tensor for tensor in tensors))["a"]
    assert (called.value, called.doubled) == (20, 40)
    assert (given.value, given.doubled) == (2, 4)


def test_a_mapping_keeps_its_class_and_the_callers_is_left_alone() -> None:
    given = Batch(a=one(1), b=one(2))
    module, paths, tensors = flat(Everything(), given, OrderedDict(c=one(3)), key=None)
    assert paths == ["a.a", "a.b", "b.c"]
    called = module.call(*(10 * tensor for tensor in tensors))
    assert called["a"].total() == 30
    assert isinstance(called["b"], OrderedDict)
    assert given.total() == 3


def test_a_read_only_mapping_becomes_a_dict() -> None:
    module, _, tensors = flat(Everything(), types.MappingProxyType({"a": one(5)}), None, key=None)
    assert module.call(*tensors)["a"] == {"a": 5}


def test_a_call_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="missing a required argument: 'b'"):
        named_leaves(Everything(), (one(),), {"key": one()})


def test_the_same_tensor_twice_is_two_inputs() -> None:
    shared = one()
    _, paths, tensors = flat(Everything(), shared, shared, key=None)
    assert paths == ["a", "b"]
    assert len(tensors) == 2


def test_flat_module_is_in_its_modules_mode() -> None:
    for mode in (True, False):
        module = nn.Dropout().train(mode)
        assert flat(module, one())[0].training is mode
        assert module.training is mode


# --- templates from --input -------------------------------------------------------------------


def slots(value: Any) -> Any:
    """A template with each Slot as its number."""
    if isinstance(value, Slot):
        return value.index
    if isinstance(value, dict):
        return {key: slots(item) for key, item in value.items()}
    return tuple(map(slots, value)) if isinstance(value, tuple) else value


class Named(nn.Module):
    def forward(self, image: Any, mask: Any = None, *, gain: Any = 1.0) -> Any:
        return image


class Collecting(nn.Module):
    def forward(self, image: Any, *rest: Any, **more: Any) -> Any:
        return image


@pytest.mark.parametrize(
    ("module", "paths", "constants", "expected"),
    [
        pytest.param(Named(), [("image",), ("mask",)], {}, ((0, 1), {}), id="names"),
        pytest.param(Named(), [("mask",), ("image",)], {}, ((1, 0), {}), id="other order"),
        pytest.param(Named(), [("x",), ("y",)], {}, ((0, 1), {}), id="names of its own"),
        pytest.param(Named(), [("mask",), ("x",)], {}, ((1, 0), {}), id="one of its own"),
        pytest.param(Named(), [("image",), ("gain",)], {}, ((0,), {"gain": 1}), id="keyword-only"),
        pytest.param(
            Named(), [("image", "a"), ("image", "b", 1), ("image", "b", 0)], {"mask": None},
            (({"a": 0, "b": (2, 1)}, None), {}), id="nested, and None",
        ),
        pytest.param(Named(), [("image",)], {"gain": 3.0}, ((0,), {"gain": 3.0}), id="number"),
        pytest.param(Named(), [("mask",)], {}, ((), {"mask": 0}), id="first left out"),
        pytest.param(
            Collecting(), [("image",), ("b",), ("c",)], {}, ((0, 1, 2), {}), id="*rest"
        ),
    ],
)  # fmt: skip
def test_template_from_paths(
    module: nn.Module, paths: Any, constants: dict[str, Any], expected: Any
) -> None:
    given = [ConstantSpec((name,), value) for name, value in constants.items()]
    assert slots(make_template(module, paths, given)) == expected


def test_a_name_without_a_place_is_refused() -> None:
    with pytest.raises(InputError, match="no place for the input 'third'") as caught:
        make_template(Named(), [("image",), ("mask",), ("third",)], [])
    assert "image, mask, gain" in caught.value.remedy


def test_keywords_beyond_the_signature_go_to_kwargs() -> None:
    class Options(nn.Module):
        def forward(self, image: Any, **more: Any) -> Any:
            return image

    template = make_template(Options(), [("image",), ("flow",)], [])
    assert slots(template) == ((0,), {"flow": 1})


# --- outputs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        (one(), ["output"]),
        ((one(),), ["output_0"]),
        ([one(), one()], ["output_0", "output_1"]),
        ((one(), (one(), [one()])), ["output_0", "output_1_0", "output_1_1_0"]),
        ({"boxes": one(), "scores": one()}, ["boxes", "scores"]),
        ({"a": {"b": one(), "c": [one()]}}, ["a_b", "a_c_0"]),
        (({"a": one()}, one()), ["output_0_a", "output_1"]),
        ({3: one()}, ["output_3"]),
        (Point(one(), one()), ["x", "y"]),
        (Boxes(one()), ["corners"]),
        ({"found": Boxes(one())}, ["found_corners"]),
    ],
)
def test_output_names(outputs: Any, names: list[str]) -> None:
    assert [name for name, _ in flatten_outputs(outputs).tensors] == names


def test_what_is_no_tensor_is_told_apart() -> None:
    found = flatten_outputs({"a": one(), "b": None, "c": 3, "d": [None, "text"]})
    assert [name for name, _ in found.tensors] == ["a"]
    assert found.absent == ["b", "d_0"]
    assert found.lost == {"c": "int", "d_1": "str"}


def test_what_was_to_be_dropped_is_with_all_that_it_holds() -> None:
    outputs = {"a": one(), "cache": object(), "past": [(one(), one()), 3], "b": one()}
    found = flatten_outputs(outputs, ["cache", "past", "b", "other"])
    assert [name for name, _ in found.tensors] == ["a"]
    assert list(dict.fromkeys(found.dropped)) == ["cache", "past", "b"]
    assert found.lost == {}
    found = flatten_outputs((one(), [one(), one()]), ["output_1_0"])
    assert [name for name, _ in found.tensors] == ["output_0", "output_1_1"]


def test_a_shape_is_no_container_of_outputs() -> None:
    found = flatten_outputs((one(), one().shape))
    assert len(found.tensors) == 1
    assert found.lost == {"output_1": "Size"}


def test_flat_forward_gives_the_tensors_in_order() -> None:
    class Outputs(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return {"b": x + 1, "none": None, "a": (x + 2, 5)}

    module, _, tensors = flat(Outputs(), one(0))
    assert module(*tensors) == (1, 2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_trace_that_does_not_name_its_inputs_is_refused() -> None:
    traced = torch.jit.trace(nn.ReLU(), torch.ones(2))
    with pytest.raises(InputError, match="does not say which inputs it takes"):
        named_leaves(traced, (torch.ones(2),), {})
