"""Dynamo: an adapter that binds claims to workers and verifies where they were served, and a study of what is told.

`hashing` alone imports dynamo; frontend and workers are processes of their own, spoken to by HTTP and by their event
plane. `study` is what the core starts it with.
"""
