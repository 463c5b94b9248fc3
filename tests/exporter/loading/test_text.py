"""Text as inputs: ids, masks and types by a tokenizer's file, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from torch2mobile.errors import InputError, ModelFileError, SourceError, Torch2MobileError
from torch2mobile.exporter.loading import source
from torch2mobile.records import LoadedModel, Request

tokenizers = pytest.importorskip("tokenizers")

WORDS = {"[PAD]": 0, "[CLS]": 1, "[UNK]": 2, "a": 3, "b": 4, "c": 5}
BERT = (
    "input_ids:int64[N=1..8,T=1..4]",
    "attention_mask:int64[N,T]",
    "token_type_ids:int64[N,T]",
)


class Net(nn.Module):
    def __init__(self, rows: int = 6) -> None:
        super().__init__()
        self.words = nn.Embedding(rows, 2)

    def forward(self, input_ids: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        return self.words(input_ids)


def made(folder: Path, *, padding: bool = False, unknown: str | None = "[UNK]") -> Path:
    vocab = {w: n for w, n in WORDS.items() if w != "[UNK]" or unknown}
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(vocab, unk_token=unknown)
        if unknown
        else tokenizers.models.WordLevel(vocab)
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", 1)]
    )
    if padding:
        tokenizer.enable_padding(direction="left", pad_id=5, pad_token="c", length=64)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def load(
    folder: Path,
    text: str | bytes,
    inputs: Sequence[str] = BERT,
    values: Sequence[str] = (),
    module: nn.Module | None = None,
) -> LoadedModel:
    path, tokenizer = folder / "texts.txt", folder / "tokenizer.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    said = str(tokenizer) if tokenizer.exists() else ""
    request = Request(source="", data=(str(path),), tokenizer=said)
    return source.from_specs("m", module or Net(), inputs, values, request, ())


def rows(loaded: LoadedModel, name: str, case: int = 0) -> Any:
    return loaded.data[case][name].tolist()


def test_lines_are_batches_with_their_masks(tmp_path: Path) -> None:
    made(tmp_path)
    found = load(tmp_path, "a\n\na b c a b c\r\n  \nb d\n")
    assert rows(found, "input_ids") == [[1, 3, 0, 0], [1, 3, 4, 5], [1, 4, 2, 0]]
    assert rows(found, "attention_mask") == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]]
    assert rows(found, "token_type_ids") == [[0] * 4] * 3
    what = f"3 lines of {tmp_path / 'texts.txt'} (2 empty left out, 1 cut to 4 tokens)"
    names = "input_ids, attention_mask, token_type_ids"
    assert found.real[0] == f"real inputs: {what} as {names}, by tokenizer.json"
    long = load(tmp_path, "a b\n" * 9)
    assert [case.origin for case in long.data] == ["from line 1", "from line 9"]
    assert [case["input_ids"].shape for case in long.data] == [(8, 3), (8, 3)]


@pytest.mark.parametrize(
    ("inputs", "shape", "dtype"),
    [
        (["input_ids:int32[N=1..8,T=1..]"], (1, 2), "int32"),  # no mask tells padding: one by one
        (["ids:int64[2,T=1..8]"], (2, 3), "int64"),
        (["ids:int64[T]"], (2,), "int64"),
        (["ids:int64[1,6]"], (1, 6), "int64"),
        (["ids:int64[N=1..,4*t=1..8]"], (1, 4), "int64"),
        (["ids:int64[N=3..,T=5..8]", "mask:float32[N,T]"], (3, 5), "int64"),
    ],
)
def test_the_declared_shape_decides_the_length(
    tmp_path: Path, inputs: list[str], shape: Any, dtype: str
) -> None:
    made(tmp_path)
    found = load(tmp_path, "a\na b\n", inputs)
    name = inputs[0].split(":", maxsplit=1)[0]
    assert (found.data[0][name].shape, str(found.data[0][name].dtype)) == (shape, dtype)
    if len(inputs) > 1:
        assert rows(found, "mask") == [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]]


def test_padding_is_what_the_tokenizer_says_or_the_file_beside_it(tmp_path: Path) -> None:
    made(tmp_path, padding=True)
    assert rows(load(tmp_path, "a\na b\n"), "input_ids") == [[5, 1, 3], [1, 3, 4]]
    made(tmp_path)
    beside = {"pad_token": {"content": "b"}, "padding_side": "left"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(beside))
    assert rows(load(tmp_path, "a\na b\n"), "input_ids") == [[4, 1, 3], [1, 3, 4]]
    for strange in ([], {"pad_token": 3, "padding_side": 4}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(strange))
        assert rows(load(tmp_path, "a\na b\n"), "input_ids") == [[1, 3, 0], [1, 3, 4]]


def test_a_decoder_starts_with_an_empty_cache(tmp_path: Path) -> None:
    made(tmp_path)
    inputs = ["input_ids:int64[N=1..8,T=1..8]", "attention_mask:int64[N,P+T]"]
    found = load(tmp_path, "a\na b\n", [*inputs, "past:float32[N,2,P=0..9,4]"])
    assert found.data[0]["past"].shape == (2, 2, 0, 4)


@pytest.mark.parametrize(
    ("text", "said", "problem", "remedy"),
    [
        ("", {}, "holds no text", "a text a line"),
        ("\n \n", {}, "holds no text", "a text a line"),
        (b"\xff\xfe\xff", {}, "cannot be read as text: 'utf-8' codec", "UTF-8"),
        (
            "a\nc",
            {"module": Net(5)},
            "line 2: .* the id 5, and the largest embedding has 5",
            "train",
        ),
        ("a", {"values": ["input_ids=0..1"]}, "line 1: .* input_ids takes 0..1", "input_ids=0..3"),
        ("a", {"values": ["input_ids=2..5"]}, "line 1: .* the id 1, .* takes 2..5", "ids=1..5"),
        (
            "a\na b",
            {"values": ["input_ids=1..5"]},
            "its padding: .* the id 0, .* takes 1..5",
            "input_ids=0..5",
        ),
        ("a", {"inputs": ["x:float32[N,3]"]}, "not one input alone is for its ids: x", "--input"),
        ("a", {"inputs": ["x:float32[N,3,8,8]"]}, "not one input .* ids: x", "takes images: give"),
        (
            "a",
            {"inputs": [*BERT, "position:int64[N,T]", "past:float32[N,4]"]},
            "and nothing for the input 'position'",
            "--values 'position=",
        ),
        (
            "a",
            {"inputs": ["left:int64[N,T]", "right:int64[N,T]"]},
            "not one input alone is for its ids: left",
            "call it input_ids",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, text: Any, said: Any, problem: str, remedy: str
) -> None:
    made(tmp_path)
    with pytest.raises(Torch2MobileError, match=problem) as caught:
        load(tmp_path, text, **said)
    assert caught.value.exit_code == 2
    assert remedy in caught.value.remedy


def test_a_line_ends_where_a_file_has_it_end(tmp_path: Path) -> None:
    made(tmp_path)
    found = load(tmp_path, "a\u2028b\x0c\x0b\x85 c\rb\r\nc")
    assert rows(found, "attention_mask") == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]


def test_a_text_beyond_the_budget_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path)
    monkeypatch.setattr("torch2mobile.limits.machine_memory", lambda: 8 * 1000)
    with pytest.raises(ModelFileError, match=r"its arrays take .* more are read"):
        load(tmp_path, "a " * 300, inputs=["input_ids:int64[N=1..8,T=1..]"])


def test_tokenizers_that_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="nothing says how it becomes numbers"):
        load(tmp_path, "a")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(Torch2MobileError, match=r"tokenizer\.json cannot be read as a tokenizer"):
        load(tmp_path, "a")
    made(tmp_path, unknown=None)
    with pytest.raises(InputError, match="the tokenizer cannot encode"):
        load(tmp_path, "a\nd")
    # A token that its template names and does not have: Rust panics.
    damaged = json.loads(made(tmp_path).read_text())
    damaged["post_processor"]["special_tokens"] = {}
    (tmp_path / "tokenizer.json").write_text(json.dumps(damaged))
    with pytest.raises(InputError, match="the tokenizer cannot encode"):
        load(tmp_path, "a")
    monkeypatch.setitem(WORDS, "pad", WORDS.pop("[PAD]"))
    made(tmp_path)
    with pytest.raises(InputError, match="has no padding token"):
        load(tmp_path, "a\na b\n")
    WORDS["[PAD]"] = 0
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(SourceError) as caught:
        load(tmp_path, "a")
    assert "pip install 'torch2mobile[text]'" in caught.value.remedy


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    request = Request(source="", data=(str(tmp_path / "gone.txt"),))
    with pytest.raises(ModelFileError, match=r"there is no file .*gone\.txt"):
        source.from_specs("m", Net(), BERT, (), request, ())
