"""Tiny random checkpoints for tests of training: a byte tokenizer, two layers, 32 wide. Quick, and good at nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|im_start|>", "<|im_end|>")


def byte_tokenizer(*, template: str | None = CHATML, pad: bool = False) -> PreTrainedTokenizerFast:
    """One token a byte; ``<|im_end|>`` ends texts; without ``pad`` there is no padding token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {mark: place for place, mark in enumerate([*alphabet, *SPECIAL, *(["<pad>"] if pad else [])])}
    inner = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([*SPECIAL, *(["<pad>"] if pad else [])])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<pad>" if pad else None
    )
    tokenizer.chat_template = template
    return tokenizer


def tiny_llama(tokenizer: PreTrainedTokenizerFast, *, seed: int = 0, attention: str = "sdpa", tied: bool = True) -> Any:
    """A Llama of two layers with grouped queries."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        attn_implementation=attention,
    )
    return LlamaForCausalLM(config)


def tiny_gpt2(tokenizer: PreTrainedTokenizerFast, *, seed: int = 0, attention: str = "sdpa") -> Any:
    """A GPT-2 of two layers, whose linear layers are Conv1D."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=256,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        attn_implementation=attention,
    )
    return GPT2LMHeadModel(config)


def save_tiny(folder: Path, *, family: str = "llama", pad: bool = False, template: str | None = CHATML) -> Path:
    """A checkpoint on disk."""
    tokenizer = byte_tokenizer(template=template, pad=pad)
    model = tiny_llama(tokenizer) if family == "llama" else tiny_gpt2(tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """A file of rows."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
