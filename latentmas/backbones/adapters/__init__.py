"""LoRA adapters over loaded models."""
