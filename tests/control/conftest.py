from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def socket_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short enough for a unix socket whatever the test is called."""
    return tmp_path_factory.mktemp("c") / "moonxd.sock"
