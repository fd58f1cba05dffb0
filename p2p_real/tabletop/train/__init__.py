"""Training of tabletop: one command that can be killed at any moment and goes on."""
