"""The parameters of questions for vectors. The counterpart of `wire.parameters` and `canonical_params`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wire.errors import ParameterError, nearest, shown
from wire.parameters import PARAMETERS, Parameter, names_of, one_of, whole_number_from

if TYPE_CHECKING:
    from wire.messages import JsonObject, Task

ENCODINGS = ("float", "base64")

_TASK_NAMES: dict[Task, str] = {"embed": "embeddings", "classify": "classification", "score": "scores"}


@dataclass(frozen=True, slots=True)
class PoolingParameter:
    """`tasks`: those that it means something to; `does`: what, for people, in Markdown."""

    parameter: Parameter
    tasks: frozenset[Task]
    does: str


def _for(parameter: Parameter, does: str, *tasks: Task) -> PoolingParameter:
    return PoolingParameter(parameter, frozenset(tasks or _TASK_NAMES), does)


POOLING_PARAMETERS: dict[str, PoolingParameter] = {
    "dimensions": _for(
        Parameter("an integer of at least 1", whole_number_from(1)),
        "shorter vectors, from models trained for it",
        "embed",
    ),
    "encoding_format": _for(
        Parameter("`float` or `base64`", one_of(ENCODINGS)), "how vectors are written in JSON", "embed"
    ),
    "use_activation": _for(PARAMETERS["ignore_eos"], "false: raw output of the pooling layer"),
    "top_n": _for(
        Parameter("an integer of at least 1", whole_number_from(1)),
        "how many documents `.openai.jsonl` lists, best first",
        "score",
    ),
    "truncate_prompt_tokens": _for(
        Parameter("an integer of at least 1, or -1 for what the model takes", whole_number_from(-1)),
        "truncates instead of refusing",
    ),
    "add_special_tokens": _for(PARAMETERS["add_special_tokens"], "as for prompts"),
    "lora": _for(PARAMETERS["lora"], "as for prompts"),
    "extra_body": _for(PARAMETERS["extra_body"], "merged into the request to a server; not for vLLM in process"),
    **{name: _for(PARAMETERS[name], "ignored; sent to servers") for name in sorted(names_of("bookkeeping"))},
}


def pooling_params(asked: JsonObject, task: Task) -> JsonObject:
    """Those of a question for vectors, checked. What is null is as if absent.

    Raises:
        ParameterError: It cannot be asked.
    """
    params: JsonObject = {}
    for name, value in asked.items():
        known = POOLING_PARAMETERS.get(name)
        if known is None or task not in known.tasks:
            fitting = [other for other, one in POOLING_PARAMETERS.items() if task in one.tasks]
            raise ParameterError(
                f"parameter {name!r} is not for {_TASK_NAMES[task]}{nearest(name, fitting)}", "bad_parameter"
            )
        if value is None:
            continue
        read = known.parameter.read(value)
        if read is None:
            raise ParameterError(
                f"parameter {name!r} must be {known.parameter.takes}, not {shown(value)}", "bad_parameter"
            )
        params[name] = read
    return params
