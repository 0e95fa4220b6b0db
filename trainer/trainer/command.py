"""`edgeweir train`: readings in, bundle out, and a short account of how well it does."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from trainer.data import Source, find_files, read_file
from trainer.errors import TrainError
from trainer.evaluate import Evaluation, evaluate
from trainer.labels import Event, events_from_column, events_from_file
from trainer.output import check_output, write_bundle
from trainer.table import Columns, Series, choose_columns, to_series
from trainer.training import Config, Trained, train

BAD_INPUT = 2


def register(app: typer.Typer) -> None:
    app.command("train")(train_command)


def train_command(
    data: Annotated[Path, typer.Argument(help="A CSV or JSON Lines file, or a folder of them.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the bundle, or a file ending in .zip.", show_default=False)
    ],
    window: Annotated[int, typer.Option(help="Rows in a window.")] = 16,
    stride: Annotated[int, typer.Option(help="Rows from one scored window to the next.")] = 1,
    features: Annotated[
        list[str] | None,
        typer.Option(
            "--features", "-f", help="Field (name or JSON pointer); repeat, or separate by commas. [all numeric]"
        ),
    ] = None,
    timestamp: Annotated[str | None, typer.Option(help="Field with the time. [timestamp, time, …]")] = None,
    series: Annotated[str | None, typer.Option(help="Field that names the machine. [series, machine, …]")] = None,
    label: Annotated[str | None, typer.Option(help="Field with labels. [label, anomaly, …]")] = None,
    labels: Annotated[Path | None, typer.Option(help="File of labelled windows (NAB's JSON, or a list).")] = None,
    train_fraction: Annotated[float, typer.Option(help="Train on this first part of each series only.")] = 1.0,
    max_gap_secs: Annotated[
        float | None, typer.Option(help="A longer step in time starts a new window. [ten usual steps]")
    ] = None,
    explained_variance: Annotated[float, typer.Option(help="Share of the variance that the model keeps.")] = 0.99,
    false_alarm_rate: Annotated[float, typer.Option(help="Wanted share of clean windows above the threshold.")] = 1e-6,
    name: Annotated[str | None, typer.Option(help="Name of the model. [the data's name]")] = None,
    version: Annotated[str, typer.Option(help="Version of the model.")] = "1",
    created: Annotated[str | None, typer.Option(help="Time written into the bundle. [newest in the data]")] = None,
) -> None:
    """Fit a windowed PCA detector to readings and write a model bundle."""
    console = Console(stderr=True)
    try:
        config = Config(
            name=name or _default_name(data),
            version=version,
            window=window,
            stride=stride,
            explained_variance=explained_variance,
            false_alarm_rate=false_alarm_rate,
            train_fraction=train_fraction,
            max_gap_secs=max_gap_secs,
            created=created,
        )
        check_output(output)
        wanted = [part.strip() for item in features or [] for part in item.split(",") if part.strip()]
        with _progress(console) as progress:
            sources = _read(data, progress)
            columns = choose_columns(sources, features=wanted, timestamp=timestamp, series=series, label=label)
            every = to_series(sources, columns)
            events = _events(labels, columns, every)
            trained = _train(every, columns, config, events, progress)
        write_bundle(trained.files, output)
    except TrainError as error:
        typer.echo(f"edgeweir train: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from None
    out = Console()
    bad_lines = sum(source.bad_lines for source in sources)
    _summary(out, trained, output, bad_lines)
    if events:
        _verdict(out, trained, every, events)


def _read(data: Path, progress: Progress) -> list[Source]:
    files = find_files(data)
    task = progress.add_task("reading", total=sum(path.stat().st_size for path in files if path.exists()))
    return [read_file(path, lambda count: progress.advance(task, count)) for path in files]


def _events(labels: Path | None, columns: Columns, series: list[Series]) -> list[Event]:
    if labels is not None:
        return events_from_file(labels, series)
    return events_from_column(series) if columns.label is not None else []


def _train(series: list[Series], columns: Columns, config: Config, events: list[Event], progress: Progress) -> Trained:
    task = progress.add_task("fitting")

    def show(what: str, done: int, total: int) -> None:
        progress.update(task, description=what, completed=done, total=total)

    return train(series, columns, config, events=events, progress=show)


def _progress(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True)


def _summary(out: Console, trained: Trained, output: Path, bad_lines: int) -> None:
    manifest, detector = trained.bundle.manifest, trained.detector
    grid = Table.grid(padding=(0, 2))
    grid.add_row("model", f"{manifest.name} {manifest.version}  {trained.bundle.digest[:19]}…")
    grid.add_row("features", ", ".join(feature.name for feature in manifest.features))
    grid.add_row("window", f"{manifest.window.length} rows; a step over {manifest.max_gap_secs:g} s starts a new one")
    grid.add_row(
        "trained on",
        f"{manifest.training.rows:,} rows of {manifest.training.series} series, {trained.windows:,} clean windows"
        + (f"; {bad_lines} unreadable lines left out" if bad_lines else ""),
    )
    grid.add_row(
        "detector",
        f"T² over {detector.directions.shape[1]} directions ({detector.explained:.1%} of variance), SPE over the rest",
    )
    grid.add_row("threshold", f"{manifest.threshold.value:g}  ({manifest.threshold.rule})")
    grid.add_row("bundle", str(output))
    out.print(grid, highlight=False, soft_wrap=True)


def _verdict(out: Console, trained: Trained, series: list[Series], events: list[Event]) -> None:
    manifest = trained.bundle.manifest

    def over(first_rows: tuple[int, ...]) -> Evaluation:
        return evaluate(
            trained.detector,
            manifest.threshold.value,
            series,
            events,
            max_gap_secs=manifest.max_gap_secs,
            first_rows=first_rows,
        )

    unseen = sum(len(one.times) for one in series) > manifest.training.rows
    result = over(trained.trained_rows if unseen else (0,) * len(series))
    table = Table()
    table.add_column("kind")
    table.add_column("found", justify="right")
    table.add_column("labelled", justify="right")
    for kind, (found, labelled) in result.kinds.items():
        table.add_row(kind, str(found), str(labelled))
    out.print("\nlabelled faults " + ("after the training part" if unseen else "in the training data"), highlight=False)
    out.print(table)
    out.print(
        f"found {result.found} of {result.labelled} labelled events; {result.false_episodes} false episodes "
        f"in {result.rows:,} rows ({result.anomalous:,} rows above the threshold)",
        highlight=False,
        soft_wrap=True,
    )


def _default_name(data: Path) -> str:
    stem = data.name.split(".")[0] or "model"
    return re.sub(r"[^A-Za-z0-9._+-]", "-", stem).lstrip("._+-")[:128] or "model"
