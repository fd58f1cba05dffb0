"""``python -m p2p_real`` is the command ``p2p-real``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
