"""A plugin of pytest: what is tested runs as on Windows, as far as windows.py imitates it."""

import sys

assert sys.platform == "linux"

from tests.system.windows import imitate  # noqa: E402 - for mypy there is nothing here on other systems

KERNEL = imitate()
