"""Write the tiny model once more, in llama.cpp's own format. Usage: make_tiny_gguf.py MODEL_FOLDER FILE

Weights, vocabulary and chat template are those of `make_tiny_model.py`. llama.cpp's converter is no use here: it wants to
know each tokenizer by a hash, and this one was trained a minute ago.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gguf
from safetensors.numpy import load_file

# The name that llama.cpp has for each of Qwen2's tensors.
LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def name_of(tensor: str) -> str:
    """Return llama.cpp's name of a tensor of Qwen2."""
    stem, _, kind = tensor.rpartition(".")
    if stem in OUTSIDE:
        return f"{OUTSIDE[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{LAYER[part]}.{kind}"


def write_tokenizer(writer: gguf.GGUFWriter, folder: Path) -> None:
    """Write the byte-level BPE: tokens in the order of their ids, merges, what ends a text, the chat template."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    kinds = dict.fromkeys(vocabulary, gguf.TokenType.NORMAL)
    for added in tokenizer["added_tokens"]:
        vocabulary[added["content"]] = added["id"]
        kinds[added["content"]] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([kinds[token] for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(vocabulary["<|im_end|>"])
    writer.add_pad_token_id(vocabulary["<|endoftext|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template((folder / "chat_template.jinja").read_text())


def main(folder: Path, file: Path) -> None:
    """Read the model in `folder`, write it to `file`."""
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(file, "qwen2")
    writer.add_name("tiny")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    write_tokenizer(writer, folder)
    for tensor, values in load_file(folder / "model.safetensors").items():
        writer.add_tensor(name_of(tensor), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
