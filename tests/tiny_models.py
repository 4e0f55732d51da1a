"""Tiny random checkpoints of several families with tokenizers of our own, and adapters of them, for tests.

Two kinds: ``make_model`` has clear favourites, which is what answers are compared by; ``trainable_model`` likes nothing
yet, and is what training begins with. Both are quick, and good at nothing."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEMPLATE = (
    "{% for message in messages %}<|open|>{{ message['role'] }}\n{{ message['content'] }}<|shut|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|open|>assistant\n{% endif %}"
)

_WORDS = "the quick brown fox answers 42 questions about a red lamp, and then one more. 你好，世界。今天天气很好。 "


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """torch on one thread: on two that others use as well, a tiny model crawls."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_tokenizer(*, template: bool = True, vocabulary: int = 320) -> Any:
    """A byte-level BPE tokenizer; ids 1 and 2 open and shut a turn, by names that llama.cpp does not know."""
    from tokenizers import models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|nil|>", "<|open|>", "<|shut|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([_WORDS] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<|open|>", eos_token="<|shut|>", unk_token="<|nil|>"
    )
    tokenizer.chat_template = TEMPLATE if template else None
    return tokenizer


def byte_tokenizer(*, template: str | None = CHATML, pad: bool = False) -> Any:
    """One token a byte; ``<|im_end|>`` ends texts; without ``pad`` there is no padding token."""
    from tokenizers import models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<|im_start|>", "<|im_end|>", *(["<pad>"] if pad else [])]
    marks = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *special]
    raw = _byte_level(models.BPE(vocab={mark: place for place, mark in enumerate(marks)}, merges=[]))
    raw.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=special[1], pad_token="<pad>" if pad else None)
    tokenizer.chat_template = template
    return tokenizer


def _byte_level(model: Any) -> Any:
    from tokenizers import Tokenizer, decoders, pre_tokenizers

    raw = Tokenizer(model)
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return raw


def sentencepiece_tokenizer(space: str, *, template: str | None = None) -> Any:
    """A BPE with byte fallback as SentencePiece makes it: pieces of our words, each of any two pieces that give it.

    ``space``: ``prepend`` (a normaliser puts one before each text), ``never``, ``split`` (never, with a splitting at
    spaces that there are no more, as Gemma has), or a scheme of ``Metaspace``.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>"]
    words = ["▁" + word for word in _WORDS.split()] + ["▁▁", "▁▁▁▁"]
    made = list(dict.fromkeys(word[:end] for word in words for end in range(2, len(word) + 1)))
    letters = sorted({letter for piece in made for letter in piece})
    every = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *made, *letters]
    vocabulary = {piece: id for id, piece in enumerate(every)}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in made
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    spaces = normalizers.Replace(" ", "▁")
    if space == "split":
        raw.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    if space in ("prepend", "never", "split"):
        raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces] if space == "prepend" else [spaces])
    else:
        raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=space, split=False)
    shown = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    raw.decoder = decoders.Sequence(shown if space in ("never", "split") else [*shown, decoders.Strip(" ", 1, 0)])
    raw.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = template
    return tokenizer


def make_model(family: str, *, tied: bool = True, rows: int = 328, seed: int = 0, **options: Any) -> Any:
    """A random causal model of two layers whose logits are far enough apart to have clear favourites."""
    import torch

    options |= {"vocab_size": rows, "tie_word_embeddings": tied, "initializer_range": 0.3}
    model = random_model(family, 64, seed, bos_token_id=1, eos_token_id=2, **options).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
            if family.startswith("gemma") and name.endswith("norm.weight"):  # they begin as nothing above one
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        pieces = [make_tokenizer().decode([token]) for token in range(rows)]
        broken = [token for token, piece in enumerate(pieces) if token not in (0, 1, 2) and not piece.isprintable()]
        broken += [token for token, piece in enumerate(pieces) if "\ufffd" in piece or not piece]
        for matrix in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
            matrix[broken] *= 0.01  # engines show no parts of characters: the model shall not like them
    return model


def trainable_model(family: str, tokenizer: Any, *, seed: int = 0, attention: str = "sdpa", tied: bool = True) -> Any:
    """A random causal model of two layers with the initial weights of its family."""
    end = tokenizer.eos_token_id
    ends = {"bos_token_id": None if family == "llama" else end, "eos_token_id": end}
    options = {"tie_word_embeddings": tied, "attn_implementation": attention}
    return random_model(family, 32, seed, vocab_size=len(tokenizer), **ends, **options).train()


def random_model(family: str, width: int, seed: int, **options: Any) -> Any:
    """Two layers of four heads, which share keys and values by two where the family can."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    sizes: dict[str, Any]
    if family == "gpt2":
        sizes = {"n_embd": width, "n_layer": 2, "n_head": 4, "n_positions": 8 * width}
        sizes |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    else:
        sizes = {
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 8 * width,
        }
        if family == "qwen3":
            sizes["head_dim"] = 32
        if family == "mistral":
            sizes["sliding_window"] = None
        if family in ("gemma2", "gemma3_text"):  # a window shorter than what is asked, and the last layer without one
            sizes |= {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8}
        if family == "gemma":
            sizes["head_dim"] = 16
        if family == "gemma2":  # caps that are felt
            sizes |= {"attn_logit_softcapping": 4.0, "final_logit_softcapping": 8.0}
        if family == "gemma3_text":
            far = {"rope_type": "linear", "rope_theta": 1000.0, "factor": 8.0}
            near = {"rope_type": "default", "rope_theta": 300.0}
            sizes |= {
                "num_hidden_layers": 6,
                "rope_parameters": {"full_attention": far, "sliding_attention": near},
            }
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**sizes, **options}))


def save_checkpoint(
    folder: Path,
    family: str = "llama",
    *,
    tied: bool = True,
    template: bool = True,
    seed: int = 0,
    dtype: str = "float32",
) -> Path:
    """A checkpoint folder."""
    import torch

    make_model(family, tied=tied, seed=seed).to(getattr(torch, dtype)).save_pretrained(folder)
    make_tokenizer(template=template).save_pretrained(folder)
    return folder


def save_trainable(folder: Path, *, family: str = "llama", template: str | None = CHATML) -> Path:
    """A checkpoint folder to train from."""
    tokenizer = byte_tokenizer(template=template)
    trainable_model(family, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_adapter(base: Path, folder: Path, targets: list[str], **options: Any) -> Path:
    """A LoRA adapter whose weights are random, so that it changes something."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(1)
    options.setdefault("fan_in_fan_out", model.config.model_type == "gpt2")
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM", **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`", UserWarning)  # that is what is tested
        adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2)
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    return folder
