import sys
from pathlib import Path

import pytest

from simulator.dockerfile import Image, parse_image
from simulator.errors import UserError
from simulator.manifest import load_deployment
from simulator.project import find_root


def test_the_last_stage_says_the_command_and_the_environment() -> None:
    text = """
ARG BASE=python
FROM ${BASE} AS build
ENV ONLY=build
ENTRYPOINT ["not", "this"]
# a comment
FROM ${BASE}
ENV PATH=/opt/bin:$PATH A=1 \\
    # a comment between continuation lines
    B="two words"
ENV OLD the old form
HEALTHCHECK --interval=30s \\
    CMD ["python", "-c", "probe"]
ENTRYPOINT ["python", "-m", "scorer"]
CMD ["--verbose"]
"""
    image = parse_image(text)
    assert image.command == ("python", "-m", "scorer", "--verbose")
    assert image.env == {"PATH": "/opt/bin:$PATH", "A": "1", "B": "two words", "OLD": "the old form"}


def test_a_command_alone_is_enough() -> None:
    assert parse_image('FROM x\ncmd ["run"]') == Image(("run",), {})


@pytest.mark.parametrize("line", ["ENTRYPOINT python -m scorer", "CMD python -m scorer", 'ENTRYPOINT {"a": 1}'])
def test_shell_form_is_refused_with_the_reason(line: str) -> None:
    with pytest.raises(UserError, match="shell form"):
        parse_image(f"FROM x\n{line}")


def test_an_image_without_a_command_is_refused() -> None:
    with pytest.raises(UserError, match="neither ENTRYPOINT nor CMD"):
        parse_image('FROM x\nCMD ["a"]\nFROM y')


def test_the_projects_own_modules_run_with_this_python() -> None:
    deployment = load_deployment(find_root(Path(__file__).parent), {})
    commands = {spec.name: spec.command for spec in deployment.modules}
    assert commands == {name: (sys.executable, "-m", name) for name in ("uploader", "anomaly_router", "scorer")}
