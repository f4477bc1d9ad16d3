"""A program of Llama-7B's shape, trained with LoRA: for predicting its memory; its weights are random.

python -m pytest_trainguard.memory benchmarks.memory.llama_lora:LlamaLora --gpu-budget 40GiB
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pytest_trainguard import Run, Trainer


@dataclass
class Settings:
    """Of the run: Llama-7B (Touvron et al. 2023), adapters of rank 16 on all projections of the attention."""

    batch_size: int = 1
    max_length: int = 2048
    layers: int = 32
    hidden_size: int = 4096
    intermediate_size: int = 11_008
    heads: int = 32
    vocab_size: int = 32_000
    rank: int = 16
    checkpointing: bool = False
    learning_rate: float = 2e-4


def build(chosen: Settings) -> Any:
    """The model in bf16 with its adapters, on the GPU."""
    import peft
    import torch
    import transformers

    config = transformers.LlamaConfig(
        hidden_size=chosen.hidden_size, num_hidden_layers=chosen.layers, num_attention_heads=chosen.heads,
        intermediate_size=chosen.intermediate_size, vocab_size=chosen.vocab_size,
        max_position_embeddings=chosen.max_length, use_cache=False,
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            model = transformers.LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    adapters = peft.LoraConfig(
        r=chosen.rank, lora_alpha=32, lora_dropout=0.05, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]
    )
    adapted = peft.get_peft_model(model, adapters).to("cuda").train()
    if chosen.checkpointing:
        adapted.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        adapted.enable_input_require_grads()
    return adapted


class LlamaLora(Trainer):
    """Optimizer steps over rows of random tokens, all of the greatest length, and the adapters saved."""

    config = Settings

    def train(self, run: Run) -> None:
        """Take the steps; save at the end."""
        import torch

        chosen = run.config
        model = build(chosen)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=chosen.learning_rate)
        for step in range(run.max_steps):
            ids = torch.randint(chosen.vocab_size, (chosen.batch_size, chosen.max_length)).to("cuda")
            with torch.autocast("cuda", dtype=torch.bfloat16):
                loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            print(f"step {step + 1}: loss {loss.item():.3f}")
        model.save_pretrained(run.output_dir)
