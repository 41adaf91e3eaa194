"""A run or a blend -> one page that a person reads."""
