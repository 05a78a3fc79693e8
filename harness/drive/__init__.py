"""What commands have done step by step: one start of a probe, what a load would be, what repeats differ by."""
