"""How a model of transformers is called, by its own configuration."""

from __future__ import annotations

import inspect
from typing import Any

# Up to which length sequences vary, where the configuration allows that much.
_LENGTH = 64


class Described:
    """Inputs and values as a configuration of transformers has them."""

    def __init__(self, module: Any, config: Any) -> None:
        self._parameters = inspect.signature(module.forward).parameters
        self._main = str(getattr(module, "main_input_name", "input_ids"))
        self._module, self._config = module, config
        self._inputs: list[str] = []
        self._values: list[str] = []

    def texts(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """All of ``--input`` and ``--values``; none where the main input is of another kind."""
        named = "pixel_values", "input_features", "input_values", "input_ids"
        for name in named:
            if name in self._parameters and (name in {self._main, "input_ids"} or self._both(name)):
                getattr(self, f"_{name}")()
        if "decoder_input_ids" in self._parameters and self._inputs:
            self._tokens("decoder_input_ids", "D")
        if "use_cache" in self._parameters and not self._cached():
            self._inputs.append("use_cache=false")
        return tuple(self._inputs), tuple(self._values)

    def _both(self, name: str) -> bool:
        """Whether a model of text takes images as well."""
        return name == "pixel_values" and self._get("vision_config") is not None

    def _get(self, *names: str, default: Any = None) -> Any:
        """The first of these settings that is there, in the part for text or for images too."""
        vision = getattr(self._config, "vision_config", None)
        parts = [self._config, self._config.get_text_config(), vision]
        found = (getattr(part, name, None) for name in names for part in parts if part is not None)
        return next((value for value in found if value is not None), default)

    def _input_ids(self) -> None:
        images = any(text.startswith("pixel_values") for text in self._inputs)
        batch = "M" if images else "N"
        self._tokens("input_ids", "T", batch=batch)
        past = "P+" if self._cached() else ""
        if "attention_mask" in self._parameters:
            self._inputs.append(f"attention_mask:int64[{batch},{past}T]")
        if "token_type_ids" in self._parameters and (self._get("type_vocab_size") or 0) > 1:
            self._inputs.append(f"token_type_ids:int64[{batch},T]")
        if self._cached():
            heads = self._get("num_attention_heads")
            size = self._get("head_dim") or self._get("hidden_size") // heads
            own = self._get("num_key_value_heads") or heads
            for layer in range(self._get("num_hidden_layers")):
                for part in ("key", "value"):
                    place = f"past_key_values.{layer}.{part}"
                    self._inputs.append(f"{place}:float32[N,{own},P=0..{self._top()},{size}]")

    def _cached(self) -> bool:
        """Whether it is a decoder that makes text step by step."""
        name = type(self._module).__name__
        return name.endswith(("ForCausalLM", "LMHeadModel")) and "use_cache" in self._parameters

    def _tokens(self, name: str, symbol: str, *, batch: str = "N") -> None:
        declared = batch == "N" and any("N=1..8" in text for text in self._inputs)
        first = batch if declared else f"{batch}=1..8"
        self._inputs.append(f"{name}:int64[{first},{symbol}=1..{self._top()}]")
        self._values.append(f"{name}=0..{self._get('vocab_size') - 1}")

    def _top(self) -> int:
        """How long a text may be; what is in a cache is as long at most."""
        longest = self._get("max_position_embeddings", "max_target_positions", default=_LENGTH)
        return int(max(2, min(_LENGTH, longest // 2 if self._cached() else longest)))

    def _pixel_values(self) -> None:
        size = self._get("image_size", default=224)
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        channels = self._get("num_channels", default=3)
        self._inputs.append(f"pixel_values:float32[N=1..8,{channels},{height},{width}]")

    def _input_features(self) -> None:
        mels = self._get("num_mel_bins", default=80)
        frames = 2 * (self._get("max_source_positions") or 1500)
        self._inputs.append(f"input_features:float32[N=1..8,{mels},{frames}]")

    def _input_values(self) -> None:
        self._inputs.append("input_values:float32[N=1..4,L=1000..16000]")
