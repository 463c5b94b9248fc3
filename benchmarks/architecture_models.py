"""Public architectures with random weights, small where their libraries let them be small.

Each function is a source, ``benchmarks/architecture_models.py:bert``, with what a user would
declare of its inputs above it. Needs torchvision, timm and transformers.
"""
# ruff: noqa: D101, D102, D103 (their names are those of the architectures)

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

TOKENS = "input_ids:int64[N=1..4,T=1..24]"
MASK = "attention_mask:int64[N,T]"
VOCABULARY = "input_ids=0..199"
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
PIXELS = "pixel_values:float32[N=1..3,3,{0},{0}]"

INPUTS: dict[str, tuple[str, ...]] = {}
VALUES: dict[str, tuple[str, ...]] = {}
OPTIONS: dict[str, tuple[str, ...]] = {}


def architecture(*inputs: str, values: tuple[str, ...] = (), options: tuple[str, ...] = ()) -> Any:
    """What is said of a model's inputs."""

    def said(build: Any) -> Any:
        INPUTS[build.__name__] = inputs
        VALUES[build.__name__] = values
        OPTIONS[build.__name__] = options
        return build

    return said


def _hf(family: str, head: str, **settings: Any) -> nn.Module:
    import transformers

    config = getattr(transformers, f"{family}Config")(**settings)
    found: nn.Module = getattr(transformers, family + head)(config).eval()
    return found


def _cache(layers: int, heads: int, size: int) -> tuple[str, ...]:
    parts = ((layer, part) for layer in range(layers) for part in ("key", "value"))
    return tuple(
        f"past_key_values.{layer}.{part}:float32[N,{heads},P=0..16,{size}]" for layer, part in parts
    )


# --- text -----------------------------------------------------------------------------------------


@architecture(TOKENS, MASK, "token_type_ids:int64[N,T]", values=(VOCABULARY,))
def bert() -> nn.Module:
    return _hf("Bert", "Model", vocab_size=200, intermediate_size=64, **SMALL)


@architecture(TOKENS, MASK, values=(VOCABULARY,))
def distilbert() -> nn.Module:
    sizes = {"vocab_size": 200, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
    return _hf("DistilBert", "Model", **sizes)


@architecture(TOKENS, MASK, values=(VOCABULARY,))
def mobilebert() -> nn.Module:
    sizes = {"vocab_size": 200, "embedding_size": 16, "intra_bottleneck_size": 16}
    return _hf("MobileBert", "Model", intermediate_size=64, **sizes, **SMALL)


@architecture(TOKENS, MASK, "use_cache=false", values=(VOCABULARY,))
def gpt2() -> nn.Module:
    return _hf("GPT2", "LMHeadModel", vocab_size=200, n_embd=32, n_layer=2, n_head=4)


@architecture(TOKENS, "attention_mask:int64[N,P+T]", *_cache(2, 4, 8), values=(VOCABULARY,))
def gpt2_with_cache() -> nn.Module:
    return gpt2()


_LLAMA = {"vocab_size": 200, "intermediate_size": 64, "num_key_value_heads": 2, **SMALL}


@architecture(TOKENS, MASK, "use_cache=false", values=(VOCABULARY,))
def llama() -> nn.Module:
    return _hf("Llama", "ForCausalLM", **_LLAMA)


@architecture(TOKENS, "attention_mask:int64[N,P+T]", *_cache(2, 2, 8), values=(VOCABULARY,))
def llama_with_cache() -> nn.Module:
    return llama()


_T5 = {"vocab_size": 200, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}


@architecture(TOKENS, MASK, values=(VOCABULARY,))
def t5_encoder() -> nn.Module:
    return _hf("T5", "EncoderModel", **_T5)


class _Decoder(nn.Module):
    """A decoder with its cache, one token after the other."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, decoder_input_ids: Any, encoder_outputs: Any, past_key_values: Any) -> Any:
        given = self.model(
            decoder_input_ids=decoder_input_ids,
            encoder_outputs=(encoder_outputs,),
            past_key_values=self._cache(past_key_values),
            use_cache=True,
        )
        return given.logits, given.past_key_values

    def _cache(self, given: Any) -> Any:
        from transformers import DynamicCache, EncoderDecoderCache

        sides = []
        for side in ("decoder", "encoder"):
            cache = DynamicCache()
            for number, layer in enumerate(given[side]):
                cache.update(layer["key"], layer["value"], number)
            sides.append(cache)
        made = EncoderDecoderCache(*sides)
        made.is_updated = dict.fromkeys(range(len(given["encoder"])), True)
        return made


def _decoder_inputs(heads: int, size: int, width: int, seen: str) -> tuple[str, ...]:
    return (
        "decoder_input_ids:int64[N=1..3,1]",
        f"encoder_outputs:float32[N,{seen},{width}]",
        *(
            f"past_key_values.{side}.{layer}.{part}:float32[N,{heads},{length},{size}]"
            for side, length in (("decoder", "P=0..16"), ("encoder", seen.partition("=")[0]))
            for layer in range(2)
            for part in ("key", "value")
        ),
    )


@architecture(*_decoder_inputs(4, 8, 32, "S=2..20"), values=("decoder_input_ids=0..199",))
def t5_decoder_with_cache() -> nn.Module:
    return _Decoder(_hf("T5", "ForConditionalGeneration", **_T5))


# --- speech ---------------------------------------------------------------------------------------

_WHISPER = {
    "vocab_size": 200,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "num_mel_bins": 16,
    "max_source_positions": 50,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}


@architecture("input_features:float32[N=1..3,16,100]")
def whisper_encoder() -> nn.Module:
    model: Any = _hf("Whisper", "Model", **_WHISPER)
    encoder: nn.Module = model.get_encoder()
    return encoder


@architecture(*_decoder_inputs(4, 8, 32, "50"), values=("decoder_input_ids=0..199",))
def whisper_decoder_with_cache() -> nn.Module:
    return _Decoder(_hf("Whisper", "ForConditionalGeneration", **_WHISPER))


_WAVE = {
    "conv_dim": (16, 16, 16),
    "conv_stride": (5, 2, 2),
    "conv_kernel": (10, 3, 2),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "intermediate_size": 64,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 32,
    **SMALL,
}


@architecture("input_values:float32[N=1..2,L=800..3000]")
def wav2vec2() -> nn.Module:
    return _hf("Wav2Vec2", "ForCTC", **_WAVE)


@architecture("input_values:float32[N=1..2,L=800..3000]")
def wav2vec2_conformer() -> nn.Module:
    return _hf("Wav2Vec2Conformer", "ForCTC", conv_depthwise_kernel_size=7, **_WAVE)


class Spotter(nn.Module):
    """Keywords in a signal that is heard chunk by chunk."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(8, 16, 3)
        self.gru = nn.GRU(16, 16, batch_first=True)
        self.head = nn.Linear(16, 4)
        self.register_buffer("tail", torch.zeros(1, 8, 2))
        self.hidden = torch.zeros(1, 1, 16)

    def forward(self, chunk: torch.Tensor) -> torch.Tensor:
        signal = torch.cat([self.tail, chunk], 2)
        self.tail.copy_(signal[:, :, -2:])
        steps, self.hidden = self.gru(self.conv(signal).relu().mT, self.hidden)
        scores: torch.Tensor = self.head(steps[:, -1])
        return scores


@architecture("chunk:float32[1,8,T=1..50]", options=("--state",))
def streaming_keywords() -> nn.Module:
    return Spotter().eval()


class Tagger(nn.Module):
    """A tag for each word, by an LSTM over packed sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(200, 16)
        self.lstm = nn.LSTM(16, 16, batch_first=True, bidirectional=True)
        self.tags = nn.Linear(32, 5)

    def forward(self, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(
            self.words(words), lengths, batch_first=True, enforce_sorted=False
        )
        steps, _ = pad_packed_sequence(
            self.lstm(packed)[0], batch_first=True, total_length=words.shape[1]
        )
        tags: torch.Tensor = self.tags(steps)
        return tags


@architecture(
    "words:int64[N=1..4,T=2..20]",
    "lengths:int64[N]",
    values=("words=0..199", "lengths=lengths(T)"),
)
def lstm_tagger() -> nn.Module:
    return Tagger().eval()


# --- images ---------------------------------------------------------------------------------------

_CLIP_TEXT = {"vocab_size": 200, "intermediate_size": 64, "eos_token_id": 199, **SMALL}
_CLIP_VISION = {"image_size": 32, "patch_size": 8, "intermediate_size": 64, **SMALL}


@architecture(TOKENS, MASK, values=(VOCABULARY,))
def clip_text() -> nn.Module:
    return _hf("CLIPText", "Model", **_CLIP_TEXT)


@architecture(PIXELS.format(32))
def clip_vision() -> nn.Module:
    return _hf("CLIPVision", "Model", **_CLIP_VISION)


@architecture(
    TOKENS,
    "pixel_values:float32[M=1..3,3,32,32]",
    MASK,
    values=(VOCABULARY,),
)
def clip() -> nn.Module:
    settings = {"text_config": _CLIP_TEXT, "vision_config": _CLIP_VISION, "projection_dim": 16}
    return _hf("CLIP", "Model", **settings)


@architecture("pixel_values:float32[N=1..2,3,8*h=2..6,8*w=2..6]", "interpolate_pos_encoding=true")
def vit() -> nn.Module:
    return _hf("ViT", "Model", image_size=32, patch_size=8, intermediate_size=64, **SMALL)


@architecture("pixel_values:float32[N=1..2,3,32*h=1..4,32*w=1..4]")
def swin() -> nn.Module:
    sizes = {"image_size": 64, "embed_dim": 16, "depths": (1, 1), "num_heads": (2, 4)}
    return _hf("Swin", "Model", window_size=4, **sizes)


@architecture("pixel_values:float32[N=1..2,3,32*h=1..3,32*w=1..3]")
def segformer() -> nn.Module:
    sizes = {"hidden_sizes": (8, 16, 16, 32), "depths": (1, 1, 1, 1), "decoder_hidden_size": 16}
    return _hf("Segformer", "ForSemanticSegmentation", **sizes)


@architecture("pixel_values:float32[N=1..2,3,14*h=1..4,14*w=1..4]")
def depth_anything() -> nn.Module:
    import transformers

    layers = {**SMALL, "num_hidden_layers": 4, "mlp_ratio": 2, "reshape_hidden_states": False}
    stages = [f"stage{number}" for number in range(1, 5)]
    backbone = transformers.Dinov2Config(
        image_size=28, patch_size=14, out_features=stages, **layers
    )
    sizes = {"neck_hidden_sizes": [8, 8, 16, 16], "fusion_hidden_size": 8}
    return _hf(
        "DepthAnything",
        "ForDepthEstimation",
        backbone_config=backbone,
        reassemble_hidden_size=32,
        head_hidden_size=8,
        **sizes,
    )


@architecture("pixel_values:float32[N=1..2,3,32*s=1..3,32*s]")
def dpt() -> nn.Module:
    sizes = {"neck_hidden_sizes": [8, 8, 16, 16], "fusion_hidden_size": 8}
    layers = {**SMALL, "num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3]}
    return _hf(
        "DPT",
        "ForDepthEstimation",
        image_size=32,
        patch_size=8,
        is_hybrid=False,
        intermediate_size=64,
        **layers,
        **sizes,
    )


def _sam() -> Any:
    import transformers

    vision = {"image_size": 64, "patch_size": 8, "window_size": 4, "global_attn_indexes": [1]}
    sizes = {"mlp_dim": 64, "output_channels": 16, "num_pos_feats": 8, **SMALL}
    return _hf(
        "Sam",
        "Model",
        vision_config=transformers.SamVisionConfig(**vision, **sizes),
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 8},
        mask_decoder_config={
            "hidden_size": 16,
            "num_attention_heads": 2,
            "mlp_dim": 32,
            "iou_head_hidden_dim": 16,
        },
    )


@architecture(PIXELS.format(64))
def sam_encoder() -> nn.Module:
    encoder: nn.Module = _sam().vision_encoder
    return encoder


@architecture(
    "image_embeddings:float32[N=1..2,16,8,8]",
    "input_points:float32[N,1,P=1..3,2]",
    "input_labels:int64[N,1,P]",
    "multimask_output=true",
    values=("input_points=uniform(0,64)", "input_labels=0..1"),
)
def sam_decoder() -> nn.Module:
    model: nn.Module = _sam()
    return model


@architecture("pixel_values:float32[N=1..2,3,32*h=1..3,32*w=1..3]")
def detr() -> nn.Module:
    import transformers

    backbone = transformers.ResNetConfig(
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        embedding_size=8,
        out_features=["stage4"],
    )
    sizes = {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_queries": 5}
    layers = {"encoder_layers": 1, "decoder_layers": 1}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    return _hf(
        "Detr",
        "ForObjectDetection",
        backbone_config=backbone,
        **layers,
        **heads,
        **sizes,
    )


@architecture("pixel_values:float32[N=1..2,3,32,48]")
def yolos() -> nn.Module:
    sizes = {"image_size": [32, 48], "patch_size": 8, "num_detection_tokens": 5}
    return _hf("Yolos", "ForObjectDetection", intermediate_size=64, **sizes, **SMALL)


class Yolo(nn.Module):
    """Two scales, each cell with its classes and four distances as averages over bins."""

    def __init__(self, width: int = 16, classes: int = 4, bins: int = 8) -> None:
        super().__init__()
        self.classes, self.bins = classes, bins

        def conv(given: int, made: int, stride: int = 2) -> nn.Module:
            layer = nn.Conv2d(given, made, 3, stride, 1, bias=False)
            return nn.Sequential(layer, nn.BatchNorm2d(made), nn.SiLU())

        self.fine = nn.Sequential(conv(3, width), conv(width, width), conv(width, width))
        self.coarse = conv(width, width)
        self.mixed = conv(2 * width, width, 1)
        self.heads = nn.ModuleList(nn.Conv2d(width, classes + 4 * bins, 1) for _ in range(2))

    def forward(self, images: torch.Tensor) -> Any:
        fine = self.fine(images)
        coarse = self.coarse(fine)
        fine = self.mixed(torch.cat([fine, F.interpolate(coarse, fine.shape[2:])], 1))
        levels = zip(self.heads, (fine, coarse), (8, 16), strict=True)
        boxes, scores = zip(*(self.decoded(head(x), step) for head, x, step in levels), strict=True)
        return self.nms(torch.cat(boxes, 1), torch.cat(scores, 1))

    def decoded(self, cells: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows, columns = torch.meshgrid(*map(torch.arange, cells.shape[2:]), indexing="ij")
        centres = torch.stack([columns, rows], -1).flatten(0, 1) + 0.5
        scores, bins = cells.flatten(2).mT.split([self.classes, 4 * self.bins], 2)
        likely = bins.unflatten(2, (4, self.bins)).softmax(-1)
        near, far = (likely @ torch.arange(self.bins).float()).chunk(2, 2)
        return torch.cat([centres - near, centres + far], 2) * step, scores.sigmoid()

    def nms(self, boxes: torch.Tensor, scores: torch.Tensor) -> Any:
        from torchvision.ops import batched_nms

        best, classes = scores.max(2)
        pairs = zip(boxes, best, classes, strict=True)
        return [batched_nms(each, score, label, 0.5) for each, score, label in pairs]


@architecture(
    "images:float32[N=1..2,3,16*h=2..6,16*w=2..6]",
    values=("images=uniform(0,1)",),
    options=("--stop-before", "nms"),
)
def yolo() -> nn.Module:
    return Yolo().eval()


class OneImage(nn.Module):
    """torchvision's detectors take a list of images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> Any:
        return self.model([image])


@architecture(
    "image:float32[3,320,320]",
    values=("image=uniform(0,1)",),
    options=("--stop-before", "model.postprocess_detections"),
)
def ssdlite() -> nn.Module:
    import torchvision

    model = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=5
    )
    return OneImage(model.eval())


def _timm(name: str, **options: Any) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(name, pretrained=False, **options)
    return model.eval()


_IMAGE = "image:float32[N=1..2,3,32*h=2..4,32*w=2..4]"


@architecture(_IMAGE)
def convnext() -> nn.Module:
    return _timm("convnext_atto")


@architecture(_IMAGE)
def edgenext() -> nn.Module:
    return _timm("edgenext_xx_small")


@architecture(_IMAGE)
def mobilenet_v4() -> nn.Module:
    return _timm("mobilenetv4_conv_small")


@architecture("image:float32[N=1..2,3,64*h=1..3,64*w=1..3]")
def mobilevit() -> nn.Module:
    return _timm("mobilevit_xxs")


class Block(nn.Module):
    """Dense convolutions, scaled and added, as ESRGAN has them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d((n + 1) * width, width, 3, padding=1) for n in range(4)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        held = [x]
        for layer in self.layers:
            held.append(F.leaky_relu(layer(torch.cat(held, 1)), 0.2))
        return x + 0.2 * held[-1]


class Esrgan(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(Block(width), Block(width))
        self.up = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.first(image)
        features = features + self.body(features)
        features = F.leaky_relu(self.up(F.interpolate(features, scale_factor=2.0)), 0.2)
        features = F.leaky_relu(self.up(F.interpolate(features, scale_factor=2.0)), 0.2)
        upscaled: torch.Tensor = self.last(features)
        return upscaled


@architecture("image:float32[N=1..2,3,H=8..40,W=8..40]", values=("image=uniform(0,1)",))
def esrgan() -> nn.Module:
    return Esrgan().eval()


class Crnn(nn.Module):
    """Text in a line of an image: convolutions, then a recurrent layer along it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d((2, 1)),
        )
        self.lstm = nn.LSTM(32 * 8, 24, num_layers=2, bidirectional=True)
        self.head = nn.Linear(48, 37)

    def forward(self, line: torch.Tensor) -> torch.Tensor:
        columns = self.conv(line).flatten(1, 2).permute(2, 0, 1)
        characters: torch.Tensor = self.head(self.lstm(columns)[0]).log_softmax(-1)
        return characters


@architecture("line:float32[N=1..3,1,32,W=16..80]", values=("line=uniform(0,1)",))
def crnn() -> nn.Module:
    return Crnn().eval()


class UNet(nn.Module):
    """A U-Net; with ``time`` one for diffusion, which is told how much noise there is."""

    def __init__(self, channels: int = 3, width: int = 16, *, time: bool = False) -> None:
        super().__init__()
        self.width = width
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(4, 2 * width)
        self.attention = nn.MultiheadAttention(2 * width, 4, batch_first=True)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.last = nn.Conv2d(2 * width, channels, 3, padding=1)
        self.time = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU()) if time else None

    def forward(self, image: torch.Tensor, timestep: torch.Tensor | None = None) -> torch.Tensor:
        first = F.silu(self.first(image))
        features = self.norm(self.down(first))
        if self.time is not None and timestep is not None:
            rates = torch.exp(-torch.arange(self.width // 2, device=image.device) * 0.5)
            angles = timestep[:, None].float() * rates
            told = self.time(torch.cat([angles.sin(), angles.cos()], 1))
            features = features + told[:, :, None, None]
        flat = features.flatten(2).mT
        flat = flat + self.attention(flat, flat, flat, need_weights=False)[0]
        features = flat.mT.unflatten(2, features.shape[2:])
        result: torch.Tensor = self.last(torch.cat([self.up(F.silu(features)), first], 1))
        return result


_EVEN = "image:float32[N=1..2,3,2*h=4..12,2*w=4..12]"


@architecture(_EVEN, values=("image=uniform(0,1)",))
def unet() -> nn.Module:
    return UNet().eval()


@architecture(_EVEN, "timestep:int64[N]", values=("timestep=0..999",))
def diffusion_unet() -> nn.Module:
    return UNet(time=True).eval()
