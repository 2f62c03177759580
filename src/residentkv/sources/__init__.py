"""Where anchors are looked up on this machine: installed packages, archives, git checkouts, documents, traces."""
