"""The command ``p2p-real VERB``: parse, run, and say in one line what is wrong.

Exit codes: 0 done; 2 the user's input is wrong (one line on stderr, no traceback); 1 an internal
failure (its traceback is kept in a log file that the line names); 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from . import __version__

VERBS = (
    "demo",
    "caption",
    "invert",
    "edit",
    "auto",
    "compare",
    "direction",
    "generate",
    "attention",
    "tokens",
    "methods",
    "doctor",
    "bench",
)
_OURS = ("p2p_real", "edit", "inversion", "captioning")
_ABOUT = """Edit a real photo by changing the words that describe it.

  p2p-real demo                                        see it work, on an embedded model
  p2p-real edit cat.jpg --swap cat=dog --model sd1.5   edit your own photo
  p2p-real auto holiday/ --do "at night" --model sdxl  say what to do in plain words
  p2p-real VERB --help                                 learn a verb, with an example
"""


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs; imports nothing heavy."""
    parser = Parser(
        prog="p2p-real", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"p2p-real {__version__}")
    subs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    for verb in VERBS:
        module = importlib.import_module(f"p2p_real.verbs.{verb}")
        about = (module.__doc__ or "").partition("\n\n")[0]
        sub = subs.add_parser(
            verb,
            help=about.strip().rstrip("."),
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return parser


def is_users(error: BaseException) -> bool:
    """Whether an error is about what the user gave: raised on purpose by this program."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return True
    if type(error).__module__.split(".")[0] in _OURS:
        return isinstance(error, ValueError | LookupError) or type(error).__name__ in (
            "NothingActed",
            "NumericsError",
        )
    return isinstance(error, ValueError) and _raised_here(error)


def _raised_here(error: BaseException) -> bool:
    """Whether the raise statement stands in this program, not in a library."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return module.split(".")[0] in _OURS


def keep_traceback(argv: Sequence[str]) -> str:
    """Write the traceback now in flight to a log file; where it is."""
    try:
        handle, path = tempfile.mkstemp(prefix="p2p-real-", suffix=".log")
        with os.fdopen(handle, "w", errors="backslashreplace") as f:
            f.write("p2p-real " + " ".join(argv) + "\n" + traceback.format_exc())
    except OSError:
        return "no file: none could be written"
    return path


def one_line(error: BaseException) -> str:
    """An error's message without line breaks."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror or error}"
    text = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
    return " ".join(text.split()) or type(error).__name__


class _Notices(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        word = "warning" if record.levelno >= logging.WARNING else "note"
        return f"{word}: {' '.join(record.getMessage().split())}"


class Talk(logging.StreamHandler):  # type: ignore[type-arg]
    """Warnings at once, notes when the work starts: none stands before an error; each once."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(_Notices())
        self.held: list[logging.LogRecord] | None = []
        self.said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if self.held is not None and record.levelno < logging.WARNING:
            self.held.append(record)
        elif self.format(record) not in self.said:
            self.said.add(self.format(record))
            super().emit(record)

    def let_out(self) -> None:
        """Say what was held back, and hold nothing from here on."""
        held, self.held = self.held, None
        for record in held or ():
            self.emit(record)


def _listen(quiet: bool) -> Talk:
    talk = Talk()
    for name in _OURS:
        log = logging.getLogger(name)
        log.handlers = [talk]
        log.setLevel(logging.WARNING if quiet else logging.INFO)
        log.propagate = False
    for name in ("diffusers", "transformers", "huggingface_hub", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # the libraries' own bars and notices would drown ours
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    return talk


def given(verb: str, argv: Sequence[str]) -> dict[str, Any]:
    """Only the options that the command line of a verb really gives."""
    parser = argparse.ArgumentParser(add_help=False)
    importlib.import_module(f"p2p_real.verbs.{verb}").add_arguments(parser)
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    return vars(parser.parse_args(argv))


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(argv)
    args.given = given(args.verb, argv[1:])
    talk = _listen(args.quiet)
    args.begin = talk.let_out
    name = f"p2p-real {args.verb}"
    try:
        result: Any = args.run(args)
        talk.let_out()
        if args.json:
            from .files import plain

            # a name of bytes that are no UTF-8 is shown as well as it can be
            text = json.dumps(plain(result), ensure_ascii=False, allow_nan=False)
            print(text.encode("utf-8", "replace").decode("utf-8"))
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt:
        print(f"{name}: interrupted; nothing half-written is left", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if is_users(error):
            print(f"{name}: {one_line(error)}", file=sys.stderr)
            return 2
        path = keep_traceback(argv)
        print(
            f"{name}: internal failure ({type(error).__name__}: {one_line(error)}); "
            f"traceback in {path}",
            file=sys.stderr,
        )
        return 1
