"""Hints that come with a request."""

from __future__ import annotations


def take_hints(request, policy):
    """Hand the hints of a request to the policy."""
    return [policy.decide(action) for action in request.hints]
