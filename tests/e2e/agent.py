"""Runs in the caller's pod: takes requests as JSON lines on standard input, answers each on standard output.

Standard library only. Requests come by standard input and not as arguments, because arguments of `kubectl exec` stand
in the API server's audit log. With `until`, a request is repeated until that status comes, timed where it happens: no
kubectl is part of what is measured. With `lasting`, it is repeated for so many seconds, and the answers are counted. By
https only certificates of `authority` are believed.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import time
from typing import Any
from urllib.parse import urlsplit


def ask(question: dict[str, Any]) -> dict[str, Any]:
    """One request; an answer has `status`, `headers` (pairs, names in lower case) and `body`, or `error`."""
    url, timeout = urlsplit(question["url"]), question.get("timeout", 10)
    host = url.hostname or ""
    if url.scheme == "https":
        context = ssl.create_default_context(cadata=question["authority"])
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, url.port or 443, timeout=timeout, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, url.port or 80, timeout=timeout)
    certificate = b""
    try:
        connection.connect()
        if isinstance(connection.sock, ssl.SSLSocket):
            certificate = connection.sock.getpeercert(binary_form=True) or b""
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        connection.putrequest(question["method"], path, skip_accept_encoding=True)
        for name, value in question["headers"]:
            connection.putheader(name, value)
        body = question.get("body", "").encode()
        if body or question["method"] in ("POST", "PUT"):
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
        headers = [[name.lower(), value] for name, value in response.getheaders()]
        return {"status": response.status, "headers": headers, "body": text, "certificate": certificate.hex()}
    except (OSError, http.client.HTTPException) as error:
        return {"status": None, "headers": [], "body": "", "error": f"{type(error).__name__}: {error}"}
    finally:
        connection.close()


def ask_until(question: dict[str, Any]) -> dict[str, Any]:
    """Repeat until the wanted status, or until the time is over; `seconds` since the first request began."""
    began = time.monotonic()
    while True:
        asked = time.monotonic()
        answer = ask(question)
        answer["seconds"] = asked - began
        if answer["status"] == question["until"] or time.monotonic() - began > question["patience"]:
            return answer
        time.sleep(0.1)


def ask_lasting(question: dict[str, Any]) -> dict[str, Any]:
    """Repeat for the time given; `body` is JSON: how often each status, or each fault of the connection, came."""
    began, counts = time.monotonic(), dict[str, int]()
    while time.monotonic() - began < question["lasting"]:
        answer = ask(question)
        outcome = answer.get("error") or str(answer["status"])
        counts[outcome] = counts.get(outcome, 0) + 1
        time.sleep(0.02)
    return {"status": None, "headers": [], "body": json.dumps(counts), "seconds": time.monotonic() - began}


def answer_to(question: dict[str, Any]) -> dict[str, Any]:
    """By whichever way it is to be asked."""
    if "lasting" in question:
        return ask_lasting(question)
    return ask_until(question) if "until" in question else ask(question)


for line in sys.stdin:
    print(json.dumps(answer_to(json.loads(line))), flush=True)
