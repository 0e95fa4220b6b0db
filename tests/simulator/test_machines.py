import json
import statistics
from itertools import islice

import pytest

from contract.timestamps import parse_timestamp
from simulator.faults import FAULT_KINDS, Fault
from simulator.machines import INTERVAL_SECS, SIGNALS, UNITS, FaultPlan, Pump, Reading, machine_names

START = 1_795_000_000_000_000


def take(count: int, *, seed: int = 7, name: str = "pump-01", plan: FaultPlan | None = None) -> list[Reading]:
    return list(islice(Pump(seed, name, START, plan=plan).readings(), count))


def test_one_seed_is_exactly_one_run() -> None:
    assert take(500, plan=FaultPlan()) == take(500, plan=FaultPlan())


def test_the_same_machine_gives_its_readings_again() -> None:
    pump = Pump(7, "pump-01", START, plan=FaultPlan())
    first, faults = list(islice(pump.readings(), 400)), list(pump.faults)
    assert list(islice(pump.readings(), 400)) == first
    assert pump.faults == faults != []


def test_the_first_readings_are_known_forever() -> None:
    (first,) = take(1)
    assert first.text == FIRST_READING


FIRST_READING = (
    '{"ts":"2026-11-18T11:06:40Z","machine":"pump-01","temperature":59.70,"pressure":4.212,"vibration":2.95046,'
    '"flow":31.1760,"current":23.42,"operator":"m.silva","serial_number":"SN-75025260"}'
)


@pytest.mark.parametrize(("seed", "name"), [(8, "pump-01"), (7, "pump-02")])
def test_another_seed_or_machine_is_another_run(seed: int, name: str) -> None:
    assert take(50)[-1].values != take(50, seed=seed, name=name)[-1].values


def test_signals_stay_where_such_a_pump_has_them() -> None:
    rows = take(5000)
    ranges = {
        "temperature": (45, 70),
        "pressure": (1.5, 6.5),
        "vibration": (1.5, 4.0),
        "flow": (8, 44),
        "current": (11, 31),
    }
    assert set(ranges) == set(UNITS)
    for name, (low, high) in ranges.items():
        assert low <= min(row.values[name] for row in rows) <= max(row.values[name] for row in rows) <= high


def test_spans_are_the_width_of_the_ordinary_range() -> None:
    rows = take(5000)
    for signal in SIGNALS:
        values = sorted(row.values[signal.name] for row in rows)
        assert values[-50] - values[50] == pytest.approx(signal.span, rel=0.35)


def test_load_moves_within_a_minute_and_every_signal_follows_it() -> None:
    rows = take(round(60 / INTERVAL_SECS))
    for name in ("pressure", "vibration", "current"):
        assert statistics.correlation([r.values["flow"] for r in rows], [r.values[name] for r in rows]) > 0.95
    flow = [row.values["flow"] for row in rows]
    assert max(flow) > 1.5 * min(flow)


def test_a_reading_is_json_with_units_times_and_fields_that_must_stay() -> None:
    rows = take(3)
    reading = json.loads(rows[1].text)
    assert set(reading) == {"ts", "machine", "operator", "serial_number", *UNITS}
    assert parse_timestamp(reading["ts"]) == rows[1].ts_micros == START + 200_000


def test_every_kind_of_fault_comes_before_any_comes_again() -> None:
    pump = Pump(7, "pump-01", START, plan=FaultPlan())
    rows = list(islice(pump.readings(), 3000))
    kinds = [fault.kind for fault in pump.faults]
    assert len(kinds) > 2 * len(FAULT_KINDS)
    for start in range(0, len(kinds) - len(FAULT_KINDS), len(FAULT_KINDS)):
        assert sorted(kinds[start : start + len(FAULT_KINDS)]) == sorted(FAULT_KINDS)
    assert {row.fault for row in rows if row.fault} == set(pump.faults)


def test_labels_say_which_rows_differ_from_a_healthy_run() -> None:
    healthy, faulty = take(2000), take(2000, plan=FaultPlan())
    for clean, row in zip(healthy, faulty, strict=True):
        changed = {name for name in UNITS if clean.values[name] != row.values[name]}
        assert changed <= ({row.fault.signal} if row.fault else set())


def of_kind(kind: str) -> tuple[Fault, list[float], list[float]]:
    pump = Pump(7, "pump-01", START, plan=FaultPlan())
    rows = list(islice(pump.readings(), 4000))
    fault = next(fault for fault in pump.faults if fault.kind == kind)
    healthy = take(4000)
    part = slice(fault.first, fault.last + 1)
    return (
        fault,
        [row.values[fault.signal] for row in rows[part]],
        [row.values[fault.signal] for row in healthy[part]],
    )


def test_each_fault_does_what_its_name_says() -> None:
    fault, values, _ = of_kind("dropout")
    assert set(values) == {0.0}
    fault, values, _ = of_kind("stuck")
    assert len(set(values)) == 1
    assert len(values) >= 45
    for kind in ("spike", "level_shift"):
        fault, values, healthy = of_kind(kind)
        assert [a - b for a, b in zip(values, healthy, strict=True)] == pytest.approx([fault.size] * len(values))
    fault, values, healthy = of_kind("drift")
    assert values[-1] - healthy[-1] == pytest.approx(fault.size)
    assert abs(values[0] - healthy[0]) < abs(fault.size) / 20
    fault, values, healthy = of_kind("noise")
    assert statistics.pstdev(a - b for a, b in zip(values, healthy, strict=True)) > abs(fault.size) / 2


def test_no_fault_begins_that_would_not_end_in_time() -> None:
    plan = FaultPlan(lead_rows=50, quiet_rows=(20, 30), tail_rows=25, rows=400)
    for number in range(20):
        pump = Pump(number, "pump-01", START, plan=plan)
        rows = list(islice(pump.readings(), 400))
        assert pump.faults
        assert all(fault.first >= 50 and fault.last < 400 - 25 for fault in pump.faults)
        assert not any(row.fault for row in rows[-25:])


def test_names_sort_as_they_count() -> None:
    assert machine_names(3) == ["pump-01", "pump-02", "pump-03"]
    assert machine_names(120) == sorted(machine_names(120))
