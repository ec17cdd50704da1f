"""A plugin of pytest: what is tested runs as on macOS, as far as macos.py imitates it."""

import sys

assert sys.platform == "linux"

from tests.system.macos import imitate  # noqa: E402 - for mypy there is nothing here on other systems

REQUESTS = imitate()
