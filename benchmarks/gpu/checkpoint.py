"""A checkpoint folder of a known shape without anybody's weights: configuration, a tokenizer, and an empty file.

Every word is one token, so that lengths are exact. There is no end token, so that answers have their full length, and
no special one at all, so that every token shows as text, whichever the random weights prefer. The file of weights has
the right size and header, and holes where the numbers would be: whoever runs it makes random ones (vLLM's
``--load-format dummy``). ``filled`` has a block of random numbers again and again instead, for those who read the file:
a product of zeros takes less power, so a card computes it faster than one of weights.

``python -m benchmarks.gpu.checkpoint FOLDER [--shape llama-8b] [--filled]``
"""

from __future__ import annotations

import argparse
import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path

from pagoda.application.bench.prompts import WORDS

TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama's dimensions."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    context: int

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Names and dimensions of all weights."""
        kv = self.kv_heads * self.hidden // self.heads
        found: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocabulary, self.hidden),
            "model.norm.weight": (self.hidden,),
            "lm_head.weight": (self.vocabulary, self.hidden),
        }
        for layer in range(self.layers):
            name = f"model.layers.{layer}."
            found |= {
                name + "input_layernorm.weight": (self.hidden,),
                name + "post_attention_layernorm.weight": (self.hidden,),
                name + "self_attn.q_proj.weight": (self.hidden, self.hidden),
                name + "self_attn.k_proj.weight": (kv, self.hidden),
                name + "self_attn.v_proj.weight": (kv, self.hidden),
                name + "self_attn.o_proj.weight": (self.hidden, self.hidden),
                name + "mlp.gate_proj.weight": (self.intermediate, self.hidden),
                name + "mlp.up_proj.weight": (self.intermediate, self.hidden),
                name + "mlp.down_proj.weight": (self.hidden, self.intermediate),
            }
        return found


SHAPES = {
    "llama-8b": Shape(4096, 32, 32, 8, 14336, 128_256, 8192),
    "tiny": Shape(64, 2, 4, 2, 128, 1024, 2048),
}


def make_checkpoint(folder: Path, shape: Shape, *, filled: bool = False) -> Path:
    """Write the folder."""
    from transformers import LlamaConfig

    folder.mkdir(parents=True, exist_ok=True)
    config = LlamaConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocabulary,
        max_position_embeddings=shape.context,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    )
    config.save_pretrained(folder)
    _write_tokenizer(folder, shape)
    draft = folder / "weights.part"
    _write_holes(draft, shape.tensors())
    if filled:
        _fill(draft)
    draft.rename(folder / "model.safetensors")
    return folder


def _write_tokenizer(folder: Path, shape: Shape) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = [*WORDS, *(f"w{number}" for number in range(shape.vocabulary))][: shape.vocabulary]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token=WORDS[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": shape.context}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    (folder / "chat_template.jinja").write_text(TEMPLATE)


def _write_holes(path: Path, tensors: dict[str, tuple[int, ...]]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, dimensions in tensors.items():
        size = math.prod(dimensions) * 2
        header[name] = {"dtype": "BF16", "shape": list(dimensions), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)


def _fill(path: Path) -> None:
    """Random bfloat16, small as weights are, where the holes were."""
    import torch

    block = (torch.randn(2**25, generator=torch.Generator().manual_seed(0)) * 0.02).bfloat16().view(torch.uint8)
    bits = block.numpy().tobytes()
    with path.open("r+b") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
        file.seek(start)
        for at in range(start, size, len(bits)):
            file.write(bits[: size - at])


def main() -> None:
    """Write one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="llama-8b")
    parser.add_argument("--filled", action="store_true")
    args = parser.parse_args()
    make_checkpoint(args.folder, SHAPES[args.shape], filled=args.filled)


if __name__ == "__main__":
    main()
