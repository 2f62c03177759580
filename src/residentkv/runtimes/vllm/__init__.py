"""The plugin that keeps resident claims on an unmodified vLLM; the only package that imports vllm."""
