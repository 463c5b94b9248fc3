"""Each awkward sample is awkward in the way it says, with the torch that is installed."""

from __future__ import annotations

import pytest
import torch
from torch.export import Dim

from torch2mobile.sample_models.awkward import (
    baked_batch,
    baked_input,
    complex_fft,
    control_flow,
    custom_autograd,
    dropout_on,
    nan_negative,
    running_mean,
)

BOTH = pytest.mark.parametrize("strict", [False, True])


@BOTH
def test_control_flow_is_not_captured(strict: bool) -> None:
    with pytest.raises(Exception, match=r"(?i)data-dependent"):
        torch.export.export(control_flow.build(), control_flow.example_inputs(), strict=strict)


def test_control_flow_takes_both_branches() -> None:
    model, image = control_flow.build(), torch.full((1, 3, 8, 8), 0.4)
    both = model(image), model(image + 0.2)
    assert (both[0] - both[1]).abs().max() > 0.05


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_complex_logarithm_is_captured_but_not_translated() -> None:
    captured = torch.export.export(complex_fft.build(), complex_fft.example_inputs())
    with pytest.raises(torch.onnx.errors.OnnxExporterError) as caught:
        torch.onnx.export(captured, dynamo=True, verbose=False)
    assert "aten.log" in str(caught.value)
    assert "complex" in str(caught.value)


@torch.no_grad()
def test_complex_logarithm_has_a_real_equal() -> None:
    """The remedy that the sample's docstring gives."""
    model = complex_fft.build()
    (speech,) = complex_fft.example_inputs()
    spectrum = torch.fft.fft(speech) + 1e-3
    cepstrum = torch.fft.ifft(torch.complex(spectrum.abs().log(), spectrum.angle())).real
    remedied = model.classifier(cepstrum[:, : model.coefficients])  # type: ignore[operator]
    torch.testing.assert_close(model(speech), remedied, rtol=1e-4, atol=1e-5)


@BOTH
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # dynamo's
def test_custom_autograd_is_not_captured(strict: bool) -> None:
    with pytest.raises(Exception, match="numpy"):
        torch.export.export(
            custom_autograd.build(), custom_autograd.example_inputs(), strict=strict
        )


@BOTH
def test_gain_is_used_but_not_captured(strict: bool) -> None:
    model = baked_input.build()
    image, gain = baked_input.example_inputs()
    captured = torch.export.export(model, (image, gain), strict=strict).module()
    torch.testing.assert_close(captured(image, gain), model(image, gain))
    torch.testing.assert_close(captured(image, 2 * gain), model(image, gain))
    torch.testing.assert_close(model(image, 2 * gain), 2 * model(image, gain))


@BOTH
def test_batch_is_baked(strict: bool) -> None:
    batch = Dim("N", min=1, max=8)
    with pytest.raises(Exception, match=r"specialized it to be a constant \(2\)"):
        torch.export.export(
            baked_batch.build(),
            baked_batch.example_inputs(),
            dynamic_shapes=({0: batch},),
            strict=strict,
        )


def test_dropout_stays_on() -> None:
    model = dropout_on.build()
    with torch.random.fork_rng(devices=[]):
        first, second = (model(*dropout_on.example_inputs()) for _ in range(2))
    assert not torch.equal(first, second)


def test_negative_input_gives_nan() -> None:
    model = nan_negative.build()
    (image,) = nan_negative.example_inputs()
    assert torch.isfinite(model(image)).all()
    assert torch.isnan(model(-image)).all()


@torch.no_grad()
def test_the_second_call_remembers_the_first() -> None:
    model = running_mean.build()
    (signal,) = running_mean.example_inputs()
    first, second = model(signal), model(signal)
    assert (first - second).abs().max() > 1e-3
