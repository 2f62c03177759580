"""Hints that come with a request."""

from __future__ import annotations


def take_hints(request, policy):
    """Hand the hints of a request to the policy."""
    for action in request.hints:
        policy.offer(action)
