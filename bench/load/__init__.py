"""Load on a real server: the same requests to vLLM with claims and to stock vLLM, driven by Locust, judged afterwards.

`python -m bench.load` makes the plan, starts the servers, lets Locust drive them and judges what they left. Nothing
here imports vLLM or Locust: both run in environments of their own.
"""
