"""JSON as somebody wrote it: what cannot be read is one kind of error, however it is broken."""

from __future__ import annotations

import json
from typing import Any

from calm_bench.errors import CalmBenchError


def parse_json_text(text: str | bytes, **options: Any) -> Any:
    """As ``json.loads``.

    Raises:
        json.JSONDecodeError: ``text`` is no JSON, nested so deeply that Python does not follow, or holds a number of
            more digits than it reads.
        UnicodeDecodeError: bytes that are no text.
    """
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise json.JSONDecodeError("lists or objects in each other without end", "", 0) from None
    except (json.JSONDecodeError, UnicodeDecodeError, CalmBenchError):
        raise
    except ValueError as error:
        raise json.JSONDecodeError(str(error), "", 0) from None
