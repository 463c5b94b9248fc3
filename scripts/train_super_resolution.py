"""Train the weights of the sample ``super_resolution``.

    pip install . scikit-image==0.26.0
    python scripts/train_super_resolution.py

Takes about six minutes on one core and overwrites
``torch2mobile/sample_models/weights/super_resolution.safetensors``. Everything is seeded and runs
on one thread: the same versions on the same processor give the same weights.

Trained on:

- photographs that come inside the scikit-image wheel, all in the public domain or under CC0:
  astronaut (NASA), brick, camera, chelsea, coins, grass, gravel, moon (NASA) and rocket (SpaceX);
- pictures rendered here: shapes, lines and letters on shaded, textured ground.

The photograph ``coffee`` (CC0, same wheel) is kept back to watch the training. The photographs
that the tests judge by, scikit-learn's ``china`` and ``flower``, are used nowhere here.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import save_file
from torch.nn import functional as F

from torch2mobile.sample_models.super_resolution import WEIGHTS, SuperResolution

PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "moon.png",
    "rocket.jpg",
)
HELD_BACK = "coffee.png"
SCALES = (1.0, 0.75, 0.5)
RENDERED = 40
PATCH = 48
BATCH = 8
STEPS = 10_000
SEED = 0

Pixels = NDArray[np.float32]


def photographs(names: tuple[str, ...]) -> Iterator[Image.Image]:
    """The luminance of scikit-image's photographs, as they are and shrunk, which sharpens them."""
    folder = files("skimage.data")
    for name in names:
        with (folder / name).open("rb") as file:
            photograph = Image.open(file).convert("RGB").convert("L")
        for scale in SCALES:
            size = (round(photograph.width * scale), round(photograph.height * scale))
            yield photograph.resize(size, Image.Resampling.LANCZOS)


def texture(random: np.random.Generator, size: int, roughness: float) -> Pixels:
    """Noise whose amplitude falls with frequency, as in photographs, about 0 with deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(random.standard_normal((size, size))) * frequency**-roughness
    noise = np.fft.irfft2(spectrum, s=(size, size))
    return np.asarray(noise / noise.std(), np.float32)


def rendered(random: np.random.Generator, size: int = 256) -> Image.Image:
    """One picture of shapes, lines and letters; drawn four times as large for smooth edges."""
    large = 4 * size
    picture = Image.new("L", (large, large), int(random.integers(256)))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(random.integers(20, 50))):
        left, top = (int(value) for value in random.integers(-large // 8, large, 2))
        width, height = (int(value) for value in random.integers(16, large // 3, 2))
        box = (left, top, left + width, top + height)
        grey = int(random.integers(256))
        kind = random.integers(5)
        if kind == 0:
            draw.ellipse(box, fill=grey)
        elif kind == 1:
            corners = random.uniform((left, top), box[2:], (5, 2))
            draw.polygon([(float(x), float(y)) for x, y in corners], fill=grey)
        elif kind == 2:
            draw.line(box, fill=grey, width=int(random.integers(2, 24)))
        elif kind == 3:
            draw.arc(box, 0, float(random.uniform(90, 360)), grey, int(random.integers(2, 24)))
        else:
            letters = "".join(chr(code) for code in random.integers(33, 127, 12))
            font = ImageFont.load_default(float(random.uniform(32, 160)))
            draw.text((left, top), letters, fill=grey, font=font)
    pixels = np.asarray(picture.resize((size, size), Image.Resampling.BOX), np.float32)
    shade = texture(random, size, 2.0) * random.uniform(0, 20)
    grain = texture(random, size, random.uniform(0.5, 1.5)) * random.uniform(0, 12)
    return Image.fromarray((pixels + shade + grain).clip(0, 255).astype(np.uint8))


def pair(picture: Image.Image) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture at half size and at full size, ``[1, H, W]`` and ``[1, 2 * H, 2 * W]`` in 0..1."""
    width, height = picture.width // 2, picture.height // 2
    picture = picture.crop((0, 0, 2 * width, 2 * height))
    half = picture.resize((width, height), Image.Resampling.BICUBIC)
    small, full = (torch.from_numpy(np.array(image)) for image in (half, picture))
    return small[None].float() / 255, full[None].float() / 255


def batches(
    pairs: list[tuple[torch.Tensor, torch.Tensor]], random: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches of patches, turned and mirrored; larger pictures come up more often."""
    areas = np.array([small.numel() for small, _ in pairs], np.float64)
    while True:
        smalls: list[torch.Tensor] = []
        fulls: list[torch.Tensor] = []
        for index in random.choice(len(pairs), BATCH, p=areas / areas.sum()):
            small, full = pairs[index]
            top = int(random.integers(small.shape[1] - PATCH + 1))
            left = int(random.integers(small.shape[2] - PATCH + 1))
            turns, mirrored = int(random.integers(4)), bool(random.integers(2))
            for patches, image, factor in ((smalls, small, 1), (fulls, full, 2)):
                rows = slice(factor * top, factor * (top + PATCH))
                columns = slice(factor * left, factor * (left + PATCH))
                patch = torch.rot90(image[:, rows, columns], turns, (1, 2))
                patches.append(patch.flip(2) if mirrored else patch)
        yield torch.stack(smalls), torch.stack(fulls)


def psnr(image: torch.Tensor, truth: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB, of values in 0..1."""
    return float(-10 * torch.log10(F.mse_loss(image.clamp(0, 1), truth)))


def train(steps: int) -> SuperResolution:
    """A network trained from scratch, on one thread so that a second run gives the same."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    random = np.random.default_rng(SEED)
    pictures = [*photographs(PHOTOGRAPHS), *(rendered(random) for _ in range(RENDERED))]
    pairs = [pair(picture) for picture in pictures if min(picture.size) >= 2 * PATCH]
    seen, truth = pair(next(photographs((HELD_BACK,))))

    model = SuperResolution()
    torch.nn.init.zeros_(model.tail.weight)  # starts as plain repetition of pixels
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    began = time.monotonic()
    for step, (small, full) in zip(range(1, steps + 1), batches(pairs, random), strict=False):
        loss = F.l1_loss(model(small), full)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 500 == 0 or step == steps:
            with torch.no_grad():
                quality = psnr(model(seen[None])[0], truth)
            seconds = time.monotonic() - began
            print(f"step {step}, {seconds:.0f} s: {HELD_BACK} at {quality:.2f} dB", flush=True)
    return model


def main() -> None:
    """Train and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    model = train(options.steps)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), options.out)


if __name__ == "__main__":
    main()
