"""Real inputs, ``--data``: arrays, images and text, as cases with an array for every input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from torch2mobile import limits, sampling, sizing
from torch2mobile.errors import InputError, ModelFileError
from torch2mobile.exporter.loading import images, npz, preprocessing, text
from torch2mobile.exporter.loading.fitting import grouped, spread
from torch2mobile.exporter.loading.preprocessing import Preprocessing
from torch2mobile.records import InputSpec, RealCase, Request

if TYPE_CHECKING:
    import torch

Case = Mapping[str, np.ndarray]
# So many cases are made of one folder or file: each of them is run many times.
_MOST = 64


@dataclass(frozen=True)
class Own:
    """What a model says itself of images and text: the text of ``--preprocess``, a tokenizer."""

    preprocess: str = ""
    tokenizer: str = ""


@dataclass(frozen=True)
class Real:
    """Cases of real inputs, and what they were made of."""

    cases: tuple[Case, ...] = ()
    notes: tuple[str, ...] = ()


def read(
    request: Request, module: torch.nn.Module, specs: Sequence[InputSpec], own: Own | None = None
) -> Real:
    """What ``--data`` names, all within one budget, as cases for these inputs.

    Of a folder each ``.npz`` is a case, all ``.npy`` together are one, and each image is one.
    Raises InputError or ModelFileError for what cannot be read, or fits no input.
    """
    reader = _Reader(request, module, specs, own or Own())
    cases = [case for path in request.data for case in reader.cases(Path(path))]
    for option, given, used in (
        ("preprocess", request.preprocess, reader.seen),
        ("tokenizer", request.tokenizer, reader.read),
    ):
        if given and not used:
            kind = "images" if option == "preprocess" else "text"
            reader.notes.append(f"--{option} is for {kind}, and --data has none")
    return Real(tuple(cases), tuple(reader.notes))


class _Reader:
    """Reads paths one by one, and notes what it made of them."""

    def __init__(
        self, request: Request, module: torch.nn.Module, specs: Sequence[InputSpec], own: Own
    ) -> None:
        self._module, self._specs, self._own = module, specs, own
        self._preprocess, self._tokenizer = request.preprocess, request.tokenizer
        self._budget = limits.Budget()
        self._rng = np.random.default_rng([request.parity.seed, 7])
        self.notes: list[str] = []
        self.seen = self.read = False

    def cases(self, path: Path) -> list[Case]:
        """The cases of one file or folder."""
        if not path.is_dir():
            kind = path.suffix.lower()
            if not path.exists():
                raise ModelFileError(f"there is no file {path}", "Check the path given to --data.")
            if kind == text.SUFFIX:
                return self._texts(path)
            if kind in images.SUFFIXES:
                return self._images(path, [path])
            return [npz.load_npz(path, self._budget)]
        files = [file for file in sorted(path.iterdir()) if file.is_file() and file.name[0] != "."]
        found: list[Case] = [*npz.of_files(files, self._budget)]
        pictures = [file for file in files if file.suffix.lower() in images.SUFFIXES]
        if pictures:
            left = [f for f in files if f not in pictures and f.suffix not in {".npz", ".npy"}]
            found += self._images(path, pictures, len(left))
        if not found:
            raise ModelFileError(
                f"the folder {path} holds neither images nor .npz or .npy files",
                "Put images into it, an .npz for each example, or one .npy for each input. Folders "
                "in it are not looked into, and a .txt is named itself.",
            )
        return found

    def _images(self, path: Path, files: Sequence[Path], left: int = 0) -> list[Case]:
        """A case for each image, or for as many as the least batch has."""
        self.seen = True
        said, flag = self._preprocess, "--preprocess"
        if not said:
            said, flag = self._own.preprocess, "the model's own preprocessing"
        how = preprocessing.parse(said, flag) if said else Preprocessing()
        spec, layout = images.place(self._specs, how.input, str(path))
        batched = len(spec.dims) == 4
        count = max(1, spec.dims[0].ends[0]) if batched else 1
        chosen = spread(files, _MOST * count)
        pixels = [images.read(file, spec, layout, how, self._budget) for file in chosen]
        sizes = sorted({each.shape[layout.rows - batched :][:2] for each in pixels})
        cases = []
        for number, group in enumerate(grouped(pixels, count)):
            if len({each.shape for each in group}) > 1:
                raise InputError(
                    f"the images of {path} have several sizes, and {count} of them are one batch",
                    "Give them one size: --preprocess 'resize=224x224'.",
                )
            array = np.stack(group) if batched else group[0]
            origin = chosen[number * count].name
            cases.append(self._completed({spec.name: array}, path, origin))
        whose = "the model's own " if said and said == self._own.preprocess else ""
        if spec.dtype != "uint8":
            how = replace(how, scale=how.scale or (0, 1))
        shown = " to ".join(f"{h} x {w}" for h, w in dict.fromkeys((sizes[0], sizes[-1])))
        others = f"; {left} other file{'s' * (left > 1)} left out" if left else ""
        self.notes.append(
            f"real inputs: {_counted(chosen, files, path)} as {spec.name}, {shown}: {whose}{how}"
            f"{others}"
        )
        return cases

    def _texts(self, path: Path) -> list[Case]:
        """A case for each batch of lines."""
        self.read = True
        file = self._tokenizer or self._own.tokenizer
        if not file:
            raise InputError(
                f"{path} is text, and nothing says how it becomes numbers",
                "Give the model's tokenizer: --tokenizer tokenizer.json.",
            )
        roles = text.roles(self._specs, str(path))
        tokens = text.Tokens(Path(file))
        cases, what = text.batches(path, roles, tokens, self._module, _MOST, self._budget)
        whose = "" if self._tokenizer else "the model's own "
        names = ", ".join(cases[0])
        self.notes.append(f"real inputs: {what} as {names}, by {whose}{Path(file).name}")
        return [self._completed(case, path, case.origin) for case in cases]

    def _completed(self, case: Case, path: Path, origin: str) -> Case:
        """The case with values drawn for the inputs that it lacks, where they are declared."""
        known = [spec for spec in self._specs if spec.name in case]
        found = sizing.sizes_of(known, {name: array.shape for name, array in case.items()})
        sizes = {**sizing.example_sizes(self._specs), **found}
        drawn = {}
        for spec in self._specs:
            if spec.name in case:
                continue
            empty = any(dim.at(sizes) == 0 for dim in spec.dims)
            if spec.values is None and not empty:
                raise InputError(
                    f"{path} gives {', '.join(case)}, and nothing for the input {spec.name!r}",
                    f"Declare what it can be, e.g. --values '{spec.name}=0..1', or give all inputs "
                    "in an .npz.",
                )
            drawn[spec.name] = sampling.draw(spec, sizes, "example", self._rng)
        return RealCase({**case, **drawn}, origin)


def _counted(chosen: Sequence[Path], files: Sequence[Path], path: Path) -> str:
    if files == [path]:
        return str(path)
    some = f"{len(chosen)} of " if len(chosen) < len(files) else ""
    return f"{some}{len(files):,} image{'s' * (len(files) > 1)} of {path}"
