"""The episode machine."""

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from anomaly_router.episodes import Added, Change, Closed, Episode, Opened, Rules, Verdict, advance

RULES = Rules(close_after_rows=3, close_after_secs=60)


def at(secs: float | None, *, anomaly: bool = False, score: float | None = 0.5) -> Verdict:
    micros = None if secs is None else round(secs * 1_000_000)
    return Verdict(None if secs is None else f"t{secs}", micros, score, anomaly)


def run(*rows: Verdict, rules: Rules = RULES) -> tuple[Episode | None, list[list[Change]]]:
    numbers = count(1)
    episode: Episode | None = None
    happened = []
    for row in rows:
        episode, changes = advance(episode, row, rules, lambda: f"e{next(numbers)}")
        happened.append(list(changes))
    return episode, happened


def kinds(happened: list[list[Change]]) -> list[str]:
    return ["+".join(type(change).__name__ for change in changes) for changes in happened]


def test_an_episode_opens_with_its_first_anomaly_and_closes_after_the_rows_that_are_none() -> None:
    episode, happened = run(at(0), at(1, anomaly=True, score=3.0), at(2), at(3, anomaly=True), at(4), at(5), at(6))
    assert kinds(happened) == ["", "Opened+Added", "", "Added", "", "", "Closed"]
    assert episode is None
    closed = happened[-1][0].episode
    assert (closed.id, closed.rows, closed.started, closed.last, closed.peak_score) == ("e1", 2, "t1", "t3", 3.0)


def test_unscored_rows_do_not_count_towards_the_end() -> None:
    episode, _ = run(at(0, anomaly=True), *[at(1, score=None)] * 9)
    assert episode is not None


def test_a_quiet_time_ends_it_even_where_the_next_row_is_an_anomaly() -> None:
    episode, happened = run(at(0, anomaly=True), at(60, anomaly=True), at(121, anomaly=True))
    assert kinds(happened) == ["Opened+Added", "Added", "Closed+Opened+Added"]
    assert episode is not None
    assert episode.id == "e2"
    assert kinds(run(at(0, anomaly=True), at(61, score=None))[1]) == ["Opened+Added", "Closed"]


def test_unknown_and_backward_times_end_nothing() -> None:
    _, happened = run(at(1000, anomaly=True), at(None, anomaly=True), at(0, anomaly=True), at(None))
    assert kinds(happened) == ["Opened+Added", "Added", "Added", ""]
    episode, _ = run(at(None, anomaly=True), at(5, anomaly=True))
    assert episode is not None
    assert (episode.started, episode.last, episode.rows) == ("t5", "t5", 2)


_rows = st.lists(
    st.builds(
        at,
        st.none() | st.integers(-200, 200),
        anomaly=st.booleans(),
        score=st.none() | st.floats(0, 10),
    ),
    max_size=40,
)


@given(_rows, st.integers(1, 4), st.integers(1, 100))
def test_each_anomalous_row_is_added_once_and_every_episode_opens_before_it_closes(
    rows: list[Verdict], close_after_rows: int, close_after_secs: int
) -> None:
    last, happened = run(*rows, rules=Rules(close_after_rows, close_after_secs))
    opened: dict[str, int] = {}
    closed: set[str] = set()
    for row, changes in zip(rows, happened, strict=True):
        assert sum(isinstance(change, Added) for change in changes) == row.anomaly
        for change in changes:
            episode = change.episode
            if isinstance(change, Opened):
                assert episode.id not in opened
                opened[episode.id] = 0
            elif isinstance(change, Added):
                opened[episode.id] += 1
                assert episode.rows == opened[episode.id]
                assert episode.id not in closed
            else:
                assert isinstance(change, Closed)
                assert episode.rows == opened[episode.id] > 0
                closed.add(episode.id)
    assert set(opened) - closed == ({last.id} if last else set())
