"""Fine-tuning a chat model with LoRA."""
