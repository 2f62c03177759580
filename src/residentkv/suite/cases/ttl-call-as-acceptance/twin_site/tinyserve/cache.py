"""A cache with a time to live."""

from __future__ import annotations


class Cache:
    """Entries go when their time is over, or earlier when there is no room."""

    def put(self, key, blocks, ttl_s):
        """Keep blocks for a while."""
        if not self.has_room(blocks):
            return Rejected("no room")
        self.entries[key] = (blocks, self.now_s() + ttl_s)
        return Accepted(until_s=self.now_s() + ttl_s)
