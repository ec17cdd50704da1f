"""A checkout in which nothing was installed: the core built in place is enough to import the package from it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONVERTERS = "gguf_forge.converters"


def complete() -> None:
    """Has the folder of converters under the name that an installation gives it. Raises ImportError without a core."""
    import gguf_forge

    if importlib.util.find_spec(CONVERTERS) is not None:
        return
    folder = ROOT / "converters"
    spec = importlib.util.spec_from_file_location(
        CONVERTERS, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[CONVERTERS] = module
    spec.loader.exec_module(module)
    gguf_forge.converters = module
