"""Nodes and one-thread time of simplified files: ``python benchmarks/simplify.py [NAME ...]``.

Every ordinary sample, two networks of its own, and public architectures with random weights (with
torchvision, timm and transformers): as translated, by onnxsim alone, by onnxslim (``pip install
onnxslim``) and by the way that ``export`` tries first. Fails where ours has more nodes than any.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnxruntime
import torch
from torch import nn
from torch.nn import functional as F

from torch2mobile.environments import Worker
from torch2mobile.exporter import translate
from torch2mobile.exporter.loading import source
from torch2mobile.exporter.simplify import CANDIDATES
from torch2mobile.pipeline.capturing import captured
from torch2mobile.records import Request
from torch2mobile.sample_models import SAMPLES

if TYPE_CHECKING:
    import numpy as np

IMAGE = "image:float32[N=1..4,3,64,64]"
IMAGES = "image:float32[N=1..4,3,32*h=2..4,32*w=2..4]"
TEXT = ("input_ids:int64[N=1..4,L=2..32]", "attention_mask:int64[N,L]")
VALUES = ("input_ids=0..99", "attention_mask=1..1")


class UNet(nn.Module):
    """Three levels, with a skip on each."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()

        def block(into: int, out: int) -> nn.Module:
            norm = nn.BatchNorm2d(out)
            last = nn.Conv2d(out, out, 3, padding=1)
            return nn.Sequential(
                nn.Conv2d(into, out, 3, padding=1), norm, nn.SiLU(), last, nn.GroupNorm(4, out)
            )

        self.down = nn.ModuleList([block(3, width), block(width, 2 * width)])
        self.deep = block(2 * width, 4 * width)
        self.up = nn.ModuleList([block(6 * width, 2 * width), block(3 * width, width)])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """A map of the image's size."""
        first = self.down[0](image)
        second = self.down[1](F.max_pool2d(first, 2))
        deep = self.deep(F.max_pool2d(second, 2))
        wide = F.interpolate(deep, scale_factor=2.0, mode="bilinear")
        wide = self.up[0](torch.cat([wide, second], 1))
        wide = F.interpolate(wide, size=first.shape[-2:])
        return torch.as_tensor(self.up[1](torch.cat([wide, first], 1)))


class Encoder(nn.Module):
    """Twelve layers of PyTorch's own."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True, activation="gelu")
        self.embedding = nn.Embedding(100, width)
        self.layers = nn.TransformerEncoder(layer, 12, enable_nested_tensor=False)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Features of each token."""
        return torch.as_tensor(self.layers(self.embedding(input_ids)))


class Output(nn.Module):
    """One output of a model of transformers."""

    def __init__(self, model: nn.Module, name: str, **options: Any) -> None:
        super().__init__()
        self.model, self.name, self.options = model, name, options

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The output of that name."""
        words = ("input_ids", "attention_mask") if len(inputs) > 1 else ("pixel_values",)
        given = dict(zip(words, inputs, strict=True))
        return torch.as_tensor(self.model(**given, **self.options)[self.name])


def _timm(name: str, **options: Any) -> nn.Module:
    import timm

    return nn.Sequential(timm.create_model(name, **options))


def _torchvision(name: str) -> nn.Module:
    import torchvision

    return nn.Sequential(getattr(torchvision.models, name)())


def _text(model: str, config: str, options: dict[str, Any], **call: Any) -> nn.Module:
    import transformers

    built = getattr(transformers, model)(getattr(transformers, config)(vocab_size=200, **options))
    return Output(built, "last_hidden_state", **call)


def _bert() -> nn.Module:
    size = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
    return _text("BertModel", "BertConfig", {**size, "num_hidden_layers": 12})


def _llama() -> nn.Module:
    size = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    more = {"num_hidden_layers": 4, "intermediate_size": 128}
    return _text("LlamaModel", "LlamaConfig", {**size, **more}, use_cache=False)


def _gpt2() -> nn.Module:
    size = {"n_embd": 64, "n_head": 4, "n_layer": 4, "n_positions": 64}
    tokens = {"bos_token_id": 1, "eos_token_id": 1}
    return _text("GPT2Model", "GPT2Config", {**size, **tokens}, use_cache=False)


def _segformer() -> nn.Module:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(hidden_sizes=[16, 32, 64, 128], decoder_hidden_size=64)
    return Output(SegformerForSemanticSegmentation(config), "logits")


SWIN = {"img_size": 112, "embed_dim": 24, "depths": (2, 2, 2, 2)}
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "encoder": (Encoder, TEXT[:1]),
    "unet": (UNet, ("image:float32[N=1..4,3,4*h=8..16,4*w=8..16]",)),
    "mobilenet_v3_large": (lambda: _torchvision("mobilenet_v3_large"), (IMAGES,)),
    "resnet50": (lambda: _torchvision("resnet50"), (IMAGES,)),
    "vit": (lambda: _timm("vit_tiny_patch16_224", img_size=64), (IMAGE,)),
    "convnext": (lambda: _timm("convnext_atto"), (IMAGES,)),
    "swin": (
        lambda: _timm("swin_tiny_patch4_window7_224", **SWIN),
        ("image:float32[N=1..4,3,112,112]",),
    ),
    "segformer": (_segformer, (IMAGES,)),
    "bert": (_bert, TEXT),
    "gpt2": (_gpt2, TEXT),
    "llama": (_llama, TEXT),
}


def translated(name: str, path: Path) -> dict[str, np.ndarray]:
    """Write the model as ``export`` first has it; returns inputs for the time."""
    torch.manual_seed(0)
    if name in SAMPLES:
        loaded = source.load(Request(source=f"sample:{name}"), SAMPLES)
    else:
        make, texts = MODELS[name]
        values = [text for text in VALUES if text.partition("=")[0] in " ".join(texts)]
        request = Request(source="")
        loaded = source.from_specs(name, make().eval(), texts, values, request, (), None)
    captured(loaded, lambda found: translate.translation(found, path)).given()
    pairs = zip(loaded.specs, loaded.tensors, strict=True)
    return {spec.name: tensor.numpy() for spec, tensor in pairs}


def slimmed(source_path: str, target: str) -> None:
    """onnxslim, in a worker."""
    import onnxslim

    logging.disable(logging.CRITICAL)
    onnx.save(onnxslim.slim(onnx.load(source_path)), target)


def milliseconds(path: Path, feeds: dict[str, np.ndarray]) -> float:
    """The least of some runs on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options)
    times = []
    for _ in range(8):
        start = time.perf_counter()
        session.run(None, feeds)
        times.append(time.perf_counter() - start)
    return min(times) * 1000


def main() -> int:
    """Print the table; 1 where ours is larger than another."""
    parser = argparse.ArgumentParser(description=__doc__)
    ordinary = [name for name, sample in SAMPLES.items() if sample.ordinary]
    parser.add_argument("names", nargs="*", metavar="NAME")
    names = parser.parse_args().names or [*ordinary, *MODELS]
    larger = []
    print("| model | as translated | onnxsim | onnxslim | torch2mobile |\n|---|---|---|---|---|")
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            raw = Path(scratch) / "raw.onnx"
            feeds = translated(name, raw)
            files = [raw, *measured(raw)]
            nodes = [len(onnx.load(path, load_external_data=False).graph.node) for path in files]
            times = [milliseconds(path, feeds) for path in files]
        cells = [f"{n}, {t:.2f} ms" for n, t in zip(nodes, times, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        larger += [name] * (nodes[-1] > min(nodes))
    print(f"larger than another: {', '.join(larger) or 'none'}")
    return 1 if larger else 0


def measured(raw: Path) -> list[Path]:
    """The other files beside the raw one: by onnxsim, by onnxslim, and ours."""
    function = "torch2mobile.exporter.simplify:candidate"
    found = []
    with Worker() as worker:
        for way in ("onnxsim, all its passes", "onnxslim", next(iter(CANDIDATES))):
            path = raw.with_name(f"{len(found)}.onnx")
            if way == "onnxslim":
                slimmed(str(raw), str(path))
            else:
                worker.call(function, way, str(raw), str(path), False, timeout=600)
            found.append(path if path.exists() else raw)
    return found


if __name__ == "__main__":
    sys.exit(main())
