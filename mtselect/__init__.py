"""Select the sentence pairs worth finetuning a translation LLM on, and prove the choice in MLflow."""

__version__ = "0.1.0"
