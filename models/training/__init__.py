"""Slices -> the weights of a fold."""
