"""Whether the W&B server can be used, asked in seconds and without its client."""

import base64
import http.client
import json
import socket
import ssl
import time
import urllib.error
import urllib.request

from harness.tracking.config import api_key, base_url, trusts_any_certificate

PROBE_SECONDS, PROBE_PAUSE_SECONDS = 10.0, 3.0


def probe() -> str | None:
    """Why the server cannot be used, in a few words, or None where it answers, at the second try at most."""
    problem = _probe_once()
    if problem and problem.startswith("HTTP"):
        time.sleep(PROBE_PAUSE_SECONDS)
        problem = _probe_once()
    return problem


def _probe_once() -> str | None:
    body = json.dumps({"operationName": "Viewer", "query": "query Viewer { viewer { id } }", "variables": {}})
    try:
        key = base64.b64encode(f"api:{api_key()}".encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {key}"}
        request = urllib.request.Request(base_url() + "/graphql", body.encode(), headers)
        context = ssl._create_unverified_context() if trusts_any_certificate() else None
        with urllib.request.urlopen(request, timeout=PROBE_SECONDS, context=context) as answer:
            return None if (json.load(answer).get("data") or {}).get("viewer") else "the API key was refused"
    except urllib.error.HTTPError as error:
        return "the API key was refused" if error.code in (401, 403) else f"HTTP {error.code}"
    except urllib.error.URLError as error:
        return _network_problem(error.reason)
    except (OSError, ValueError, http.client.HTTPException) as error:  # of what is no URL, or no server of the web
        return _network_problem(error)


def _network_problem(reason: object) -> str:
    if isinstance(reason, ConnectionRefusedError):
        return "connection refused"
    if isinstance(reason, TimeoutError):
        return f"no answer in {PROBE_SECONDS:g} s"
    if isinstance(reason, socket.gaierror):
        return f"host {base_url()} not found"
    return "connection lost" if isinstance(reason, ConnectionError) else " ".join(str(reason).split())
