"""A refusal on its way to the client. The middleware turns it into the answer."""

from __future__ import annotations

from django.http import HttpResponse, JsonResponse


class Refused(Exception):
    """The request is refused with an OAuth error document (RFC 6749 section 5.2, RFC 7591 section 3.2.2)."""

    def __init__(self, status: int, error: str, description: str, challenge: str | None = None) -> None:
        self.status, self.error, self.description, self.challenge = status, error, description, challenge
        super().__init__(f"{status} {error}: {description}")

    def response(self) -> HttpResponse:
        """The answer, with its challenge where there is one."""
        answer = JsonResponse({"error": self.error, "error_description": self.description}, status=self.status)
        if self.challenge is not None:
            answer["WWW-Authenticate"] = self.challenge
        return answer


def invalid_metadata(description: str) -> Refused:
    """RFC 7591 section 3.2.2."""
    return Refused(400, "invalid_client_metadata", description)
