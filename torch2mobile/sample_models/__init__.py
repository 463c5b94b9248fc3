"""Models to try the program on, to learn from and to test with: ``sample:NAME``.

The ordinary ones export and pass. The awkward ones must fail, each for a reason of its own, with
the exit code and the source line that its row gives. Nothing here imports torch: the models'
modules do, when they are loaded.
"""

from __future__ import annotations

from torch2mobile.records import Sample

__all__ = ["SAMPLES"]

_HERE = "torch2mobile.sample_models"

SAMPLES: dict[str, Sample] = {
    "super_resolution": Sample(
        name="super_resolution",
        module=f"{_HERE}.super_resolution",
        title="Sub-pixel CNN that doubles a photograph's resolution, trained",
    ),
    "mobile_cnn": Sample(
        name="mobile_cnn",
        module=f"{_HERE}.mobile_cnn",
        title="Image classifier with depthwise blocks and squeeze-and-excite",
    ),
    "transformer": Sample(
        name="transformer",
        module=f"{_HERE}.transformer",
        title="Text classifier: transformer encoder on token ids with a padding mask",
    ),
    "recurrent": Sample(
        name="recurrent",
        module=f"{_HERE}.recurrent",
        title="Sensor classifier: bidirectional LSTM and GRU",
    ),
    "segmenter": Sample(
        name="segmenter",
        module=f"{_HERE}.segmenter",
        title="U-Net that labels every pixel",
    ),
    "detector": Sample(
        name="detector",
        module=f"{_HERE}.detector",
        title="Object detector with boxes and scores as a dict",
    ),
    "control_flow": Sample(
        name="control_flow",
        module=f"{_HERE}.awkward.control_flow",
        title="Awkward: a branch that depends on the data",
        expect_exit=3,
        expect_line="if image.mean() > 0.5:",
    ),
    "complex_fft": Sample(
        name="complex_fft",
        module=f"{_HERE}.awkward.complex_fft",
        title="Awkward: a logarithm of complex numbers",
        expect_exit=3,
        expect_line="torch.log(spectrum + 1e-3)",
    ),
    "custom_autograd": Sample(
        name="custom_autograd",
        module=f"{_HERE}.awkward.custom_autograd",
        title="Awkward: an autograd function computed by numpy",
        expect_exit=3,
        expect_line="np.interp(image.detach().numpy(), KNOTS, CURVE)",
    ),
    "baked_input": Sample(
        name="baked_input",
        module=f"{_HERE}.awkward.baked_input",
        title="Awkward: an input replaced by a constant while exporting",
        expect_exit=1,
        expect_line="return filtered * gain",
    ),
    "baked_batch": Sample(
        name="baked_batch",
        module=f"{_HERE}.awkward.baked_batch",
        title="Awkward: a batch size baked into a reshape",
        expect_exit=3,
        expect_line="features.reshape(self.batch, 8 * 4 * 4)",
    ),
    "dropout_on": Sample(
        name="dropout_on",
        module=f"{_HERE}.awkward.dropout_on",
        title="Awkward: dropout that eval() leaves on",
        expect_exit=1,
        expect_line="F.dropout(hidden, p=0.2, training=True)",
    ),
    "nan_negative": Sample(
        name="nan_negative",
        module=f"{_HERE}.awkward.nan_negative",
        title="Awkward: NaN for negative input",
        expect_exit=1,
        expect_line="torch.sqrt(image)",
    ),
    "running_mean": Sample(
        name="running_mean",
        module=f"{_HERE}.awkward.running_mean",
        title="Awkward: a mean carried from call to call",
        expect_exit=1,
        expect_line="self.level.lerp_(signal.mean(0), 0.1)",
    ),
}
