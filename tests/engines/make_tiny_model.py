"""Write a tiny random Qwen2 model with a freshly trained tokenizer to a folder: a real engine runs with no download.

The weights and the tokenizer come from a fixed seed and the standard library's own text: the same interpreter gives the
same model. Its answers are noise, which is all that counting tokens and comparing bytes needs.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

VOCABULARY = 8192  # enough merges that prose takes about three characters a token, as with real models
CONTEXT_TOKENS = 4096  # room for a prefill long enough to hang up in the middle of
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MARKERS = ["<think>", "</think>", "<tool_call>", "</tool_call>"]  # what vLLM's reasoning and tool parsers look for
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE over the standard library's sources, in sorted order so that the merges are reproducible."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    sources = sorted(str(path) for folder in (stdlib, stdlib / "pydoc_data") for path in folder.glob("*.py"))
    tokenizer.train(
        sources,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=SPECIAL_TOKENS,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    wrapped.add_tokens([AddedToken(marker, special=False) for marker in MARKERS])
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def main(folder: str) -> None:
    """Train, initialise and save into `folder`; print the number of parameters."""
    tokenizer = train_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT_TOKENS,
            tie_word_embeddings=False,  # tied random embeddings repeat one token for ever
            initializer_range=0.2,  # the default leaves attention too weak to tell prompts apart
        )
    )
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    print(f"{folder}: {sum(p.numel() for p in model.parameters()):,} parameters")


if __name__ == "__main__":
    main(sys.argv[1])
