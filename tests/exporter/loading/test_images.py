"""Images as inputs: sizes, layouts, kinds of files, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from torch2mobile.errors import InputError, ModelFileError, SourceError, UsageError
from torch2mobile.exporter.loading import images, source
from torch2mobile.records import LoadedModel, Request

FIXED = "x:float32[N=1..8,3,8,8]"
FREE = "x:float32[N=1..8,3,H=8..64,W=8..64]"


class Many(nn.Module):
    def forward(self, *inputs: Any) -> Any:
        return inputs


def load(
    *paths: Path, inputs: Sequence[str] = (FIXED,), values: Sequence[str] = (), **said: str
) -> LoadedModel:
    request = Request(source="", data=tuple(map(str, paths)), **said)
    return source.from_specs("m", Many(), inputs, values, request, ())


def array(*paths: Path, **said: Any) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = load(*paths, **said).data[0]["x"]
    return found


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """24 wide and 16 high: red in the left half, blue in the right."""
    image = Image.new("RGB", (24, 16), (255, 0, 0))
    image.paste((0, 0, 255), (12, 0, 24, 16))
    image.save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        (FIXED, (1, 3, 8, 8)),  # the shorter side, and then the middle
        (FREE, (1, 3, 16, 24)),  # its own
        ("x:float32[N=2..4,3,H=8..,W=8..]", (2, 3, 16, 24)),
        ("x:float32[1,8,8,3]", (1, 8, 8, 3)),
        ("x:float64[3,8,8]", (3, 8, 8)),
        ("x:float16[8,8,1]", (8, 8, 1)),
        ("x:float32[N,3,H=4..12,W=4..12]", (1, 3, 8, 12)),  # smaller, to fit
        ("x:float32[N,3,H=32..,W=32..]", (1, 3, 32, 48)),  # larger, to fit
        ("x:float32[N,3,S=8..64,S]", (1, 3, 16, 16)),
        ("x:float32[N,3,5*h=1..,5*w=1..]", (1, 3, 15, 20)),
        ("x:float32[N,3,2*h=1..,3*h]", (1, 3, 16, 24)),
    ],
)
def test_the_declared_shape_decides_the_size(photo: Path, text: str, shape: Any) -> None:
    found = array(photo, inputs=[text])
    assert found.shape == shape
    assert str(found.dtype) in text
    brightest = 0.299 if text.endswith("1]") else 1  # of red, in grey
    assert (found.min() < 0.2, found.max()) == (True, pytest.approx(brightest, abs=2e-3))


@pytest.mark.parametrize(
    ("steps", "inputs", "shape", "corner"),
    [
        ("resize=8x12", FREE, (1, 3, 8, 12), [1, 0, 0]),
        ("resize=8", FREE, (1, 3, 8, 12), [1, 0, 0]),
        ("resize=8", FIXED, (1, 3, 8, 8), [1, 0, 0]),  # what is more is cropped
        ("crop=8", FREE, (1, 3, 8, 8), [1, 0, 0]),
        ("order=bgr", FREE, (1, 3, 16, 24), [0, 0, 1]),
        ("scale=-1..1", FREE, (1, 3, 16, 24), [1, -1, -1]),
        ("mean=0.5,std=0.25/0.5/1", FREE, (1, 3, 16, 24), [2, -1, -0.5]),
    ],
)
def test_steps(photo: Path, steps: str, inputs: str, shape: Any, corner: list[float]) -> None:
    found = array(photo, inputs=[inputs], preprocess=steps)
    assert found.shape == shape
    assert found[0, :, 0, 0].tolist() == corner


BESIDE = """
import torch
from torch import nn

class Net(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))

def example_inputs():
    return torch.zeros(2, 3, 8, 8)
"""


def test_however_the_inputs_are_described(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text(BESIDE)
    wide = {"preprocess": "resize=8x8,order=bgr", "data": (str(photo),)}
    beside = source.load(Request(source=f"{tmp_path / 'beside.py'}:Net", **wide), {})
    x = torch.zeros(2, 3, 8, 8)
    program = torch.export.export(nn.ReLU(), (x,))
    torch.export.save(program, tmp_path / "relu.pt2")
    saved = source.load(Request(source=str(tmp_path / "relu.pt2"), **wide), {})
    called = source.from_call("m", nn.ReLU(), (x,), {}, request=Request(source="", **wide))
    for found in (beside, saved, called):
        ((name, array),) = found.data[0].items()
        assert (name, array.shape) == (found.specs[0].name, (2, 3, 8, 8))
        assert array[1, :, 0, 0].tolist() == [0, 0, 1]
        assert found.real[0].startswith(f"real inputs: {photo} as {name}, 8 x 8: resize=8x8")
    # Beside the model an image takes the example's place; a call and a program keep theirs.
    assert [bool(f.tensors[0].any()) for f in (beside, saved, called)] == [True, False, False]
    (tmp_path / "bare.py").write_text(BESIDE.replace("def example", "def other"))
    with pytest.raises(InputError, match="no input is for images"):
        source.load(Request(source=f"{tmp_path / 'bare.py'}:Net", **wide), {})


def test_bytes_stay_as_they_are(photo: Path) -> None:
    text = "x:uint8[1,H,W,3]"
    assert array(photo, inputs=[text])[0, 0, 0].tolist() == [255, 0, 0]
    with pytest.raises(InputError, match="x is uint8, and takes pixels as they are"):
        load(photo, inputs=[text], preprocess="mean=0.5")


def test_a_folder_is_counted_and_named(photo: Path) -> None:
    folder = photo.parent
    Image.new("L", (9, 9), 255).save(folder / "a.JPG")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(b"no image")
    (folder / "sub").mkdir()
    np.savez(folder / "z.npz", x=np.zeros((3, 3, 8, 8), np.float32))
    found = load(folder)
    assert [case["x"].shape[0] for case in found.data] == [3, 1, 1]
    steps = "filter=bilinear,scale=0..1"
    assert found.real == (
        f"real inputs: 2 images of {folder} as x, 8 x 8: {steps}",
        f"left out of {folder}: notes.txt, sub/",
    )
    assert [case.origin for case in found.data[1:]] == ["a.JPG", "photo.png"]
    assert "9 x 9 to 16 x 24" in load(photo, folder / "a.JPG", folder, inputs=[FREE]).real[2]


def test_of_many_arrays_some_are_taken_and_no_file_is_left_out_unsaid(tmp_path: Path) -> None:
    for number in range(70):
        np.savez(tmp_path / f"{number:02}.NPZ", x=np.full((1, 3, 8, 8), number, np.float32))
    for number in range(5):
        (tmp_path / f"{number}.dng").touch()
    found = load(tmp_path)
    assert [case["x"].max() for case in found.data][::21] == [0, 22, 45, 68]
    assert found.real == (
        f"real inputs: 64 of 70 .npz files of {tmp_path}",
        f"left out of {tmp_path}: 0.dng, 1.dng, 2.dng and 2 more",
    )


def test_of_many_images_some_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch2mobile.exporter.loading.real_inputs._MOST", 3)
    for number in range(7):
        Image.new("L", (8, 8), 30 * number).save(tmp_path / f"{number}.png")
    found = load(tmp_path, inputs=["x:uint8[2,8,8,1]"])
    assert [case["x"][:, 0, 0, 0].tolist() for case in found.data] == [
        [0, 30],
        [60, 90],
        [120, 150],
    ]
    assert "6 of 7 images" in found.real[0]
    np.savez(tmp_path / "z.npz", x=np.zeros((2, 8, 8, 1), np.uint8))
    assert len(load(tmp_path, inputs=["x:uint8[2,8,8,1]"]).data) == 3  # of both together
    (tmp_path / "z.npz").unlink()
    (tmp_path / "6.png").unlink()
    (tmp_path / "5.png").unlink()
    odd = load(tmp_path, inputs=["x:uint8[2,8,8,1]"]).data
    assert odd[-1]["x"][:, 0, 0, 0].tolist() == [120, 0]  # filled up from the start


def test_kinds_of_images(tmp_path: Path) -> None:
    grey, colour = ["x:uint8[8,8,1]"], ["x:uint8[8,8,3]"]
    deep = Image.fromarray(np.full((8, 8), 257 * 100, np.uint16))
    deep.save(tmp_path / "deep.png")
    assert array(tmp_path / "deep.png", inputs=grey).max() == 100
    first, second = Image.new("L", (8, 8), 10), Image.new("L", (8, 8), 20)
    first.save(tmp_path / "moving.gif", save_all=True, append_images=[second])
    assert array(tmp_path / "moving.gif", inputs=grey).max() == 10
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "print.tif")
    assert array(tmp_path / "print.tif", inputs=colour)[0, 0].tolist() == [0, 255, 255]
    Image.new("RGBA", (8, 8), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    assert array(tmp_path / "clear.png", inputs=colour)[0, 0].tolist() == [10, 20, 30]
    palette = Image.new("RGB", (8, 8), (10, 20, 30)).convert("P")
    palette.save(tmp_path / "palette.png", transparency=b"\0\1")
    assert array(tmp_path / "palette.png", inputs=colour).shape == (8, 8, 3)
    Image.new("1", (8, 8), 1).save(tmp_path / "bits.png")
    assert array(tmp_path / "bits.png", inputs=grey).min() == 255
    side = Image.new("RGB", (16, 8))
    side.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned
    side.save(tmp_path / "turned.png", exif=exif)
    turned = array(tmp_path / "turned.png", inputs=["x:uint8[H,W,3]"])
    assert turned.shape == (16, 8, 3)
    assert turned[0, -1].tolist() == [255, 255, 255]


def _bomb(path: Path) -> None:
    # The header of a picture of 20,000 x 20,000, which is refused before anything is decoded.
    Image.new("1", (8, 8)).save(path)
    raw = bytearray(path.read_bytes())
    raw[16:24] = (20_000).to_bytes(4, "big") * 2
    import zlib

    raw[29:33] = zlib.crc32(raw[12:29]).to_bytes(4, "big")
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (lambda path: path.write_bytes(b"no image"), "cannot identify image file"),
        (lambda path: path.write_bytes(b""), "cannot identify image file"),
        (_bomb, "could be decompression bomb"),
        (lambda path: Image.new("F", (8, 8)).save(path, format="TIFF"), "its pixels are floats"),
        (
            lambda path: Image.new("I", (8, 8), 70_000).save(path, format="TIFF"),
            "more than 16 bits a pixel",
        ),
    ],
)
def test_a_file_that_is_no_image_is_named(tmp_path: Path, write: Any, problem: str) -> None:
    write(tmp_path / "bad.png")
    with pytest.raises(ModelFileError, match=problem) as caught:
        load(tmp_path)
    assert "bad.png cannot be read as an image" in caught.value.message
    assert "take it out of --data" in caught.value.remedy


def test_a_truncated_image_is_no_image(photo: Path) -> None:
    photo.write_bytes(photo.read_bytes()[:-40])
    with pytest.raises(ModelFileError, match=r"photo\.png cannot be read as an image"):
        load(photo)


@pytest.mark.parametrize(
    ("said", "problem", "remedy"),
    [
        ({"inputs": ["x:float32[N,4]"]}, r"no input is for images: x:float32\[N,4\]", "--input"),
        ({"inputs": ["x:int64[N,T=1..8]"]}, "no input is for images", "takes ids of a text: give"),
        ({"inputs": ["x:int64[N,3,8,8]"]}, "no input is for images", "in uint8 or a float"),
        (
            {"inputs": [FIXED, "y:float32[N,3,8,8]"]},
            "more than one input could be theirs: x, y",
            "--preprocess 'input=x'",
        ),
        ({"preprocess": "input=z"}, "unknown input 'z'", "There is: x"),
        ({"preprocess": "mean=1/2"}, "mean has 2 numbers, and x 3 channels", "one for each"),
        ({"preprocess": "resize=4"}, "is 4 x 6 after its preprocessing", "a larger resize"),
        ({"preprocess": "crop=64"}, "is 16 x 24, less than its crop of 64 x 64", "resize before"),
        (
            {"inputs": [FIXED, "y:float32[N,2]"]},
            "gives x, and nothing for the input 'y'",
            "--values 'y=0..1'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(photo: Path, said: Any, problem: str, remedy: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        load(photo, **said)
    assert remedy in caught.value.remedy


def test_images_of_several_sizes_are_no_batch(photo: Path) -> None:
    Image.new("L", (9, 9)).save(photo.parent / "small.png")
    with pytest.raises(InputError, match="have several sizes, and 2 of them are one batch"):
        load(photo.parent, inputs=["x:float32[2,3,H=8..64,W=8..64]"])


def test_other_inputs_have_their_declared_values(photo: Path) -> None:
    inputs = [FREE, "ids:int64[N,T=4..9]", "rows:float32[N,H]"]
    values = ["ids=5..9", "rows=constant(2)"]
    case = load(photo, inputs=inputs, values=values).data[0]
    assert (case["rows"].shape, case["rows"].min()) == ((1, 16), 2)
    assert case["ids"].shape[0] == 1
    assert 5 <= case["ids"].min() <= case["ids"].max() <= 9
    two = ["a:float32[N,3,8,8]", "b:float32[N,3,8,8]"]
    case = load(photo, inputs=two, values=["a=constant(2)"], preprocess="input=b").data[0]
    assert (case["a"].min(), case["b"].max()) == (2, 1)


def test_without_pillow_the_command_is_named(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(SourceError, match=r"PIL\.Image cannot be imported") as caught:
        load(photo)
    assert "pip install 'torch2mobile[images]'" in caught.value.remedy


def test_what_is_said_of_images_alone_is_noted(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((1, 3, 8, 8), np.float32))
    (tmp_path / "t.json").touch()
    found = load(tmp_path / "d.npz", preprocess="resize=8", tokenizer=str(tmp_path / "t.json"))
    assert "--preprocess is for images, and --data has none" in found.real
    assert "--tokenizer is for text, and --data has none" in found.real
    (tmp_path / "d.npz").unlink()
    (tmp_path / "t.json").unlink()
    with pytest.raises(ModelFileError, match="holds neither images nor"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("data", "said", "problem"),
    [
        ([], {"preprocess": "garbage(("}, "unknown step 'garbage'"),
        ([], {"preprocess": "resize=8"}, "--preprocess is for images, and --data names none"),
        ([], {"tokenizer": "none.json"}, r"there is no file none\.json"),
        ([], {"tokenizer": "."}, "--tokenizer is for text, and --data names none"),
        ([""], {}, "--data names an empty path"),
        (["x" * 300], {}, "--data 'x{40}' cannot be opened: File name too long"),
        (["\0"], {}, "cannot be opened: .*null"),
    ],
)
def test_what_is_said_of_no_data_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: list[str], said: Any, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    request = Request(source="", data=tuple(data), **said)
    with pytest.raises(UsageError, match=problem):
        source.from_specs("m", Many(), [FIXED], (), request, ())


OWN = (
    BESIDE
    + """
from pathlib import Path
PREPROCESS = lambda image: image
TOKENIZER = object()
INPUTS = "x:float32[N,3,8,8]"
VALUES = ()
"""
)


def test_a_global_of_that_name_counts_where_it_is_text(photo: Path) -> None:
    path = photo.parent / "own.py"
    path.write_text(OWN)
    said: dict[str, Any] = {"source": f"{path}:Net"}
    assert not source.load(Request(**said), {}).real
    said["data"] = (str(photo),)
    assert "PREPROCESS beside the model is no text" in source.load(Request(**said), {}).real[0]
    (photo.parent / "a.txt").write_text("a")
    with pytest.raises(InputError) as caught:
        source.load(Request(**{**said, "data": (str(photo.parent / "a.txt"),)}), {})
    assert "TOKENIZER beside it is no path" in caught.value.remedy
    for own, noted in (("{'resize': 8}", True), ("{'Other': 'resize=8'}", False), ("None", False)):
        path.write_text(f"{OWN}PREPROCESS = {own}\n")
        notes = " ".join(source.load(Request(**said), {}).real)
        assert ("PREPROCESS beside the model is no text" in notes) is noted
    path.write_text(OWN + "DATA = Path('photo.png')\nPREPROCESS = ['resize=8x8', 'mean=0.5']\n")
    assert "the model's own resize=8x8" in source.load(Request(source=f"{path}:Net"), {}).real[0]


def test_every_suffix_is_one_that_pillow_knows_but_for_its_plug_ins() -> None:
    assert set(Image.registered_extensions()) >= images.SUFFIXES - {".heic", ".heif"}


def test_a_heic_photo_is_called_that_and_read_by_pillows_plug_in(
    photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heic = photo.rename(photo.with_suffix(".HEIC"))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for path in (heic, heic.parent):
        with pytest.raises(ModelFileError, match=r"photo\.HEIC is a HEIC photo") as caught:
            load(path)
        assert "pip install pillow-heif, or convert the photo" in caught.value.remedy
    # A stand-in: Pillow tells the file by its bytes, which are a PNG's.
    plug_in = SimpleNamespace(register_heif_opener=lambda: None)
    monkeypatch.setitem(sys.modules, "pillow_heif", plug_in)
    assert array(heic).shape == (1, 3, 8, 8)


def test_a_heic_photo_itself(photo: Path) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    Image.open(photo).save(photo.with_suffix(".heic"), quality=100)
    assert array(photo.with_suffix(".heic")).shape == (1, 3, 8, 8)
