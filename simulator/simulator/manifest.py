"""From `deployment.template.json` and `modules/*/module.json` to a deployment manifest and the processes it asks for.

Expansion follows iotedgedev: `${MODULES.name}`, `${MODULES.name.platform}` and `${VAR}` are replaced in the text, VAR
coming from the environment, then from `.env`. Only the form with braces is expanded, because the template is full of
words like `$edgeHub` that iotedgedev leaves alone for lack of such a variable. A variable that is not set is an error
here, where iotedgedev would leave it standing.
"""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from simulator.dockerfile import Image, read_image
from simulator.errors import UserError

RestartPolicy = Literal["never", "on-failure", "on-unhealthy", "always"]
TEMPLATE = "deployment.template.json"
# edgeAgent joins createOptions, createOptions01, ...; each is cut at this many characters.
_CREATE_OPTIONS_CHARS = 512
_CREATE_OPTIONS_PARTS = 8
_LAST = 4_294_967_295
_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class ModuleSpec:
    """One module that the manifest runs, and how to run it without a container."""

    name: str
    command: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    restart_policy: RestartPolicy = "on-unhealthy"
    startup_order: int = _LAST
    status: Literal["running", "stopped"] = "running"


@dataclass(frozen=True)
class Deployment:
    manifest: dict[str, Any]
    modules: tuple[ModuleSpec, ...]

    def desired(self, module: str) -> dict[str, Any]:
        """A module's desired properties as the manifest has them; {} when it names none."""
        return cast(dict[str, Any], self.manifest["modulesContent"].get(module, {}).get("properties.desired", {}))


def load_deployment(root: Path, environ: Mapping[str, str], *, template: Path | None = None) -> Deployment:
    """The project's deployment. Without `.env`, `.env.example` stands in for it. Raises UserError."""
    variables = {**read_env_file(_env_file(root)), **environ}
    path = template or root / TEMPLATE
    folders = {path.parent.name: path.parent for path in sorted(root.glob("modules/*/module.json"))}
    platform = variables.get("DEFAULT_PLATFORM", "amd64")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    images = {name: read_image_names(folder, variables) for name, folder in folders.items()}
    manifest = expand(text, variables=variables, images=images, platform=platform, name=path.name)
    dockerfiles = {
        name: read_image(folder / _platforms(_read_json(folder / "module.json"), folder)[platform])
        for name, folder in folders.items()
        if platform in images[name]
    }
    return Deployment(manifest, _module_specs(manifest, images, dockerfiles, path.name))


def _env_file(root: Path) -> Path:
    own = root / ".env"
    return own if own.is_file() else root / ".env.example"


def read_env_file(path: Path) -> dict[str, str]:
    """KEY=value lines, as in `.env`: comments, blank lines, `export` and quotes are understood. Missing means {}."""
    if not path.is_file():
        return {}
    variables = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.strip().removeprefix("export ")
        if not text or text.startswith("#"):
            continue
        key, equals, value = text.partition("=")
        if not equals or not _VARIABLE.fullmatch(key.strip()):
            raise UserError(f"{path.name}:{number}: expected NAME=value")
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        variables[key.strip()] = value
    return variables


def expand(
    text: str,
    *,
    variables: Mapping[str, str],
    images: Mapping[str, Mapping[str, str]],
    platform: str,
    name: str = TEMPLATE,
) -> dict[str, Any]:
    """The manifest as edgeAgent would get it. Raises UserError naming the placeholder and its line."""

    def replace(match: re.Match[str]) -> str:
        where = f"{name}:{text.count(chr(10), 0, match.start()) + 1}"
        value = _resolve(match[1], variables, images, platform, where)
        return json.dumps(value)[1:-1]

    try:
        document = json.loads(_PLACEHOLDER.sub(replace, text))
    except json.JSONDecodeError as error:
        raise UserError(f"{name}:{error.lineno}: not JSON: {error.msg}") from None
    if not isinstance(document, dict) or not isinstance(document.get("modulesContent"), dict):
        raise UserError(f"{name}: has no modulesContent")
    document.pop("$schema-template", None)
    return cast(dict[str, Any], _with_create_options_as_text(document))


def _resolve(
    word: str, variables: Mapping[str, str], images: Mapping[str, Mapping[str, str]], platform: str, where: str
) -> str:
    if not word.startswith("MODULES."):
        if word not in variables:
            raise UserError(f"{where}: variable {word} is not set; put it into .env or the environment")
        return variables[word]
    module, _, wanted = word.removeprefix("MODULES.").partition(".")
    if module not in images:
        raise UserError(f"{where}: there is no modules/{module}/module.json")
    wanted = {"": platform, "debug": f"{platform}.debug"}.get(wanted, wanted)
    if wanted not in images[module]:
        known = ", ".join(sorted(images[module]))
        raise UserError(f"{where}: modules/{module}/module.json has no platform {wanted}, only {known}")
    return images[module][wanted]


def read_image_names(folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """Image name per platform: `repository:version[-CONTAINER_TAG]-platform`, the repository in lower case."""
    path = folder / "module.json"
    document = _read_json(path)
    platforms = _platforms(document, folder)
    where = f"modules/{folder.name}/module.json"
    try:
        repository = document["image"]["repository"]
        version = document["image"]["tag"]["version"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{where}: has no image {error}") from None
    tag = f"-{variables['CONTAINER_TAG']}" if variables.get("CONTAINER_TAG") else ""

    def replace(match: re.Match[str]) -> str:
        return _resolve(match[1], variables, {}, "", where)

    repository, version = (_PLACEHOLDER.sub(replace, str(text)) for text in (repository, version))
    return {platform: f"{repository.lower()}:{version}{tag}-{platform}" for platform in platforms}


def _platforms(document: Any, folder: Path) -> dict[str, str]:
    try:
        return cast(dict[str, str], document["image"]["tag"]["platforms"])
    except (KeyError, TypeError):
        raise UserError(f"modules/{folder.name}/module.json: has no image.tag.platforms") from None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None


def _with_create_options_as_text(node: Any) -> Any:
    """createOptions may be an object in the template; edgeAgent wants minified text in pieces."""
    if isinstance(node, list):
        return [_with_create_options_as_text(item) for item in node]
    if not isinstance(node, dict):
        return node
    result = {}
    for key, value in node.items():
        if key == "createOptions" and isinstance(value, dict):
            result.update(split_create_options(json.dumps(value, separators=(",", ":"))))
        else:
            result[key] = _with_create_options_as_text(value)
    return result


def split_create_options(text: str) -> dict[str, str]:
    """{"createOptions": ..., "createOptions01": ...}, each at most 512 characters. Raises UserError beyond eight."""
    pieces = [text[start : start + _CREATE_OPTIONS_CHARS] for start in range(0, len(text), _CREATE_OPTIONS_CHARS)]
    if len(pieces) > _CREATE_OPTIONS_PARTS:
        limit = _CREATE_OPTIONS_CHARS * _CREATE_OPTIONS_PARTS
        raise UserError(f"{TEMPLATE}: createOptions of {len(text)} characters, at most {limit} fit a manifest")
    return {"createOptions" + (f"{index:02}" if index else ""): piece for index, piece in enumerate(pieces)}


def _module_specs(
    manifest: dict[str, Any],
    images: Mapping[str, Mapping[str, str]],
    dockerfiles: Mapping[str, Image],
    name: str,
) -> tuple[ModuleSpec, ...]:
    folder_of = {image: folder for folder, names in images.items() for image in names.values()}
    modules = manifest["modulesContent"].get("$edgeAgent", {}).get("properties.desired", {}).get("modules", {})
    specs = []
    for module, wanted in modules.items():
        image = wanted.get("settings", {}).get("image", "")
        folder = folder_of.get(image)
        if folder is None or folder not in dockerfiles:
            raise UserError(f"{name}: module {module} runs image {image}, which no folder under modules/ builds")
        specs.append(_module_spec(module, wanted, dockerfiles[folder]))
    return tuple(sorted(specs, key=lambda spec: (spec.startup_order, spec.name)))


def _module_spec(module: str, wanted: Mapping[str, Any], image: Image) -> ModuleSpec:
    command = image.command
    if command[0] in ("python", "python3"):
        command = (sys.executable, *command[1:])
    # PATH of an image names folders that exist only inside it.
    env = {key: value for key, value in image.env.items() if key != "PATH"}
    env.update({key: str(entry.get("value", "")) for key, entry in wanted.get("env", {}).items()})
    return ModuleSpec(
        name=module,
        command=command,
        env=env,
        restart_policy=wanted.get("restartPolicy", "on-unhealthy"),
        startup_order=int(wanted.get("startupOrder", _LAST)),
        status=wanted.get("status", "running"),
    )
