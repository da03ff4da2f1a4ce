"""Influence of one sentence pair on another, from per-example gradients. torch only."""
