"""TensorRT-LLM: its KV cache events as traces, and its retention priority as a policy, from its published interface.

Nothing here imports TensorRT-LLM, and nothing was run against it: it needs a GPU. What is tested is the published shape
of its events and calls, so no verdict leans on this code until somebody runs it and has the traces audited.
"""
