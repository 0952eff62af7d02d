"""The page of unbraid with limits for everybody: on a Hugging Face Space, or `python app.py`."""

from __future__ import annotations

import os

from unbraid.web.options import WebOptions
from unbraid.web.server import serve

#: A Space is reached from outside; on a machine of your own, only you reach the page.
IS_SPACE = "SPACE_ID" in os.environ

serve(
    WebOptions(
        host="0.0.0.0" if IS_SPACE else "127.0.0.1",
        port=7860 if IS_SPACE else None,
        max_size_mb=200,
        max_minutes=10,
        teach_minutes=2,
        downloads=False,
    )
)
