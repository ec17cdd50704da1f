"""`python -m gguf_forge`: the command line."""

import sys

from gguf_forge.cli import main

if __name__ == "__main__":
    sys.exit(main())
