"""The path between a photo's latents and its noise."""

from .denoiser import ClassifierFree, Denoiser, Layout, TextCond
from .inverter import Inverter, Recording, inverters
from .registry import Registry, SettingError, UnknownMethod, setting
from .result import Inversion, InversionError
from .sampling import Cancelled, Intervention, NumericsError, Progress, Replay, ddim_invert, sample
from .schedule import Estimate, Level, Schedule, Step, both_ends, mix

__all__ = [
    "Cancelled",
    "ClassifierFree",
    "Denoiser",
    "Estimate",
    "Intervention",
    "Inversion",
    "InversionError",
    "Inverter",
    "Layout",
    "Level",
    "NumericsError",
    "Progress",
    "Recording",
    "Registry",
    "Replay",
    "Schedule",
    "SettingError",
    "Step",
    "TextCond",
    "UnknownMethod",
    "both_ends",
    "ddim_invert",
    "inverters",
    "mix",
    "sample",
    "setting",
]
