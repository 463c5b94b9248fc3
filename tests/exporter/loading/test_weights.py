"""Weights from a file: exactly those of the model, and never code."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from torch2mobile.errors import ExitCode, SourceError
from torch2mobile.exporter.loading.weights import load_weights, read_state_dict


class Net(nn.Module):
    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.body = nn.Linear(3, width)
        self.norm = nn.BatchNorm1d(width)


def state() -> dict[str, torch.Tensor]:
    """Weights that no fresh model has."""
    return {key: torch.full_like(value, 7) for key, value in Net().state_dict().items()}


def save(path: Path, content: Any) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(content, path)
    else:
        torch.save(content, path)
    return path


def refusal(path: Path, module: nn.Module | None = None) -> SourceError:
    """The error; and not one value of the module was changed."""
    module = module or Net()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(SourceError) as caught:
        load_weights(module, path)
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)
    assert caught.value.exit_code is ExitCode.USAGE
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth", "w.bin", "w.ckpt", "w.pth.tar"])
def test_weights_go_into_the_model(tmp_path: Path, name: str) -> None:
    module = Net()
    load_weights(module, save(tmp_path / name, state()))
    torch.testing.assert_close(module.state_dict(), state(), rtol=0, atol=0)


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_checkpoints_of_training_are_unwrapped(tmp_path: Path, wrapper: str) -> None:
    checkpoint = {"epoch": 3, "optimizer": {"lr": 0.1}, wrapper: state()}
    found, note = read_state_dict(save(tmp_path / "w.pt", checkpoint))
    assert (found.keys(), note) == (state().keys(), "")


@pytest.mark.parametrize("wrapper", ["params_ema", "net"])
def test_the_one_state_dict_of_a_checkpoint_is_taken_and_told(tmp_path: Path, wrapper: str) -> None:
    path = save(tmp_path / "w.pth", {"epoch": 3, "optimizer": {"state": {}}, wrapper: state()})
    module = Net()
    assert load_weights(module, path) == (f"the weights are {wrapper!r} of w.pth",)
    torch.testing.assert_close(module.state_dict(), state(), rtol=0, atol=0)


def test_of_several_state_dicts_one_is_named(tmp_path: Path) -> None:
    other = {key: value + 1 for key, value in state().items()}
    path = save(tmp_path / "w.pth", {"params": other, "params_ema": state()})
    error = refusal(path)
    assert "holds 2 state dicts: params, params_ema" in error.message
    assert error.remedy == f"Name the one that is meant: --weights {path}:params"
    module = Net()
    assert load_weights(module, Path(f"{path}:params_ema")) == ()
    torch.testing.assert_close(module.state_dict(), state(), rtol=0, atol=0)
    error = refusal(Path(f"{path}:param_ema"))
    assert "no state dict 'param_ema'" in error.message
    assert "params_ema" in error.remedy
    for name in ("one.safetensors", "one.pt"):
        error = refusal(Path(f"{save(tmp_path / name, state())}:params"))
        assert "no state dict 'params'" in error.message
        assert error.remedy == f"Give {tmp_path / name} as it is."


def test_a_wider_dtype_is_taken_over(tmp_path: Path) -> None:
    module = Net()
    halves = {key: value.half() if value.ndim else value for key, value in state().items()}
    load_weights(module, save(tmp_path / "w.pt", halves))
    assert module.body.weight.dtype == torch.float32
    assert (module.body.weight == 7).all()


def test_a_lazy_layer_takes_its_shape_from_the_file(tmp_path: Path) -> None:
    module = nn.Sequential(nn.LazyLinear(2))
    load_weights(module, save(tmp_path / "w.pt", nn.Sequential(nn.Linear(3, 2)).state_dict()))
    assert module[0].weight.shape == (2, 3)


def test_missing_and_unexpected_keys_are_named(tmp_path: Path) -> None:
    content = state()
    content["extra.weight"] = content.pop("body.bias")
    error = refusal(save(tmp_path / "w.pt", content))
    assert "missing keys: body.bias; unexpected keys: extra.weight" in error.message


def test_many_keys_are_not_all_named(tmp_path: Path) -> None:
    content = {**state(), **{f"k{number:02}": torch.ones(1) for number in range(20)}}
    message = refusal(save(tmp_path / "w.pt", content)).message
    assert "k07 and 12 more" in message
    assert "k08" not in message


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_prefix_of_all_keys_is_left_out(tmp_path: Path, prefix: str) -> None:
    content = {f"{prefix}{key}": value for key, value in state().items()}
    module = Net()
    notes = load_weights(module, save(tmp_path / "w.pt", content))
    assert notes == (f"{prefix!r} was left out of all keys of w.pt",)
    torch.testing.assert_close(module.state_dict(), state(), rtol=0, atol=0)
    del content[f"{prefix}body.bias"]
    assert "missing keys: body.bias" in refusal(save(tmp_path / "w.pt", content)).message
    content["other"] = torch.ones(1)
    assert f"unexpected keys: {prefix}" in refusal(save(tmp_path / "w.pt", content)).message


def test_other_shapes_are_named(tmp_path: Path) -> None:
    error = refusal(save(tmp_path / "w.pt", state()), Net(width=4))
    assert "body.weight is [2, 3] in the file, [4, 3] in the model" in error.message
    assert "norm.running_var is [2] in the file, [4] in the model" in error.message


@pytest.mark.parametrize(
    ("key", "dtype", "own"),
    [
        ("body.weight", torch.complex64, "torch.float32"),
        ("norm.num_batches_tracked", torch.float32, "torch.int64"),
    ],
)
def test_a_dtype_that_would_lose_values_is_refused(
    tmp_path: Path, key: str, dtype: torch.dtype, own: str
) -> None:
    content = state()
    content[key] = content[key].to(dtype)
    message = refusal(save(tmp_path / "w.pt", content)).message
    assert f"{key} is {dtype} in the file, {own} in the model" in message


def test_sparse_weights_are_refused(tmp_path: Path) -> None:
    content = state()
    with torch.sparse.check_sparse_tensor_invariants():
        content["body.weight"] = content["body.weight"].to_sparse()
    message = refusal(save(tmp_path / "w.pt", content)).message
    assert "body.weight is torch.sparse_coo in the file, torch.strided in the model" in message


def test_what_the_module_itself_refuses_is_refused(tmp_path: Path) -> None:
    class Picky(Net):
        def _load_from_state_dict(self, *args: Any) -> None:
            args[-1].append("not these")

    with pytest.raises(SourceError, match="not these"):
        load_weights(Picky(), save(tmp_path / "w.pt", state()))


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("nest", [lambda bomb: bomb, lambda bomb: {**state(), "extra": bomb}])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, nest: Any) -> None:
    path = save(tmp_path / "w.pt", nest(Bomb(tmp_path / "exploded")))
    error = refusal(path)
    assert "mkdir" in error.message
    assert "state_dict()" in error.remedy
    assert not (tmp_path / "exploded").exists()
    # The bomb is live: an unrestricted load sets it off.
    torch.load(path, weights_only=False)
    assert (tmp_path / "exploded").exists()


def test_a_whole_model_is_refused(tmp_path: Path) -> None:
    error = refusal(save(tmp_path / "w.pt", nn.Linear(2, 2)))
    assert "holds code (torch.nn.modules.linear.Linear), not only tensors" in error.message


@pytest.mark.parametrize("content", [[torch.ones(1)], {1: torch.ones(1)}, {"a": 5}, torch.ones(1)])
def test_what_is_no_state_dict(tmp_path: Path, content: Any) -> None:
    assert "no state dict" in refusal(save(tmp_path / "w.pt", content)).message


@pytest.mark.parametrize(
    "content",
    [b"hello", b"1" * 100, b"}", b"\0" * 300, b"<html></html>", b"PK\3\4junk", b"\x80\4q"],
)
def test_what_is_no_file_of_torch(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pt").write_bytes(content)
    message = refusal(tmp_path / "w.pt").message
    assert "is no file of torch.save, or is corrupt" in message or "holds no tensors" in message
    assert "Error" not in message


def test_an_archive_that_inflates_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "plain.pt", {"w": torch.zeros(1 << 18)})
    with (
        zipfile.ZipFile(path) as old,
        zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for member in old.namelist():
            new.writestr(member, old.read(member))
    monkeypatch.setattr("torch2mobile.limits.machine_memory", lambda: 8 * 100_000)
    assert "only 0.1 MB more are read" in refusal(tmp_path / "w.pt").message
    # As torch writes it, it takes what it has on disk.
    assert "missing keys" in refusal(path).message


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("cut", [0, 1, 20, -200])
def test_truncated_files(tmp_path: Path, name: str, cut: int) -> None:
    path = save(tmp_path / name, state())
    path.write_bytes(path.read_bytes()[:cut])
    assert str(path) in refusal(path).message


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.safetensors"])
def test_an_empty_file_holds_no_state_dict(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.touch()
    error = refusal(path)
    assert error.message == f"{path} is empty: it has 0 bytes, and no state dict in it"
    assert "Save it anew" in error.remedy


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.safetensors"])
def test_what_is_no_weights_file_at_all(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("hello, these are no weights")
    assert str(path) in refusal(path).message


@pytest.mark.parametrize("place", range(0, 1600, 100))
def test_a_flipped_byte_is_an_error_or_harmless(tmp_path: Path, place: int) -> None:
    path = save(tmp_path / "w.pt", state())
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
    module = Net()
    try:
        load_weights(module, path)
    except SourceError:
        return
    assert module.state_dict().keys() == state().keys()


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    assert "no weights file" in refusal(tmp_path / "gone.pt").message
    assert "no weights file" in refusal(tmp_path).message
    (tmp_path / "w.h5").write_bytes(b"\x89HDF")
    assert "unknown ending '.h5'" in refusal(tmp_path / "w.h5").message
