"""The step: what one event does to the state of its (source, epoch). Deterministic, without I/O, clock or globals."""
