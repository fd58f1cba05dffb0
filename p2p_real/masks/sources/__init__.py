"""The mask sources, one file each; found by the registry."""
