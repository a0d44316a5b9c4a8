"""Whether the Hugging Face hub answers at all: its client asks a silent one for file after file, minutes in all."""

from __future__ import annotations

import urllib.error
import urllib.request

PATIENCE_S = 10.0


def hub_silence(endpoint: str | None = None, patience_s: float = PATIENCE_S) -> str | None:
    """``ADDRESS does not answer ...`` where the hub takes a connection, or its packets, and says nothing.

    None where it answers, if only with an error, where it refuses at once, and where ``HF_HUB_OFFLINE`` keeps everybody
    from asking it.

    Args:
        endpoint: its address, that of the hub's client where unset (``HF_ENDPOINT``).
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return None
    address = endpoint or constants.ENDPOINT
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=patience_s):
            return None
    except urllib.error.HTTPError:
        return None
    except (urllib.error.URLError, OSError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if not isinstance(reason, TimeoutError):
            return None
    except ValueError:
        # An address that is none: the client says so.
        return None
    return f"{address} does not answer within {patience_s:.0f} s (HF_ENDPOINT names another hub)"
