from simulator.scrape import Meter, parse_samples


def test_samples_are_read_with_their_labels() -> None:
    text = '# HELP a_total a\n# TYPE a_total counter\na_total{lane="x",why="y z"} 3.0\na_total{lane="w"} 1e3\nb 2.5\n'
    assert parse_samples(text) == {'a_total{lane="x",why="y z"}': 3.0, 'a_total{lane="w"}': 1000.0, "b": 2.5}


def test_a_counter_goes_on_over_a_restart() -> None:
    meter = Meter("http://127.0.0.1:1/metrics")
    meter.take({'rows_total{lane="a"}': 5.0, 'rows_total{lane="b"}': 2.0, "backlog": 7.0})
    assert (meter.total("rows_total"), meter.gauge("backlog")) == (7.0, 7.0)
    meter.take({'rows_total{lane="a"}': 1.0, "backlog": 3.0})
    assert (meter.total("rows_total"), meter.gauge("backlog")) == (8.0, 3.0)
    meter.take({'rows_total{lane="a"}': 2.0, 'rows_total{lane="b"}': 1.0})
    assert meter.total("rows_total") == 10.0


async def test_a_module_that_does_not_answer_keeps_its_last_values() -> None:
    meter = Meter("http://127.0.0.1:1/metrics")
    meter.take({"rows_total": 5.0})
    assert not await meter.read()
    assert meter.total("rows_total") == 5.0
