"""residentkv: accepted claims about future KV-cache reuse, checked fail-closed and audited from real traces."""

__version__ = "0.1.0"
