"""Language models, the gradient pass and finetuning, on Lightning and transformers."""
