"""Settings as people and child processes may see them: complete, and without secrets.

Secret are passwords and keys of the schema, a password in any URL, and whatever stands in `vllm_args` under a name that
sounds like a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, SecretStr

from batchfleet.humanize import MASK
from batchfleet.settings import setting_names
from batchfleet.settings.schema import Settings
from batchfleet.settings.yaml_dialect import dump

_SECRET_WORDS = re.compile(
    r"(token|key|keys|password|passwords|passwd|passphrase|pwd|secret|secrets|credential|credentials)$"
)
# Up to the last @: a password may hold more of them.
_PASSWORD_IN_URL = re.compile(r"^((?:[A-Za-z][A-Za-z0-9+.-]*://)?[^\s/:@]*:(?!//))[^\s]+@")
_PASSWORD_IN_QUERY = re.compile(r"(://\S*[?&][^=&\s]*(?:token|key|password|secret)[^=&\s]*=)[^&\s]+", re.IGNORECASE)


def show_settings(settings: Settings) -> str:
    """YAML of everything that takes effect, defaults included; every secret reads `********`."""
    return dump(_tree(settings, keep_secrets=True))


def to_file_text(settings: Settings) -> str:
    """A settings file with everything but the secrets.

    Together with `child_environment` it loads as the same settings.
    """
    return dump(_tree(settings, keep_secrets=False))


def child_environment(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that is given the file of `to_file_text`: with what that leaves out, else ours.

    Our own variables for settings are not handed on: they are in the file already, and would win over what our command
    line changed.
    """
    kept = {name: value for name, value in environ.items() if name not in setting_names.ENVIRONMENT}
    # A file in the folder from which somebody asks, such as random.py, must never stand for a module.
    return kept | {"PYTHONSAFEPATH": "1"} | secret_environment(settings)


def secret_environment(settings: Settings) -> dict[str, str]:
    """What `to_file_text` leaves out, as environment variables."""
    found: dict[str, str] = {}
    for path in setting_names.SETTINGS:
        value: object = settings
        for name in path:
            value = getattr(value, name)
        if isinstance(value, dict):
            value = {name: item for name, item in value.items() if _holds_secret({name: item})}
        if _holds_secret(value):
            found[setting_names.variable(path)] = _as_variable(value)
    return found


def secret_texts(settings: Settings) -> Iterator[str]:
    """Every secret by itself, for whoever must mask them in other texts."""
    for path in setting_names.SETTINGS:
        value: object = settings
        for name in path:
            value = getattr(value, name)
        yield from _secrets_in(value)


def _secrets_in(value: object) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, str) and _holds_secret(value) and "://" in value:
        password = urlsplit(value).password or ""
        yield from {password, unquote(password)}
    elif isinstance(value, list):
        for item in value:
            yield from _secrets_in(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if isinstance(item, str) and _sounds_secret(name):
                yield item
            else:
                yield from _secrets_in(item)


def _as_variable(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return value if isinstance(value, str) else dump(value, one_line=True).strip()


def _tree(section: BaseModel, *, keep_secrets: bool) -> dict[str, object]:
    tree: dict[str, object] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            tree[name] = _tree(value, keep_secrets=keep_secrets)
        elif keep_secrets:
            tree[name] = _masked(value)
        elif isinstance(value, dict):
            tree[name] = {key: item for key, item in value.items() if not _holds_secret({key: item})}
        elif not _holds_secret(value):
            tree[name] = value
    return tree


def _holds_secret(value: object) -> bool:
    return _masked(value) != value


def _masked(value: object) -> object:
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, str):
        return _PASSWORD_IN_QUERY.sub(rf"\1{MASK}", _PASSWORD_IN_URL.sub(rf"\1{MASK}@", value))
    if isinstance(value, list):
        return [_masked(item) for item in value]
    if isinstance(value, dict):
        return {
            name: MASK if _sounds_secret(name) and _can_be_secret(item) else _masked(item)
            for name, item in value.items()
        }
    return value


def _sounds_secret(name: str) -> bool:
    # Word by word, for `max_num_batched_tokens` and `tokenizer` are none; camelCase and kebab-case are words too.
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()
    return any(_SECRET_WORDS.search(word) for word in re.split(r"[^a-z0-9]+", words))


def _can_be_secret(value: object) -> bool:
    # `hf_token: true` says where to look for a token, and is none.
    return value is not None and not isinstance(value, bool) and value not in ("", [], {})
