"""The overhead table, from made-up times; the engines themselves run in `make bench-vllm`."""

from __future__ import annotations

from bench.overhead import ENGINES, GOALS, MODELS, rows_of


def test_ratios_are_taken_within_a_turn() -> None:
    """A turn in which the whole machine is slow changes no ratio; the median is over turns."""
    walls = {
        ENGINES[0]: (100, 1000, 100),
        ENGINES[1]: (100, 1000, 100),
        ENGINES[2]: (100, 1000, 200),
        ENGINES[3]: (125, 1250, 125),
    }
    results = {name: [{"wall_ns": w, "cpu_ns": 2 * w, "tokens": []} for w in of] for name, of in walls.items()}
    rows = rows_of([results], tokens=1)
    assert [row[2] for row in rows] == ["1.000", "1.000", "1.000", "0.800"]
    assert [row[3] for row in rows] == ["1.000 to 1.000", "1.000 to 1.000", "1.000 to 1.000", "0.800 to 0.800"]
    assert [row[4] for row in rows] == ["1.000", "1.000", "1.000", "1.250"]
    assert [row[5] for row in rows] == ["-", "-", "0.99, reached", "0.97, not reached"]


def test_a_process_that_is_slow_for_its_lifetime_decides_one_round() -> None:
    """The median is over the turns of all rounds, and the range says how far apart whole rounds were."""

    def round_of(plugin_ns: int) -> dict[str, list[dict[str, object]]]:
        return {
            name: [{"wall_ns": plugin_ns if name == ENGINES[2] else 100, "cpu_ns": 100, "tokens": []}] * 3
            for name in ENGINES
        }

    row = rows_of([round_of(100), round_of(200), round_of(100)], tokens=1)[2]
    assert row[2:4] == ("1.000", "0.500 to 1.000")


def test_goals_and_models_are_of_what_is_measured() -> None:
    """A goal of an engine that is not measured would never be looked at."""
    assert GOALS.keys() <= set(ENGINES)
    assert {"smollm2", "tiny"} == MODELS.keys()
