"""Captions by salesforce-lavis, which runs as a process of its own.

Paper: LAVIS: A Library for Language-Vision Intelligence, arXiv 2209.09019.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from PIL import Image

from captioning.captioner import CaptionerError, check_question
from captioning.checkpoints import VOCABULARY, cached_file
from captioning.cleaning import tidy
from captioning.lavis_environment import (
    MAKE,
    WORKER,
    clean_environ,
    environment_folder,
    find_environment,
)

SIZES = {"blip_coco_caption_base": "base", "model_large_caption": "large"}  # LAVIS's own files
OWN = "model"  # a model of one's own, described by CONFIG
CONFIG = "lavis.yaml"
_ADDRESS = (
    "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP/"
    "blip_coco_caption_base.pth"
)
_SUFFIXES = (".safetensors", ".pth")


class LavisCaptioner:
    """BLIP through LAVIS's own class, in a worker that lives as long as this object.

    Args:
        checkpoint: The folder of its two files: the weights (`blip_coco_caption_base` or
            `model_large_caption`, .pth or .safetensors; or `model` beside a `lavis.yaml` in the
            form of LAVIS's model configs) and the tokenizer's `bert-base-uncased/vocab.txt`. None
            looks where LAVIS would: in torch's folder of checkpoints and in the hub's cache.
        device: A torch device; None takes CUDA, else the CPU.
        timeout: Seconds within which a picture must be answered.
        start_timeout: Seconds within which the model must be loaded.
        python: The interpreter that has LAVIS; None takes that of `p2p-real doctor
            --make-lavis-env`.

    Raises:
        CaptionerError: The environment or a file is missing, or the worker cannot load them.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike[str] | None = None,
        device: str | None = None,
        *,
        timeout: float = 300.0,
        start_timeout: float = 600.0,
        python: str | os.PathLike[str] | None = None,
        worker: str | os.PathLike[str] = WORKER,
    ) -> None:
        """Starts the worker and waits until it has loaded the weights."""
        if min(timeout, start_timeout) <= 0:
            raise CaptionerError(f"time-outs ({timeout}, {start_timeout}) must be above 0 seconds")
        command = [os.fspath(python) if python is not None else _python()]
        command += ["-I", os.fspath(worker)]
        files = find_files(Path(checkpoint).expanduser() if checkpoint is not None else None)
        self.name = f"lavis ({files.weights.name})"
        self._command, self._timeouts = command, (start_timeout, timeout)
        self._settings = {
            "weights": str(files.weights),
            "vocabulary": str(files.vocabulary),
            "config": None if files.config is None else str(files.config),
            "size": files.size,
            "device": device,
        }
        self._worker = self._start()

    def caption(
        self,
        images: Sequence[Image.Image],
        prefix: str = "",
        *,
        num_beams: int = 3,
        sample: bool = False,
        seed: int = 0,
        max_new_tokens: int = 30,
    ) -> list[str]:
        """One tidy caption a picture; see `Captioner.caption`.

        Raises:
            CaptionerError: A number below 1, a prefix that fills the whole text, or a worker that
                dies or does not answer in time; the next call starts another one.
        """
        check_question(images, num_beams, max_new_tokens)
        prefix = " ".join(prefix.split())
        how = {"prefix": prefix, "num_beams": num_beams, "sample": sample, "seed": seed}
        captions = []
        for n, image in enumerate(images):
            if not self._worker.alive:
                self._worker = self._start()
            asked = {"id": n, "png": _png(image), "max_new_tokens": max_new_tokens, **how}
            answer = self._worker.ask(asked, self._timeouts[1])
            if "error" in answer:
                raise CaptionerError(f"LAVIS could not caption picture {n + 1}: {answer['error']}")
            if answer.get("id") != n or not isinstance(answer.get("caption"), str):
                self.close()
                raise CaptionerError(f"the LAVIS worker answered something else: {answer}")
            captions.append(tidy(f"{prefix} {answer['caption']}"))
        return captions

    def close(self) -> None:
        """Ends the worker; it ends by itself with this object or the program."""
        self._worker.close()

    def _start(self) -> _Worker:
        worker = _Worker(self._command)
        answer = worker.ask(self._settings, self._timeouts[0])
        if answer.get("ready") is not True:
            worker.close()
            why = str(answer.get("error", answer))
            again = f"; run `{MAKE}` again" if "ModuleNotFoundError" in why else ""
            raise CaptionerError(f"LAVIS cannot load the captioner: {why}{again}")
        return worker


@dataclass(frozen=True)
class Files:
    """What LAVIS reads; `size` is "base" or "large" where there is no `config`."""

    weights: Path
    vocabulary: Path
    config: Path | None
    size: str | None


def find_files(folder: Path | None) -> Files:
    """The weights and the vocabulary, looked for before a worker is started.

    Args:
        folder: One that holds both; None for the places where LAVIS looks.

    Raises:
        CaptionerError: Names the file that is missing and where it was looked for.
    """
    if folder is not None and not folder.is_dir():
        raise CaptionerError(
            f"there is no captioner folder {folder}; lavis takes a local folder of its weights"
        )
    place = _checkpoints() if folder is None else folder
    stems = (*([OWN] if folder is not None else []), *SIZES)
    found = (place / f"{stem}{suffix}" for stem in stems for suffix in _SUFFIXES)
    weights = next((file for file in found if file.is_file()), None)
    if weights is None:
        raise CaptionerError(
            f"LAVIS's weights are missing: neither {' nor '.join(stems)} (.safetensors or .pth) "
            f"lies in {place}; LAVIS's own is {_ADDRESS}"
        )
    config = place / CONFIG if weights.stem == OWN else None
    if config is not None and not config.is_file():
        raise CaptionerError(f"{weights} is not one of LAVIS's own: describe it in {config}")
    vocabulary = place / VOCABULARY / "vocab.txt"
    if not vocabulary.is_file():
        for repository in (VOCABULARY, f"google-bert/{VOCABULARY}"):
            vocabulary = cached_file(repository, "vocab.txt") or vocabulary
    if not vocabulary.is_file():
        raise CaptionerError(
            f"LAVIS's vocabulary is missing: {VOCABULARY}/vocab.txt lies neither in {place} nor in "
            f"the hub's cache; copy it there from the hub's {VOCABULARY}"
        )
    return Files(weights, vocabulary.parent, config, SIZES.get(weights.stem))


def _checkpoints() -> Path:
    """Torch's folder of downloaded checkpoints, where LAVIS keeps its own."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or os.path.join(cache, "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def _python() -> str:
    """The interpreter of the environment that doctor made."""
    found = find_environment()
    if found is None:
        raise CaptionerError(
            f"there is no LAVIS environment in {environment_folder()}: run `{MAKE}` once"
        )
    return str(found.python)


def _png(image: Image.Image) -> str:
    """A picture without loss, as text."""
    held = io.BytesIO()
    image.convert("RGB").save(held, "PNG", compress_level=1)
    return base64.b64encode(held.getvalue()).decode("ascii")


class _Worker:
    """A process that answers each line on its stdin by one on its stdout."""

    def __init__(self, command: Sequence[str]) -> None:
        self._talk = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe nobody reads would fill up
        try:
            self._process = subprocess.Popen(
                command,
                env=clean_environ(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._talk,
                start_new_session=True,  # an interrupt is for us to tell it of
            )
        except OSError as error:
            self._talk.close()
            raise CaptionerError(
                f"the python of the LAVIS environment cannot be run: {command[0]} "
                f"({error.strerror or error}); run `{MAKE}` again"
            ) from None
        self._end = weakref.finalize(self, _end, self._process, self._talk)

    @property
    def alive(self) -> bool:
        return self._end.alive and self._process.poll() is None

    def ask(self, question: dict[str, Any], timeout: float) -> dict[str, Any]:
        """The answer to a line; after an error the process is gone.

        Raises:
            CaptionerError: It died, took too long, or said something that is no JSON.
        """
        process = self._process
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(timeout, stop)
        timer.daemon = True
        timer.start()
        line = b""
        try:
            with contextlib.suppress(BrokenPipeError):
                stdin.write(json.dumps(question).encode() + b"\n")
                stdin.flush()
            line = stdout.readline()
            if line:
                timer.cancel()
                answer = json.loads(line)
                if not isinstance(answer, dict):
                    raise ValueError
                return answer
        except ValueError:
            said = line[:80].decode("utf-8", "replace").strip()
            self.close()
            raise CaptionerError(
                f"the LAVIS worker said something that is no JSON: {said}"
            ) from None
        except BaseException:
            self.close()
            raise
        finally:
            timer.cancel()
        code, last = process.wait(), self._last_words()
        self.close()
        if late.is_set():
            raise CaptionerError(
                f"the LAVIS worker did not answer within {timeout:g} s and was ended; "
                "give LavisCaptioner a longer timeout, or take another captioner"
            )
        raise CaptionerError(f"the LAVIS worker died (code {code}): {last or 'without a word'}")

    def close(self) -> None:
        """Ends the process, if it has not ended."""
        self._end()

    def _last_words(self) -> str:
        self._talk.seek(0)
        lines = self._talk.read().decode("utf-8", "replace").splitlines()
        return next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "")[:300]


def _end(process: subprocess.Popen[bytes], talk: IO[bytes]) -> None:
    """Closes stdin, which ends a worker that listens; kills one that does not."""
    assert process.stdout is not None
    with contextlib.suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
    talk.close()
