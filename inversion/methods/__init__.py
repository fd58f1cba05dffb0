"""One paper, one file. Files here register themselves when the registry first looks."""
