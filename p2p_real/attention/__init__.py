"""What the model looks at: word maps in time and by layer, self-attention, and pictures."""

from .gather import Attention, look

__all__ = ["Attention", "look"]
