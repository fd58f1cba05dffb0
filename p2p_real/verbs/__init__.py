"""One verb, one file: its help text, its options, and what it does. Heavy imports stay inside."""
