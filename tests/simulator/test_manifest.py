import json
from pathlib import Path

import pytest

from simulator.errors import UserError
from simulator.manifest import expand, load_deployment, read_env_file, split_create_options

IMAGES = {"scorer": {"amd64": "reg/scorer:1-amd64", "amd64.debug": "reg/scorer:1-amd64.debug"}}


def template(image: str = "${MODULES.scorer}", **extra: object) -> str:
    module = {"settings": {"image": image, "createOptions": {"User": "1000"}}, **extra}
    content = {"$edgeAgent": {"properties.desired": {"modules": {"scorer": module}}}}
    return json.dumps({"$schema-template": "4.0.0", "modulesContent": content}, indent=1)


def expand_here(text: str, **variables: str) -> dict[str, object]:
    return expand(text, variables=variables, images=IMAGES, platform="amd64")


def image_of(manifest: dict[str, object]) -> object:
    modules = manifest["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]  # type: ignore[index]
    return modules["scorer"]["settings"]["image"]


@pytest.mark.parametrize(
    ("placeholder", "image"),
    [
        ("${MODULES.scorer}", "reg/scorer:1-amd64"),
        ("${MODULES.scorer.amd64}", "reg/scorer:1-amd64"),
        ("${MODULES.scorer.debug}", "reg/scorer:1-amd64.debug"),
        ("${REGISTRY}/x:1", "my.registry/x:1"),
    ],
)
def test_placeholders_become_image_names(placeholder: str, image: str) -> None:
    assert image_of(expand_here(template(placeholder), REGISTRY="my.registry")) == image


def test_a_missing_variable_is_named_with_its_line() -> None:
    with pytest.raises(UserError, match=r"deployment\.template\.json:\d+: variable NO_SUCH is not set"):
        expand_here(template("${NO_SUCH}"))


def test_a_missing_module_and_platform_are_named() -> None:
    with pytest.raises(UserError, match=r"modules/nope/module\.json"):
        expand_here(template("${MODULES.nope}"))
    with pytest.raises(UserError, match=r"no platform arm, only amd64, amd64\.debug"):
        expand_here(template("${MODULES.scorer.arm}"))


def test_values_with_quotes_stay_values() -> None:
    assert image_of(expand_here(template("${A}"), A='a"b\\c')) == 'a"b\\c'


def test_words_with_a_bare_dollar_stay() -> None:
    manifest = expand_here(
        template("$edgeHub", route="FROM /* WHERE NOT IS_DEFINED($connectionModuleId) INTO $upstream")
    )
    assert image_of(manifest) == "$edgeHub"
    assert "$connectionModuleId" in json.dumps(manifest)


def test_the_schema_of_templates_is_removed_and_create_options_become_text() -> None:
    manifest = expand_here(template())
    assert "$schema-template" not in manifest
    assert '"createOptions": "{\\"User\\":\\"1000\\"}"' in json.dumps(manifest)


def test_long_create_options_are_cut_as_edge_agent_joins_them() -> None:
    text = "x" * 1100
    pieces = split_create_options(text)
    assert list(pieces) == ["createOptions", "createOptions01", "createOptions02"]
    assert "".join(pieces.values()) == text
    with pytest.raises(UserError, match="at most 4096"):
        split_create_options("x" * 4097)


def test_text_that_is_no_json_is_refused_with_its_line() -> None:
    with pytest.raises(UserError, match=r"deployment\.template\.json:2: not JSON"):
        expand_here('{\n"a": }')


def test_env_files_are_read_as_people_write_them(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("# comment\n\nA=1\nexport B = two words \nC='quoted'\nD=\nE=a=b\n")
    assert read_env_file(path) == {"A": "1", "B": "two words", "C": "quoted", "D": "", "E": "a=b"}
    path.write_text("A=1\nnonsense\n")
    with pytest.raises(UserError, match=r"\.env:2: expected NAME=value"):
        read_env_file(path)
    assert read_env_file(tmp_path / "none") == {}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "modules/scorer"
    folder.mkdir(parents=True)
    image = {"repository": "${REG}/Scorer", "tag": {"version": "2", "platforms": {"amd64": "./Dockerfile"}}}
    (folder / "module.json").write_text(json.dumps({"image": image}))
    (folder / "Dockerfile").write_text(
        'FROM x\nENV PATH=/x FROM_IMAGE=1 BOTH=image\nENTRYPOINT ["python", "-m", "scorer"]'
    )
    env = {"BOTH": {"value": "manifest"}}
    (tmp_path / "deployment.template.json").write_text(template(env=env, startupOrder=2, restartPolicy="always"))
    return tmp_path


def test_a_module_gets_its_image_env_then_its_manifest_env(project: Path) -> None:
    (spec,) = load_deployment(project, {"REG": "Reg.example"}).modules
    assert spec.env == {"FROM_IMAGE": "1", "BOTH": "manifest"}
    assert (spec.startup_order, spec.restart_policy, spec.status) == (2, "always", "running")


def test_the_environment_wins_over_env_files_and_the_example_stands_in(project: Path) -> None:
    (project / ".env.example").write_text("REG=example\n")
    assert image_of(load_deployment(project, {}).manifest) == "example/scorer:2-amd64"
    (project / ".env").write_text("REG=own\nCONTAINER_TAG=t\n")
    assert image_of(load_deployment(project, {}).manifest) == "own/scorer:2-t-amd64"
    assert image_of(load_deployment(project, {"REG": "env"}).manifest) == "env/scorer:2-t-amd64"


def test_a_variable_missing_from_a_module_file_is_named_with_the_file(project: Path) -> None:
    with pytest.raises(UserError, match=r"modules/scorer/module\.json: variable REG is not set"):
        load_deployment(project, {})


def test_an_image_that_no_folder_builds_cannot_run_here(project: Path) -> None:
    (project / "deployment.template.json").write_text(template("elsewhere/scorer:1"))
    with pytest.raises(UserError, match="no folder under modules/ builds"):
        load_deployment(project, {"REG": "r"})
