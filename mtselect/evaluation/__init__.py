"""From a finetuned model to hypotheses (`decode`) and from hypotheses to scores (`metrics`)."""
