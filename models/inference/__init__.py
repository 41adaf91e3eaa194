"""Weights -> probabilities -> submission."""
