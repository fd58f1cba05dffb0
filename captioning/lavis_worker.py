"""LAVIS's BLIP captioner behind JSON lines, in an environment of its own.

Run by `captioning.lavis` with the python of that environment; imports nobody of the house. The
first line on stdin says what to load and is answered by `{"ready": true}` or an error; each line
after it holds a picture and is answered by a caption or an error. The end of stdin ends it. With
`--check` it only imports LAVIS and says which versions it found.

LAVIS 1.0.2 was written for transformers 4.25 and 4.26. What it misses in later ones is given back
here, for its caption model only; nothing is patched beyond this process.
"""

from __future__ import annotations

import base64
import functools
import importlib
import importlib.metadata
import importlib.util
import io
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

_KEPT: list[Any] = []  # operator libraries live as long as something holds them
_MOVED = (
    "apply_chunking_to_forward",
    "find_pruneable_heads_and_indices",
    "prune_linear_layer",
)


def import_lavis(vocabulary: str | None = None) -> Any:
    """LAVIS's class `BlipCaption`, imported without the rest of LAVIS.

    Args:
        vocabulary: The folder of the BERT tokenizer; needed before a model is built.
    """
    _import_torchvision()
    import transformers

    root = lavis_folder()
    # LAVIS's own __init__ files import all of its models, and with them what nobody needs here
    for name in ("lavis", "lavis.models", "lavis.processors"):
        package: Any = types.ModuleType(name)
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package
    number = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    if number >= (4, 27):
        from transformers import modeling_utils, pytorch_utils

        for name in _MOVED:
            if not hasattr(modeling_utils, name):
                setattr(modeling_utils, name, getattr(pytorch_utils, name, None))
    from lavis.common.registry import registry

    registry.register_path("library_root", str(root))
    from lavis.models.base_model import BaseModel
    from lavis.processors.base_processor import BaseProcessor

    sys.modules["lavis.models"].BaseModel = BaseModel  # type: ignore[attr-defined]
    sys.modules["lavis.processors"].BaseProcessor = BaseProcessor  # type: ignore[attr-defined]
    if number >= (4, 27):
        _modernise()
    from lavis.models.blip_models.blip import BlipBase
    from lavis.models.blip_models.blip_caption import BlipCaption

    BlipBase.init_tokenizer = classmethod(lambda cls: _tokenizer(vocabulary))
    return BlipCaption


@functools.cache  # it cannot be found any more once its place is taken
def lavis_folder() -> Path:
    """Where LAVIS is installed."""
    found = importlib.util.find_spec("lavis")
    if found is None or not found.submodule_search_locations:
        raise ImportError("salesforce-lavis is not installed here")
    return Path(next(iter(found.submodule_search_locations)))


def _import_torchvision() -> None:
    """Imports torchvision, also one built for CUDA beside a torch for the CPU.

    Its compiled operators are missing then, and it registers shapes for two of them on import.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        import torch

        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)
        importlib.import_module("torchvision")


def _modernise() -> None:
    """What LAVIS's text decoder expects of the transformers it was written for."""
    import torch
    import transformers
    from lavis.models import med

    base: Any = med.BertPreTrainedModel
    base.init_weights = lambda self: self.apply(self._init_weights)
    if not hasattr(base, "all_tied_weights_keys"):
        base.all_tied_weights_keys = {}
    if not hasattr(base, "get_head_mask"):
        base.get_head_mask = lambda self, mask, layers, *rest: [None] * layers
    if not hasattr(base, "invert_attention_mask"):
        base.invert_attention_mask = lambda self, mask: (
            (1.0 - mask[:, None, None, :].to(self.dtype)) * torch.finfo(self.dtype).min
        )

    class Decoder(med.XBertLMHeadDecoder, transformers.GenerationMixin):  # type: ignore[misc]
        """Generates without the cache, whose form has changed."""

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            # top_k was 50 by default, and LAVIS draws by it
            self.generation_config = transformers.GenerationConfig(use_cache=False, top_k=50)

        def generate(self, input_ids: Any, num_beams: int = 1, **given: Any) -> Any:
            # LAVIS repeats the picture for each beam; later versions do that themselves
            for name in ("encoder_hidden_states", "encoder_attention_mask"):
                given[name] = given[name][::num_beams]
            return super().generate(input_ids=input_ids, num_beams=num_beams, **given)

    med.XBertLMHeadDecoder = Decoder


def _tokenizer(vocabulary: str | None) -> Any:
    """LAVIS's tokenizer: BERT's with a start and an encoder token after its own words."""
    from transformers import BertTokenizer

    tokenizer = BertTokenizer.from_pretrained(vocabulary)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_tokens(["[ENC]"], special_tokens=True)
    tokenizer.enc_token_id = tokenizer.convert_tokens_to_ids("[ENC]")
    return tokenizer


class Captions:
    """A loaded model that answers questions.

    Args:
        settings: `vocabulary`, a folder; `weights`, a .pth or .safetensors file; `config`, a YAML
            file in LAVIS's form, or `size`, "base" or "large" of LAVIS's own; `device`.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        import torch

        build = import_lavis(settings["vocabulary"])
        from lavis.processors.blip_processors import BlipImageEvalProcessor
        from omegaconf import OmegaConf

        own = settings.get("config")
        path = (
            Path(own)
            if own
            else lavis_folder() / f"configs/models/blip_caption_{settings['size']}_coco.yaml"
        )
        config = OmegaConf.load(path).model
        beside = path.parent / config.med_config_path
        if own and beside.is_file():
            config.med_config_path = str(beside)
        self.model = build_model(build, config)
        words = len(self.model.tokenizer)
        room = self.model.text_decoder.config.vocab_size
        if words > room:
            raise ValueError(f"the vocabulary has {words} words, the model room for {room}")
        fill_model(self.model, settings["weights"])
        device = settings.get("device") or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(device).eval()
        self.prompt = self.model.prompt
        side = config.vit.img_size if "vit" in config else config.image_size
        self.pixels = BlipImageEvalProcessor(image_size=side)

    def answer(self, asked: dict[str, Any]) -> str:
        """The caption of one picture; it goes on after the prefix, which is not in it."""
        import torch
        from PIL import Image

        picture = Image.open(io.BytesIO(base64.b64decode(asked["png"]))).convert("RGB")
        model, tokens = self.model, self.model.tokenizer
        model.prompt = self.prompt
        if asked["prefix"]:  # as it will be decoded: LAVIS cuts it off by its length
            ids = tokens(asked["prefix"]).input_ids
            model.prompt = tokens.decode(ids, skip_special_tokens=True)
        used = len(tokens(model.prompt).input_ids) - 1
        longest = min(
            used + asked["max_new_tokens"], model.text_decoder.config.max_position_embeddings
        )
        if longest <= used:
            raise ValueError(f"the prefix is too long for this captioner: {asked['prefix'][:60]!r}")
        if asked["sample"]:
            torch.manual_seed(asked["seed"])
        with torch.no_grad():
            captions = model.generate(
                {"image": self.pixels(picture)[None].to(model.device)},
                use_nucleus_sampling=asked["sample"],
                num_beams=asked["num_beams"],
                max_length=longest,
                min_length=min(10, longest),
            )
        return str(captions[0]).strip()


def build_model(build: Any, config: Any) -> Any:
    """LAVIS's model of a config; one with `vit` gives the sizes of the vision encoder itself."""
    from lavis.models.med import XBertLMHeadDecoder
    from lavis.models.vit import VisionTransformerEncoder

    if "vit" in config:
        vision = VisionTransformerEncoder(**config.vit)
    else:
        vision = VisionTransformerEncoder.from_config(config)
    words = XBertLMHeadDecoder.from_config(config)
    length = config.get("max_txt_len", 40)
    return build(vision, words, prompt=config.get("prompt", ""), max_txt_len=length)


def fill_model(model: Any, weights: str) -> None:
    """Loads the weights; of a .pth only tensors and plain containers are taken."""
    import pickle

    import torch

    if weights.endswith(".safetensors"):
        from safetensors.torch import load_file

        tensors = load_file(weights)
    else:
        try:
            found = torch.load(weights, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            new = str(Path(weights).with_suffix(".safetensors"))
            raise ValueError(
                f"{weights} holds more than tensors and is not read; if you trust where it comes "
                'from, convert it once: python -c "import torch, safetensors.torch as s; m = '
                f"torch.load('{weights}', map_location='cpu', weights_only=False); "
                "s.save_file({k: v.clone().contiguous() for k, v in m['model'].items()}, "
                f"'{new}')\""
            ) from None
        tensors = found.get("model", found)
    missing = model.load_state_dict(tensors, strict=False).missing_keys
    lost = [key for key in missing if key.endswith("weight")]
    if lost:
        raise ValueError(f"{weights} lacks {len(lost)} tensors, among them {min(lost)}")


def versions() -> dict[str, str]:
    """Of what captions depend on."""
    names = ("salesforce-lavis", "torch", "torchvision", "transformers", "timm", "numpy")
    return {name: importlib.metadata.version(name) for name in names}


def serve() -> int:
    """Answers lines until stdin ends; the exit code."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # LAVIS and fairscale print: that goes to stderr

    def say(**answer: Any) -> None:
        out.write(json.dumps(answer) + "\n")
        out.flush()

    try:
        if sys.argv[1:] == ["--check"]:
            import_lavis()
            importlib.import_module("lavis.processors.blip_processors")

            say(ready=True, versions=versions())
            return 0
        first = sys.stdin.readline()
        if not first:
            return 0
        captions = Captions(json.loads(first))
    except Exception as error:
        say(error=f"{type(error).__name__}: {error}")
        return 1
    say(ready=True, versions=versions())
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            say(id=asked["id"], caption=captions.answer(asked))
        except Exception as error:  # one bad picture does not end the batch
            say(id=asked["id"], error=f"{type(error).__name__}: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(serve())
