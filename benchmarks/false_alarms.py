"""Is a right file ever refused: ``python benchmarks/false_alarms.py [--seeds N] [--only NAME …]``.

Every ordinary sample and 60 common modules are exported once, and the .onnx is judged against the
module with each seed, which draws other examples and other probes. None may fail. Prints, by
module, the seeds that failed, with what was said against the file.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import torch2mobile
from torch2mobile.exporter.loading import source
from torch2mobile.exporter.targets.ort import ONNX
from torch2mobile.interfaces import SilentObserver
from torch2mobile.pipeline import candidates, judging
from torch2mobile.pipeline.module_side import module_side
from torch2mobile.pipeline.stages import Stages
from torch2mobile.records import ArtifactEntry, LoadedModel, ParityOptions, Request, Status
from torch2mobile.sample_models import SAMPLES

ROWS = "x:float32[N=1..4,16]"
SERIES = "x:float32[N=1..4,8,T=16..48]"
IMAGE = "x:float32[N=1..4,8,H=16..32,W=16..32]"
FIXED = "x:float32[N=1..4,8,16,16]"
TOKENS = "x:float32[N=1..4,T=4..24,16]"


class Of(nn.Module):
    """A function of one input, with layers where it needs any."""

    def __init__(self, function: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> Any:
        """The function's value."""
        return self.function(x, *self.layers)


class OfTwo(nn.Module):
    """A function of two inputs."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        """The function's value."""
        return self.function(x, y)


def stack(count: int, *kinds: Callable[[], nn.Module]) -> nn.Module:
    """Layers in turn, so many times."""
    return nn.Sequential(*(kind() for _ in range(count) for kind in kinds))


def linear() -> nn.Module:
    """A linear layer of 16."""
    return nn.Linear(16, 16)


def conv(**options: Any) -> nn.Module:
    """A convolution of 8 channels that keeps the size."""
    return nn.Conv2d(8, 8, 3, padding=1, **options)


Made = tuple[Callable[[], nn.Module], tuple[str, ...]]
TWO = (ROWS, "y:float32[N,16]")


def of(function: Callable[..., Any], *inputs: str) -> Made:
    """A function of one input, without layers."""
    return lambda: Of(function), inputs or (ROWS,)


COMMON: Mapping[str, Made] = {
    # Layers.
    "linear": (linear, (ROWS,)),
    "mlp": (lambda: stack(3, linear, nn.GELU), (ROWS,)),
    "bilinear": (
        lambda: nn.Bilinear(16, 16, 4),
        ("input1:float32[N=1..4,16]", "input2:float32[N,16]"),
    ),
    "conv1d": (lambda: nn.Conv1d(8, 4, 5, padding=2), (SERIES,)),
    "conv2d": (conv, (IMAGE,)),
    "conv2d_strided": (lambda: nn.Conv2d(8, 8, 3, stride=2), (IMAGE,)),
    "conv2d_depthwise": (lambda: conv(groups=8), (IMAGE,)),
    "conv_transpose": (lambda: nn.ConvTranspose2d(8, 4, 2, stride=2), (IMAGE,)),
    "conv_batch_norm": (lambda: nn.Sequential(conv(), nn.BatchNorm2d(8), nn.ReLU6()), (IMAGE,)),
    "group_norm": (lambda: nn.GroupNorm(2, 8), (IMAGE,)),
    "instance_norm": (lambda: nn.InstanceNorm2d(8), (IMAGE,)),
    "layer_norm": (lambda: nn.LayerNorm(16), (ROWS,)),
    "rms_norm": (lambda: nn.RMSNorm(16), (ROWS,)),
    "embedding": (lambda: nn.Embedding(2, 8), ("x:int64[N=1..4,T=2..9]",)),
    "lstm": (lambda: Of(lambda x, layer: layer(x)[0], nn.LSTM(16, 8, batch_first=True)), (TOKENS,)),
    "gru": (lambda: Of(lambda x, layer: layer(x)[0], nn.GRU(16, 8, batch_first=True)), (TOKENS,)),
    "prelu": (lambda: nn.PReLU(8), (IMAGE,)),
    "residual": (lambda: Of(lambda x, a: F.relu(x + a(x)), conv()), (IMAGE,)),
    "attention": (
        lambda: Of(lambda x, q: F.scaled_dot_product_attention(q(x), x, x), linear()),
        (TOKENS,),
    ),
    # Depth, where noise grows or the input is forgotten.
    "tanh_200": (lambda: stack(100, linear, nn.Tanh), (ROWS,)),
    "relu_200": (lambda: stack(100, linear, nn.ReLU), (ROWS,)),
    "sin_200": (lambda: Of(lambda x: [x := torch.sin(x) + 0.1 for _ in range(200)][-1]), (ROWS,)),
    # Activations.
    "sigmoid": of(torch.sigmoid),
    "softmax": of(lambda x: x.softmax(-1)),
    "log_softmax": of(lambda x: x.log_softmax(-1)),
    "silu": of(F.silu),
    "hardswish": of(F.hardswish),
    "elu": of(F.elu),
    "mish": of(F.mish),
    "softplus": of(F.softplus),
    "gelu_tanh": of(lambda x: F.gelu(x, approximate="tanh")),
    # Values that nobody declared.
    "sqrt": of(torch.sqrt),
    "rsqrt": of(torch.rsqrt),
    "log": of(torch.log),
    "acos": of(torch.acos),
    "acosh": of(torch.acosh),
    "logit": of(torch.logit),
    "divide": (lambda: OfTwo(torch.div), TWO),
    "power": (lambda: OfTwo(torch.pow), TWO),
    "normalised": of(lambda x: x / x.norm(dim=-1, keepdim=True)),
    "geometric_mean": of(lambda x: x.log().mean(-1).exp()),
    # Indices of equal values.
    "topk_rounded": of(lambda x: torch.topk(x.round(), 3)),
    "argmax_rounded": of(lambda x: x.round().argmax(-1)),
    "sort_rounded": of(lambda x: torch.sort(x.round(), descending=True)),
    "topk_of_relu": (lambda: Of(lambda x, a: torch.topk(F.relu(a(x)), 5), linear()), (ROWS,)),
    "class_of_logits": (lambda: Of(lambda x, a: a(x).argmax(-1), linear()), (ROWS,)),
    # float16 within.
    "half_sum": of(lambda x: (x.half() * 2).float() + x),
    "half_softmax": (lambda: Of(lambda x, a: a(x).half().softmax(-1).float(), linear()), (ROWS,)),
    # Pooling and resizing.
    "max_pool": of(lambda x: F.max_pool2d(x, 2), IMAGE),
    "max_pool_ceil": of(lambda x: F.max_pool2d(x, 2, 3, 1, ceil_mode=True), FIXED),
    "avg_pool": of(lambda x: F.avg_pool2d(x, 3, 2, 1), IMAGE),
    "global_pool": of(lambda x: x.mean((2, 3)), IMAGE),
    "nearest": of(lambda x: F.interpolate(x, scale_factor=2.0), IMAGE),
    "bilinear_resize": of(
        lambda x: F.interpolate(x, scale_factor=0.6, mode="bilinear", recompute_scale_factor=True),
        IMAGE,
    ),
    "nearest_recomputed": of(
        lambda x: F.interpolate(x, scale_factor=0.6, recompute_scale_factor=True),
        "x:float32[1,2,H=8..64,W=8..64]",
    ),
    "pixel_shuffle": of(lambda x: F.pixel_shuffle(x, 2), IMAGE),
    # Sums, transforms, shapes.
    "rfft": of(lambda x: torch.view_as_real(torch.fft.rfft(x)), "x:float32[N=1..4,12]"),
    "irfft": of(lambda x: torch.fft.irfft(torch.fft.rfft(x), n=12), "x:float32[N=1..4,12]"),
    "cumsum": of(lambda x: x.cumsum(-1)),
    "logsumexp": of(lambda x: x.logsumexp(-1)),
    "spread": of(lambda x: x.std(-1)),
    "einsum": (lambda: OfTwo(lambda x, y: torch.einsum("ni,nj->nij", x, y)), TWO),
    "pad_and_roll": of(lambda x: F.pad(x, (1, 2)).roll(3, -1)),
}


@dataclass(frozen=True)
class Alarm:
    """A right file that was refused, and why."""

    name: str
    seed: int
    why: str


def exported(name: str, folder: Path) -> tuple[Callable[[int], LoadedModel], Path, list[str], str]:
    """A module for any seed, its .onnx, its outputs, and what the export was refused for."""
    out, options = folder / name, {"targets": (), "simplify": False}
    if name in SAMPLES:
        request = Request(f"sample:{name}", simplify=False, targets=())
        from torch2mobile.pipeline.export import export_request

        result = export_request(request, out=out)
        build: Callable[[int], LoadedModel] = lambda _: source.load(request, SAMPLES)  # noqa: E731
    else:
        make, inputs = COMMON[name]
        torch.manual_seed(0)
        module = make().eval()
        result = torch2mobile.export(module, inputs=inputs, out=out, **options)

        def build(seed: int) -> LoadedModel:
            drawn = Request("", parity=ParityOptions(seed=seed))
            return source.from_specs(name, module, inputs, (), drawn, ())

    outputs = [spec.name for spec in result.bundle.manifest.outputs] if result.bundle else []
    return build, out / "model.onnx", outputs, "" if result.bundle else str(result)


def alarms(name: str, seeds: range, folder: Path) -> Iterator[Alarm]:
    """Whatever is said against a right file, by seed."""
    build, path, outputs, refused = exported(name, folder)
    if refused:
        yield Alarm(name, 0, refused)
        return
    with candidates.onnx_runner(path, 300.0) as runner:
        found = candidates.Candidate(ArtifactEntry(ONNX), runner, runner)
        for seed in seeds:
            stages, options = Stages(SilentObserver()), ParityOptions(seed=seed)
            expected = module_side(stages, build(seed), outputs, options, None)
            judging.judge(stages, found, expected or [], options, None)
            wrong = [c for c in stages.checks if c.status in {Status.FAILED, Status.ERROR}]
            for check in wrong:
                problems = [m.problem for m in check.mismatches[:1]]
                yield Alarm(name, seed, "; ".join([check.name, check.summary, *problems]))


def main() -> None:
    """Judge everything and print the alarms."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [*(name for name, sample in SAMPLES.items() if sample.ordinary), *COMMON]
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", nargs="+", default=names, choices=names, metavar="NAME")
    options = parser.parse_args()
    torch.set_num_threads(1)
    total, start = 0, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            found = list(alarms(name, range(options.seeds), Path(folder)))
            total += len({alarm.seed for alarm in found})
            print(f"{name:20} {len({a.seed for a in found}):3} of {options.seeds}", flush=True)
            for alarm in found:
                print(f"    seed {alarm.seed}: {alarm.why}", flush=True)
    runs = len(options.only) * options.seeds
    print(f"{total} false alarms in {runs} runs, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
