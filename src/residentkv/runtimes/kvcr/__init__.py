"""KV Cache Runner (KVCR): an adapter that keeps claims in its pool, and a study of what it tells and what not.

`node` alone imports kvcr, and runs in the environment that has it; `study` is what the core starts it with.
"""
