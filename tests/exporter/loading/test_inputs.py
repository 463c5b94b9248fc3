from __future__ import annotations

import math
import string
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch2mobile.errors import ExitCode, InputError
from torch2mobile.exporter.loading import inputs
from torch2mobile.records import ConstantSpec, Dim, InputSpec, Values

# --- tensors and constants --------------------------------------------------------------------


def test_image_spec_is_read_in_full() -> None:
    assert inputs.parse_input("image:float32[N=1..8,3,H=64..512,W]") == InputSpec(
        name="image",
        path=("image",),
        dtype="float32",
        dims=(
            Dim(symbol="N", least=1, greatest=8),
            Dim(size=3),
            Dim(symbol="H", least=64, greatest=512),
            Dim(symbol="W"),
        ),
    )


@pytest.mark.parametrize(
    ("text", "dims"),
    [
        ("x:float32[]", ()),
        ("x:float32[ ]", ()),
        ("x:float32[7]", (Dim(size=7),)),
        ("x:float32[007]", (Dim(size=7),)),
        (f"x:float32[{10**18 - 1}]", (Dim(size=10**18 - 1),)),
        ("x:float32[_a1]", (Dim(symbol="_a1"),)),
        ("x:float32[T=1..]", (Dim(symbol="T", least=1),)),
        ("x:float32[T=0..9]", (Dim(symbol="T", least=0, greatest=9),)),
        ("x:float32[8*h]", (Dim(symbol="h", factor=8),)),
        ("x:float32[8*h=2..32]", (Dim(symbol="h", factor=8, least=2, greatest=32),)),
        ("x:float32[8*h=2..]", (Dim(symbol="h", factor=8, least=2),)),
        ("x:float32[1*h]", (Dim(symbol="h"),)),
        ("x:float32[P+1]", (Dim(symbol="P", offset=1),)),
        ("x:float32[2*h - 1=1..8]", (Dim(None, "h", 2, 1, 8, offset=-1),)),
        ("x:float32[3+h+h-1]", (Dim(symbol="h", factor=2, offset=2),)),
        (
            "x:float32[2*T+P+1]",
            (Dim(symbol="P", offset=1, others=(Dim(symbol="T", factor=2),)),),
        ),
        ("x:float32[5+2]", (Dim(size=7),)),
        (
            " x : float32 [ N = 1 .. 8 , 3 , 8 * h = 2 .. , T ] ",
            (
                Dim(symbol="N", least=1, greatest=8),
                Dim(size=3),
                Dim(symbol="h", factor=8, least=2),
                Dim(symbol="T"),
            ),
        ),
    ],
)
def test_dimensions(text: str, dims: tuple[Dim, ...]) -> None:
    assert inputs.parse_input(text) == InputSpec("x", ("x",), "float32", dims)


@pytest.mark.parametrize(
    ("text", "path", "name"),
    [
        ("state.h:float32[2]", ("state", "h"), "state_h"),
        ("boxes.0:float32[2]", ("boxes", 0), "boxes_0"),
        ("a.0.b.12:float32[2]", ("a", 0, "b", 12), "a_0_b_12"),
        ("a . b:float32[2]", ("a", "b"), "a_b"),
        ("True:float32[2]", ("True",), "True"),
    ],
)
def test_dotted_names_are_paths(text: str, path: tuple[str | int, ...], name: str) -> None:
    spec = inputs.parse_input(text)
    assert isinstance(spec, InputSpec)
    assert (spec.path, spec.name) == (path, name)
    assert inputs.onnx_name(path) == name


@pytest.mark.parametrize(
    ("spelling", "dtype"),
    [
        ("float16", "float16"),
        ("half", "float16"),
        ("bfloat16", "bfloat16"),
        ("float32", "float32"),
        ("float", "float32"),
        ("torch.float32", "float32"),
        ("float64", "float64"),
        ("double", "float64"),
        ("int8", "int8"),
        ("int16", "int16"),
        ("short", "int16"),
        ("int32", "int32"),
        ("int", "int32"),
        ("int64", "int64"),
        ("long", "int64"),
        ("torch.long", "int64"),
        ("uint8", "uint8"),
        ("bool", "bool"),
    ],
)
def test_dtype_spellings(spelling: str, dtype: str) -> None:
    spec = inputs.parse_input(f"x:{spelling}[2]")
    assert isinstance(spec, InputSpec)
    assert spec.dtype == dtype


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x=None", None),
        ("x=true", True),
        ("x=True", True),
        ("x=false", False),
        ("x=False", False),
        ("x=2", 2),
        ("x = -2 ", -2),
        ("x=+3", 3),
        ("x=0.5", 0.5),
        ("x=.5", 0.5),
        ("x=2.", 2.0),
        ("x=-1e-3", -0.001),
        ("x=inf", math.inf),
        ("x=-inf", -math.inf),
        ('x="text"', "text"),
        ("x='text'", "text"),
        ('x=""', ""),
        (r'x="a \"b\" \\ \u00e9"', 'a "b" \\ \u00e9'),
        ('x="a=b..c:[d]"', "a=b..c:[d]"),
        ('x="a\tb"', "a\tb"),
    ],
)
def test_constants(text: str, value: object) -> None:
    spec = inputs.parse_input(text)
    assert isinstance(spec, ConstantSpec)
    assert spec.path == ("x",)
    assert (type(spec.value), spec.value) == (type(value), value)


def test_constant_in_a_container_and_nan() -> None:
    assert inputs.parse_input("state.1.mask=None") == ConstantSpec(("state", 1, "mask"), None)
    spec = inputs.parse_input("x=nan")
    assert isinstance(spec, ConstantSpec)
    assert isinstance(spec.value, float)
    assert math.isnan(spec.value)


# --- what bad input gets ----------------------------------------------------------------------


def caret(error: InputError) -> int:
    """The column that the caret points at, after checking the form of the message."""
    _, shown, pointer = error.message.split("\n")
    assert shown.startswith("  ")
    assert pointer.strip() == "^"
    return len(pointer) - 1 - 2


def refusal(parse: Callable[[str], object], text: str) -> InputError | None:
    try:
        parse(text)
    except InputError as error:
        return error
    return None


def test_the_whole_message() -> None:
    with pytest.raises(InputError) as caught:
        inputs.parse_input("image:float32[N=1..8;3]")
    assert caught.value.message == (
        "--input: expected ',' or ']' after a dimension\n"
        "  image:float32[N=1..8;3]\n"
        "                      ^"
    )
    assert "--input 'image:float32[N=1..8,3,H=64..512,W]'" in caught.value.remedy
    assert caught.value.exit_code == ExitCode.USAGE


BAD_INPUTS = [
    ("", 0, "expected a name"),
    ("   ", 0, "expected a name"),
    ("  ?", 2, "expected a name"),
    ("0:float32[1]", 0, "expected a name"),
    (":float32[1]", 0, "expected a name"),
    ("é:float32[1]", 0, "expected a name"),
    ("x", 1, "expected ':' and a dtype, or '=' and a constant"),
    ("x y:float32[1]", 2, "expected ':' and a dtype"),
    ("x[1,3]", 1, "expected ':' and a dtype"),
    ("x.:float32[1]", 2, "expected a key or an index after '.'"),
    ("x..y:float32[1]", 1, "expected ':' and a dtype"),
    ("x.-1:float32[1]", 2, "expected a key or an index"),
    ("x.1234567890:float32[1]", 11, "expected ':' and a dtype"),
    ("x:", 2, "expected a dtype"),
    ("x:[1]", 2, "expected a dtype"),
    ("x:32[1]", 2, "expected a dtype"),
    ("x: flaot32[1]", 3, "unknown dtype 'flaot32'"),
    ("x:np.float32[1]", 2, "unknown dtype 'np.float32'"),
    ("x:float32", 9, "expected '[' after the dtype"),
    ("x:float32  ", 9, "expected '[' after the dtype"),
    ("x:float32(1)", 9, "expected '[' after the dtype"),
    ("x:float32[", 10, "expected a size or a symbol"),
    ("x:float32[,3]", 10, "expected a size or a symbol"),
    ("x:float32[3,]", 12, "expected a size or a symbol"),
    ("x:float32[3,,4]", 12, "expected a size or a symbol"),
    ("x:float32[-1,3]", 10, "expected a size or a symbol"),
    ("x:float32[?,3]", 10, "expected a size or a symbol"),
    ("x:float32[*,3]", 10, "expected a size or a symbol"),
    ("x:float32[1.5]", 11, "expected ',' or ']'"),
    ("x:float32[3", 11, "expected ',' or ']'"),
    ("x:float32[3  ", 11, "expected ',' or ']'"),
    ("x:float32[3 4]", 12, "expected ',' or ']'"),
    ("x:float32[3a]", 11, "expected ',' or ']'"),
    ("x:float32[N*M]", 11, "a size is linear in its symbols"),
    ("x:float32[h/2]", 11, "a size is linear in its symbols"),
    ("x:float32[2*(h+1)]", 12, "expected a symbol after '*'"),
    ("x:float32[8-h]", 12, "a symbol cannot be taken away"),
    ("x:float32[0*h+1]", 10, "a size must be at least 1"),
    ("x:float32[3-3]", 10, "a size must be at least 1"),
    ("x:float32[P+T=1..8]", 13, "the range of which symbol?"),
    ("x:float32[N*]", 11, "the factor comes first"),
    ("x:float32[h*8]", 11, "the factor comes first"),
    ("x:float32[0]", 10, "a size must be at least 1"),
    ("x:float32[2, 000]", 13, "a size must be at least 1"),
    ("x:float32[0*h]", 10, "a size must be at least 1"),
    ("x:float32[8*]", 12, "expected a symbol after '*'"),
    ("x:float32[8*4]", 12, "expected a symbol after '*'"),
    ("x:float32[None,3]", 10, "None is no symbol"),
    ("x:float32[8*True]", 12, "True is no symbol"),
    ("x:float32[N=]", 12, "expected the least size after '='"),
    ("x:float32[N=..8]", 12, "expected the least size after '='"),
    ("x:float32[N=-1..8]", 12, "expected the least size after '='"),
    ("x:float32[N=8]", 13, "expected '..' after the least size"),
    ("x:float32[N=1.8]", 13, "expected '..' after the least size"),
    ("x:float32[N=1-8]", 13, "expected '..' after the least size"),
    ("x:float32[N=1..M]", 15, "expected ',' or ']'"),
    ("x:float32[N=1...8]", 15, "expected ',' or ']'"),
    ("x:float32[N=8..1]", 15, "the range runs backwards: 8..1"),
    ("x:float32[N=4.. 4]", 16, "the range holds one size only"),
    (f"x:float32[{10**18}]", 10, "the size is too large"),
    (f"x:float32[N=1..{'9' * 5000}]", 15, "the size is too large"),
    ("x:float32[3] y", 13, "expected nothing after ']'"),
    ("x:float32[3]]", 12, "expected nothing after ']'"),
    ("x:float32[]=0..1", 11, "expected nothing after ']'"),
    ("x=", 2, "expected None, true, false, a number or a quoted text"),
    ("x=bilinear", 2, "expected None, true, false, a number or a quoted text"),
    ("x=Truex", 2, "expected None, true, false, a number or a quoted text"),
    ("x=uniform(0,1)", 2, "expected None, true, false, a number or a quoted text"),
    ("x='a", 2, "expected None, true, false, a number or a quoted text"),
    ('x="a\\"', 2, "expected None, true, false, a number or a quoted text"),
    ('x="a\\q"', 4, "unknown escape"),
    ("x=0..1", 3, "expected nothing after the constant"),
    ("x=1 2", 4, "expected nothing after the constant"),
    ('x="a" b', 6, "expected nothing after the constant"),
    ("x=1e999", 2, "the number is too large"),
    (f"x={'9' * 5000}", 2, "the number is too large"),
]


@pytest.mark.parametrize(("text", "column", "problem"), BAD_INPUTS)
def test_bad_input_points_at_the_character(text: str, column: int, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        inputs.parse_input(text)
    assert caught.value.message.startswith("--input: ")
    assert problem in caught.value.message.split("\n")[0]
    assert caret(caught.value) == column
    assert caught.value.remedy.endswith((".", "?"))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("x:flaot32[1]", "Did you mean float32"),
        ("x:unit8[1]", "Did you mean uint8"),
        ("x:np.float32[1]", "Did you mean float32"),
        ("x:zzz[1]", "There is: bfloat16, bool,"),
        ("x:float32[N=8]", "N=1..8, or N=1.. without an upper bound, or just 8"),
        ("x:float32[N=4..4]", "Write 4 for a fixed size."),
        ("x:float32[h*8]", "Write it as 8*h."),
        ("x=bilinear", "--input 'mode=\"bilinear\"'"),
        ("x=0..1", "belong to --values"),
    ],
)
def test_remedies_say_what_to_write(text: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        inputs.parse_input(text)
    assert hint in caught.value.remedy


def test_unprintable_characters_do_not_move_the_caret() -> None:
    with pytest.raises(InputError) as caught:
        inputs.parse_input("x:float32[\t1,\n\x1b]")
    assert caught.value.message.split("\n")[1] == "  x:float32[ 1,  ]"
    assert caret(caught.value) == 14


@given(st.text(alphabet=string.printable + "é∞", max_size=40))
def test_any_text_is_read_or_refused_in_form(text: str) -> None:
    for parse in (inputs.parse_input, inputs.parse_values):
        error = refusal(parse, text)
        assert error is None or 0 <= caret(error) <= len(text)


@given(
    st.sampled_from(["x:float32[N=1..8,8*h]", 'x="a b"', "x.0=-1.5e3", "x:int[3,4,T=2..]"]),
    st.integers(0, 30),
    st.sampled_from(["", *":=[],.*'\"0aN- "]),
)
def test_a_slip_of_the_finger_is_read_or_refused_in_form(text: str, at: int, typed: str) -> None:
    text = text[:at] + typed + text[at + 1 :]
    error = refusal(inputs.parse_input, text)
    assert error is None or 0 <= caret(error) <= len(text)


# --- values -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("ids=0..30521", "ids", Values("range", 0, 30521)),
        ("image=uniform(0,1)", "image", Values("uniform", 0, 1)),
        ("x=normal(0,1)", "x", Values("normal", 0, 1)),
        ("x=-1..1", "x", Values("range", -1, 1)),
        ("x=-2.5..-1.5", "x", Values("range", -2.5, -1.5)),
        ("x=0.5..1", "x", Values("range", 0.5, 1)),
        ("x=1...5e1", "x", Values("range", 1, 5.0)),
        ("x=1e-3..1e3", "x", Values("range", 0.001, 1000.0)),
        ("x=3..3", "x", Values("range", 3, 3)),
        ("x=normal(-1.5, 2.5E-1)", "x", Values("normal", -1.5, 0.25)),
        (" x = uniform ( -1 , 1 ) ", "x", Values("uniform", -1, 1)),
        ("state.h=0..1", "state_h", Values("range", 0, 1)),
        ("state_h=0..1", "state_h", Values("range", 0, 1)),
        ("boxes.0=0..1", "boxes_0", Values("range", 0, 1)),
        ("x=padding", "x", Values("padding")),
        ("x=padding( left )", "x", Values("padding", side="left")),
        ("x=causal", "x", Values("causal")),
        ("x=one-hot", "x", Values("one-hot")),
        ("x=lengths", "x", Values("lengths")),
        ("x=lengths(T)", "x", Values("lengths", of=Dim(symbol="T"))),
        ("x=offsets(2*h+1)", "x", Values("offsets", of=Dim(symbol="h", factor=2, offset=1))),
        ("x=sorted", "x", Values("sorted")),
        ("x=nonzero(-3,3)", "x", Values("nonzero", -3, 3)),
        ("x=choice(1, 2.5,4)", "x", Values("choice", numbers=(1, 2.5, 4))),
        ("x=constant(true)", "x", Values("choice", numbers=(True,))),
    ],
)
def test_values_are_read(text: str, name: str, values: Values) -> None:
    assert inputs.parse_values(text) == (name, values)
    assert inputs.parse_values(inputs.format_values(name, values)) == (name, values)


def test_true_and_false_are_numbers_as_the_manifest_has_them() -> None:
    _, values = inputs.parse_values("on=choice(true,false)")
    assert [type(number) for number in values.numbers] == [float, float]


def test_names_suggest_values_and_others_can_be_given() -> None:
    texts = [
        "attention_mask:int64[N,T]",
        "bert_attention_mask:bool[N,T]",
        "mask:int64[N,T]",
        "token_type_ids:int64[N,T]",
        "big_attention_mask:float32[N,1,T,T]",
    ]
    specs, _ = inputs.resolve(texts, ["bert_attention_mask=padding(left)"])
    assert [spec.values and inputs.format_values("x", spec.values) for spec in specs] == [
        "x=padding",
        "x=padding(left)",
        None,
        "x=0..1",
        None,
    ]
    mask, types = inputs.suggestions(specs)
    assert mask.startswith("the values of attention_mask follow from its name: --values 'att")
    assert "'token_type_ids=0..1'" in types


@pytest.mark.parametrize(
    ("text", "of"),
    [
        ("n=lengths", Dim(symbol="T", least=1, greatest=9)),
        ("n=lengths(T)", Dim(symbol="T", least=1, greatest=9)),
        ("n=offsets", Dim(symbol="K")),
    ],
)
def test_lengths_and_offsets_find_what_they_count(text: str, of: Dim) -> None:
    specs, _ = inputs.resolve(["n:int64[N]", "k:int64[K]", "x:float32[N,T=1..9,3]"], [text])
    assert specs[0].values is not None
    assert specs[0].values.of == of


def test_whole_numbers_stay_exact() -> None:
    _, values = inputs.parse_values("x=-9223372036854775808..9223372036854775807")
    assert values == Values("range", -(2**63), 2**63 - 1)


BAD_VALUES = [
    ("", 0, "expected a name"),
    ("0..5", 0, "expected a name"),
    ("ids", 3, "expected '=' after the name"),
    ("ids:int64[3]", 3, "expected '=' after the name"),
    ("ids=", 4, "expected a number, or a kind such as uniform(low,high)"),
    ("ids=a..b", 4, "unknown values 'a'"),
    ("ids=uniformly(0,1)", 4, "unknown values 'uniformly'"),
    ("ids=..5", 4, "expected a number, or a kind such as uniform(low,high)"),
    ("mask=padding(up)", 13, "expected left or right"),
    ("x=choice()", 9, "expected a number, true or false"),
    ("x=constant(1,2)", 12, "expected ')' after the last number"),
    ("x=sorted(9,0)", 11, "the range runs backwards"),
    ("ids=5", 5, "expected '..' after the low end"),
    ("ids=0-5", 5, "expected '..' after the low end"),
    ("ids=0..", 7, "expected a number after '..'"),
    ("ids=0..x", 7, "expected a number after '..'"),
    ("ids=0..5,", 8, "expected nothing after the values"),
    ("ids=5..0", 7, "the range runs backwards: 5..0"),
    ("ids=0.. -1", 8, "the range runs backwards: 0..-1"),
    ("ids=1e400..2", 4, "the number is too large"),
    ("ids=0..-1e400", 7, "the number is too large"),
    ("x=uniform", 9, "expected '(' after uniform"),
    ("x=uniform 0,1", 10, "expected '(' after uniform"),
    ("x=uniform(", 10, "expected a number after 'uniform('"),
    ("x=uniform(0)", 11, "expected ',' after the first number"),
    ("x=uniform(0,)", 12, "expected a number after ','"),
    ("x=uniform(0,1", 13, "expected ')' after the second number"),
    ("x=uniform(0,1,2)", 13, "expected ')' after the second number"),
    ("x=uniform(1,0)", 12, "the range runs backwards: 1..0"),
    ("x=normal[0,1]", 8, "expected '(' after normal"),
    ("x=normal(0,0)", 11, "the standard deviation must be above 0"),
    ("x=normal(0, -1)", 12, "the standard deviation must be above 0"),
    ("x=normal(0,1) 2", 14, "expected nothing after the values"),
]


@pytest.mark.parametrize(("text", "column", "problem"), BAD_VALUES)
def test_bad_values_point_at_the_character(text: str, column: int, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        inputs.parse_values(text)
    assert caught.value.message.startswith("--values: ")
    assert problem in caught.value.message.split("\n")[0]
    assert caret(caught.value) == column
    assert "--values 'ids=0..30521'" in caught.value.remedy


# --- round trips ------------------------------------------------------------------------------

WORDS = {"None", "True", "False", "true", "false", "inf", "nan"}
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,6}", fullmatch=True)
symbols = names.filter(lambda name: name not in WORDS)
paths = st.tuples(names, st.lists(names | st.integers(0, 99), max_size=2)).map(
    lambda parts: (parts[0], *parts[1])
)


@st.composite
def dims(draw: st.DrawFn) -> Dim:
    if draw(st.booleans()):
        return Dim(size=draw(st.integers(1, 10**17)))
    factor = draw(st.just(1) | st.integers(2, 64))
    least = draw(st.none() | st.integers(0, 1000))
    greatest = None
    if least is not None:
        greatest = draw(st.none() | st.integers(least + 1, 10**6))
    own = Dim(draw(st.none()), draw(symbols), factor, least, greatest)
    if draw(st.booleans()):
        return own
    others = draw(st.lists(symbols.map(lambda s: Dim(symbol=f"{own.symbol}{s}", factor=3))))
    others = sorted({dim.symbol: dim for dim in others}.values(), key=lambda dim: str(dim.symbol))
    offset = draw(st.integers(-9, 9))
    if others:
        own = replace(own, least=None, greatest=None)
    return replace(own, offset=offset, others=tuple(others))


@st.composite
def specs(draw: st.DrawFn) -> InputSpec:
    path = draw(paths)
    return InputSpec(
        name="_".join(map(str, path)),
        path=path,
        dtype=draw(st.sampled_from(["float32", "bfloat16", "int64", "uint8", "bool"])),
        dims=tuple(draw(st.lists(dims(), max_size=5))),
    )


@given(specs())
def test_format_input_is_the_inverse(spec: InputSpec) -> None:
    assert inputs.parse_input(inputs.format_input(spec)) == spec


@given(
    paths,
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(),
)
def test_format_input_is_the_inverse_for_constants(
    path: tuple[str | int, ...], value: bool | int | float | str | None
) -> None:
    spec = ConstantSpec(path, value)
    again = inputs.parse_input(inputs.format_input(spec))
    assert again == spec
    assert isinstance(again, ConstantSpec)
    assert type(again.value) is type(value)


numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)


@given(names, st.sampled_from(["range", "uniform"]), numbers, numbers)
def test_format_values_is_the_inverse(name: str, kind: str, one: float, other: float) -> None:
    values = Values("uniform" if kind == "uniform" else "range", min(one, other), max(one, other))
    assert inputs.parse_values(inputs.format_values(name, values)) == (name, values)


@given(names, numbers, numbers.filter(lambda number: number > 0))
def test_format_values_is_the_inverse_for_normal(name: str, mean: float, std: float) -> None:
    values = Values("normal", mean, std)
    assert inputs.parse_values(inputs.format_values(name, values)) == (name, values)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (Values("range", 0, 30521), "x=0..30521"),
        (Values("range", 0.0, 1.0), "x=0..1"),
        (Values("uniform", -0.5, 1e-5), "x=uniform(-0.5,1e-05)"),
        (Values("normal", 0, 1e300), "x=normal(0,1e+300)"),
    ],
)
def test_values_are_written_briefly(values: Values, text: str) -> None:
    assert inputs.format_values("x", values) == text


def test_format_input_writes_what_a_user_would() -> None:
    assert inputs.format_input(ConstantSpec(("mode",), "é")) == 'mode="é"'
    text = "image:float32[N=1..8,3,8*h=2..32,T=1..,W]"
    assert inputs.format_input(inputs.parse_input(text)) == text
    only_greatest = InputSpec("x", ("x",), "float32", (Dim(symbol="N", greatest=8),))
    assert inputs.format_input(only_greatest) == "x:float32[N=1..8]"


# --- resolve ----------------------------------------------------------------------------------


def test_resolve_keeps_the_users_order_and_attaches_values() -> None:
    tensors, constants = inputs.resolve(
        ["ids:long[N,T]", "mask=None", "image:float[N,3]", "scale=2", "flag:bool[]"],
        ["image=uniform(0,1)", "ids=0..30521"],
    )
    assert [spec.name for spec in tensors] == ["ids", "image", "flag"]
    assert [spec.values for spec in tensors] == [
        Values("range", 0, 30521),
        Values("uniform", 0, 1),
        None,
    ]
    assert constants == (ConstantSpec(("mask",), None), ConstantSpec(("scale",), 2))
    assert inputs.resolve([], []) == ((), ())


def test_a_range_given_once_holds_for_every_use() -> None:
    (first, second), _ = inputs.resolve(
        ["a:float32[N,T,4]", "b:float32[T=2..9,N=1..,8*T]"], ["b=normal(0,1)"]
    )
    assert first.dims == (
        Dim(symbol="N", least=1),
        Dim(symbol="T", least=2, greatest=9),
        Dim(size=4),
    )
    assert second.dims == (
        Dim(symbol="T", least=2, greatest=9),
        Dim(symbol="N", least=1),
        Dim(symbol="T", factor=8, least=2, greatest=9),
    )


def test_the_same_range_twice_is_no_contradiction() -> None:
    (spec,), _ = inputs.resolve(["a:float32[N=1..8,N=1..8]"], [])
    assert spec.dims == (Dim(symbol="N", least=1, greatest=8),) * 2


@pytest.mark.parametrize(
    ("texts", "ranges"),
    [
        (["a:float32[N=1..8]", "b:float32[N=1..4]"], "1..8 in a, 1..4 in b"),
        (["a:float32[N=1..8,N=2..8]"], "1..8 in a, 2..8 in a"),
        (["a:float32[N=1..]", "b:float32[N]", "c:float32[2*N=1..4]"], "1.. in a, 1..4 in c"),
    ],
)
def test_two_ranges_for_one_symbol_are_refused(texts: list[str], ranges: str) -> None:
    with pytest.raises(InputError, match="the symbol N has two ranges") as caught:
        inputs.resolve(texts, [])
    assert ranges in caught.value.message
    assert "once" in caught.value.remedy


@pytest.mark.parametrize(
    ("texts", "problem", "column"),
    [
        (["x:float32[1]", "x:float32[2]"], "the input x is given twice", 0),
        (["x:float32[1]", "  x=2"], "the input x is given twice", 2),
        (["x=1", "x=2"], "the input x is given twice", 0),
        (["s.h:float32[1]", "s.h:float32[1]"], "the input s.h is given twice", 0),
        (["b.0:float32[1]", "b.00:float32[1]"], "the input b.0 is given twice", 0),
        (["s.h:float32[1]", "s_h:float32[1]"], "s_h and s.h would both be s_h in the file", 0),
        (["s:float32[1]", "s.h:float32[1]"], "s is given as a whole and as a container, s.h", 0),
        (["s.h.0:float32[1]", "s=None"], "s is given as a whole and as a container, s.h.0", 0),
    ],
)
def test_names_that_clash_are_refused(texts: list[str], problem: str, column: int) -> None:
    with pytest.raises(InputError) as caught:
        inputs.resolve(["other:float32[1]", *texts], [])
    assert caught.value.message.startswith(f"--input: {problem}\n  {texts[1]}\n")
    assert caret(caught.value) == column


def test_a_constant_has_no_name_in_the_file_to_clash_with() -> None:
    tensors, constants = inputs.resolve(["s.h:float32[1]", "s_h=None"], [])
    assert (len(tensors), len(constants)) == (1, 1)


@pytest.mark.parametrize(
    ("values", "problem", "column", "hint"),
    [
        (["imge=0..1"], "unknown input 'imge'", 0, "Did you mean image?"),
        (["  zzz=0..1"], "unknown input 'zzz'", 2, "There is: flag, ids, image, level, state_h."),
        (["scale=0..1"], "scale is a constant and takes no values", 0, "There is: flag"),
        (["ids=0..1", "ids=0..2"], "the values of ids are given twice", 0, "Keep one"),
        (["flag=0..1"], "flag: a bool takes padding, causal, one-hot, choice or", 5, "It is flag"),
        (["flag=choice(0,2)"], "flag: 2 is neither true nor false", 5, "It is flag:bool[]."),
        (["flag=padding"], "flag: padding needs 1 dimension, it has 0", 5, "It is flag:bool[]."),
        (["image=lengths(N)"], "image: lengths are whole numbers, not float16", 6, "It is image"),
        (["image=lengths"], "image: which size do the lengths count? Write lengths(T)", 6, "It"),
        (["image=offsets(Q)"], "image: no input has the symbol Q; known are: ", 6, "It is image"),
        (["ids= 0.5..1"], "ids: 0.5 is not a whole number, as int64 needs", 5, "ids:int64[N]"),
        (["ids=0..1.5"], "ids: 1.5 is not a whole number, as int64 needs", 4, "ids:int64[N]"),
        (["ids=normal(0,1)"], "ids: int64 takes a range such as 0..9, not normal", 4, ""),
        (["ids=0..9223372036854775808"], "ids: 9223372036854775808 does not fit int64", 4, ""),
        (["level=-1..5"], "level: -1 does not fit uint8, which holds 0..255", 6, "level:uint8[]"),
        (["level=0..256"], "level: 256 does not fit uint8, which holds 0..255", 6, ""),
        (["image=0..70000"], "image: 70000 does not fit float16", 6, "image:float16[N]"),
        (["image=normal(0,1e5)"], "image: 100000.0 does not fit float16", 6, ""),
        (["state.h=-1e39..0"], "state_h: -1e+39 does not fit float32", 8, "state.h:float32[]"),
    ],
)
def test_values_that_do_not_fit_are_refused(
    values: list[str], problem: str, column: int, hint: str
) -> None:
    texts = ["image:half[N]", "ids:int64[N]", "level:uint8[]", "flag:bool[]", "scale=2"]
    with pytest.raises(InputError) as caught:
        inputs.resolve([*texts, "state.h:float32[]"], values)
    assert caught.value.message.startswith(f"--values: {problem}")
    assert caret(caught.value) == column
    assert hint in caught.value.remedy


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        ("int8", -128, 127),
        ("int16", -32768, 32767),
        ("int32", -(2**31), 2**31 - 1),
        ("int64", -(2**63), 2**63 - 1),
        ("uint8", 0, 255),
        ("uint8", 10.0, 2.5e2),
        ("float16", -65504, 65504),
        ("bfloat16", -3.3895313892515355e38, 3.3895313892515355e38),
        ("float32", -3.4028234663852886e38, 3.4028234663852886e38),
        ("float64", -sys.float_info.max, sys.float_info.max),
    ],
)
def test_values_up_to_the_limits_of_the_dtype_are_accepted(
    dtype: str, low: float, high: float
) -> None:
    (spec,), _ = inputs.resolve([f"x:{dtype}[]"], [f"x={low}..{high}"])
    assert spec.values == Values("range", low, high)


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        ("int8", -129, 128),
        ("int16", -32769, 32768),
        ("int32", -(2**31) - 1, 2**31),
        ("int64", -(2**63) - 1, 2**63),
        ("uint8", -1, 256),
        ("float16", -65505, 65505),
        ("bfloat16", -3.39e38 * 1.001, 3.39e38 * 1.001),
        ("float32", -3.403e38, 3.403e38),
    ],
)
def test_values_just_beyond_the_limits_of_the_dtype_are_refused(
    dtype: str, low: float, high: float
) -> None:
    for text in (f"x={low}..0", f"x=0..{high}"):
        with pytest.raises(InputError, match=f"does not fit {dtype}, which holds"):
            inputs.resolve([f"x:{dtype}[]"], [text])


def test_attach_values_takes_specs_that_have_no_text() -> None:
    spec = InputSpec("odd-name_0", ("odd-name", 0), "int64", (), Values("range", 0, 1))
    other = InputSpec("ids", ("ids",), "int64", ())
    kept, changed = inputs.attach_values([spec, other], ["ids=0..9"])
    assert kept == spec
    assert changed == replace(other, values=Values("range", 0, 9))


# --- real arrays ------------------------------------------------------------------------------


def resolved(*texts: str) -> tuple[InputSpec, ...]:
    return inputs.resolve(texts, [])[0]


def test_symbol_sizes_are_read_from_an_example() -> None:
    found = inputs.check_against_example(
        resolved("x:float32[N=1..8,3,8*h]", "y:int64[N,h]", "z:bool[]", "b:bfloat16[K=0..3]"),
        {
            "y": ("int64", (2, 4)),
            "x": ("torch.float32", (2, 3, 32)),
            "z": ("bool", ()),
            "b": ("bfloat16", (0,)),
        },
    )
    assert found == {"N": 2, "h": 4, "K": 0}


@pytest.mark.parametrize("shape", [(1, 16, 1), (8, 256, 99)])
def test_the_ends_of_a_range_fit(shape: tuple[int, ...]) -> None:
    specs = resolved("x:float32[N=1..8,8*h=2..32,W]")
    found = inputs.check_against_example(specs, {"x": ("float32", shape)})
    assert found == {"N": shape[0], "h": shape[1] // 8, "W": shape[2]}


@pytest.mark.parametrize(
    ("dtype", "shape", "problem"),
    [
        ("float64", (2, 3, 64, 8), "input 'x': expected dtype float32, got float64"),
        ("complex64", (2, 3, 64, 8), "input 'x': expected dtype float32, got complex64"),
        (
            "float32",
            (3, 64, 8),
            "input 'x': expected 4 dimensions [N=1..8,3,8*h=2..32,W], got 3 [3, 64, 8]",
        ),
        ("float32", (), "input 'x': expected 4 dimensions [N=1..8,3,8*h=2..32,W], got 0 []"),
        ("float32", (2, 4, 64, 8), "input 'x', dimension 1: expected 3, got 4"),
        ("float32", (9, 3, 64, 8), "input 'x', dimension 0: expected N with N in 1..8, got 9"),
        ("float32", (0, 3, 64, 8), "input 'x', dimension 0: expected N with N in 1..8, got 0"),
        (
            "float32",
            (2, 3, 60, 8),
            "input 'x', dimension 2: expected a multiple of 8 (8*h), got 60",
        ),
        ("float32", (2, 3, 8, 8), "dimension 2: expected 8*h with h in 2..32, got 8"),
        ("float32", (2, 3, 64, 0), "input 'x', dimension 3: expected W with W in 1.., got 0"),
    ],
)
def test_an_example_that_does_not_fit(dtype: str, shape: tuple[int, ...], problem: str) -> None:
    text = "x:float32[N=1..8,3,8*h=2..32,W]"
    with pytest.raises(InputError) as caught:
        inputs.check_against_example(resolved(text), {"x": (dtype, shape)})
    assert caught.value.message.endswith(problem)
    assert text in caught.value.remedy


def test_one_symbol_has_one_size() -> None:
    specs = resolved("x:float32[N,T]", "y:int64[2,2*N]")
    with pytest.raises(InputError) as caught:
        inputs.check_against_example(specs, {"x": ("float32", (4, 5)), "y": ("int64", (2, 6))})
    assert caught.value.message == (
        "input 'y', dimension 1: expected 8, as N is 4 in x, dimension 0, got 6"
    )


DECODER = ("past:float32[N,4,P=0..16,8]", "mask:int64[N,P+T]", "ids:int64[N,T=1..8]")


def test_a_sum_takes_the_ranges_of_its_symbols() -> None:
    _, mask, _ = resolved(*DECODER)
    assert mask.dims[1].label == "P + T"
    assert mask.dims[1].ends == (1, 24)
    assert inputs.format_input(mask) == "mask:int64[N,P + T]"


@pytest.mark.parametrize("length", [5, 6])
def test_a_sum_is_that_of_the_sizes_of_its_symbols(length: int) -> None:
    shapes = {
        "past": ("float32", (2, 4, 3, 8)),
        "mask": ("int64", (2, length)),
        "ids": ("int64", (2, 2)),
    }
    if length == 5:
        found = inputs.check_against_example(resolved(*DECODER), shapes)
        assert found == {"N": 2, "P": 3, "T": 2}
        return
    with pytest.raises(InputError) as caught:
        inputs.check_against_example(resolved(*DECODER), shapes)
    assert caught.value.message == (
        "input 'mask', dimension 1: expected 5, as P is 3 in past, dimension 2 "
        "and T is 2 in ids, dimension 1, got 6"
    )


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (["x:float32[N-1]"], "--input: N - 1 of x would be 0 at the least"),
        (["x:float32[2*h-3=1..4]"], "--input: 2*h - 3 of x would be -1 at the least"),
        (["x:float32[P+T]"], "--input: P and T stand nowhere but in P + T of x"),
    ],
)
def test_sizes_that_cannot_be(texts: list[str], problem: str) -> None:
    with pytest.raises(InputError) as caught:
        resolved(*texts)
    assert caught.value.message == problem


def test_missing_and_unknown_arrays() -> None:
    specs = resolved("image:float32[N]", "ids:int64[N]")
    with pytest.raises(InputError, match="the example lacks the input 'ids'") as caught:
        inputs.check_against_example(specs, {"image": ("float32", (2,))})
    assert "ids:int64[N]" in caught.value.remedy
    with pytest.raises(InputError, match="the example has an unknown input 'imgae'") as caught:
        inputs.check_against_example(specs, {"imgae": ("float32", (2,))})
    assert caught.value.remedy == "Did you mean image?"


def test_the_grammar_needs_no_torch() -> None:
    code = "import sys, torch2mobile.exporter.loading.inputs; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_an_array_has_at_most_64_dimensions() -> None:
    most = inputs.parse_input(f"x:float32[{','.join('1' * 64)}]")
    assert isinstance(most, InputSpec)
    assert len(most.dims) == 64
    with pytest.raises(InputError, match="more than 64 dimensions"):
        inputs.parse_input(f"x:float32[{','.join('1' * 65)}]")
