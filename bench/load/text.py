"""The result of a load as Markdown."""

from __future__ import annotations

from typing import Any

from bench.report import table, taken_on

REUSE_HEAD = ("prefixes", "requests", "hit rate", "TTFT median ms", "TTFT p95 ms")


def _cell(value: object) -> str:
    return "-" if value is None else f"{value}"


def render(result: dict[str, Any]) -> str:
    """Return the tables."""
    about, claims, rates = result["about"], result["claims"], result["requests_per_s"]
    shape = result["shape"]
    ended = ", ".join(f"{n:,} {name}" for name, n in claims["ended"].items())
    rows = [
        (
            f"{engine}: {row['kind']}",
            *(_cell(row[k]) for k in ("requests", "hit_rate", "ttft_median_ms", "ttft_p95_ms")),
        )
        for engine, rows in result["reuse"].items()
        for row in rows
    ]
    return "\n".join(
        [
            f"## Load (`{about['command']}`)",
            "",
            taken_on(cores=about["cores"]),
            "",
            f"OpenAI server of vLLM {about['vllm']} with the plugin on loopback, {shape['clients']} clients of Locust "
            f"{about['locust']} for {about['duration_s']:.0f} s, {shape['owners']} owners, {shape['hard']} hard claims "
            f"({shape['hard_mode']}), {shape['soft']} soft ones ({shape['soft_mode']}), {shape['unclaimed']} unclaimed "
            f"prefixes, {shape['prefix_blocks']} blocks each, {shape['usable_blocks']} usable blocks, a tiny Llama of "
            f"random weights in float32. {about['requests']:,} requests with claims, {about['stock_requests']:,} of "
            "the same to stock vLLM afterwards.",
            "",
            f"Result: **{result['verdict']}**.",
            "",
            table(
                ("condition", "found"), [(f"{c['name']}: {c['truth']}", c["found"]) for c in result["conditions"]]
            ).replace("---:|", "---|"),
            "",
            f"Accepted: {', '.join(f'{n:,} {k}' for k, n in claims['accepted'].items())}; ended: {ended}; "
            f"{claims['restored']:,} restored from the second tier.",
            "",
            "Reuse, second request of a prefix on; `claims` is vLLM with the plugin, `stock` is its own LRU.",
            "",
            table(REUSE_HEAD, rows),
            "",
            f"Requests served a second: {_cell(rates['claims'])} with claims, {_cell(rates['stock'])} by stock vLLM. "
            "Each client asks again as soon as it is answered, and clients, server, engine and worker share "
            f"{about['cores']} cores: times to the first token are those of a machine with no core to spare, and "
            "follow from this rate. With a model whose step takes milliseconds the plugin's own work is a visible part "
            "of it (see Overhead).",
        ]
    )
