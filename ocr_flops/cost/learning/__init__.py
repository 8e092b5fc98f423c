"""Programs learned from traces: what repeats in them is folded, what grows in them is solved for, and the result is a file."""
