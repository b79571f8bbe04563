"""A question for vectors -> what vLLM's pooling runner encodes -> vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from pydantic import JsonValue

from gpu_worker.engines import refusals
from gpu_worker.engines.engine import Refusal, Vectors, packed
from gpu_worker.engines.sampling_params import untaken, vector_params
from gpu_worker.engines.vllm import library
from gpu_worker.engines.vllm.shared_tokenizer import SharedTokenizer
from wire.messages import JsonObject, Question, Task, Usage

WANTS_TEXTS = Refusal(
    "unsupported",
    "this worker's model generates text; for vectors, start one with `task: embed` (or classify, score) beside its "
    "hf_model_id",
)
WANTS_VECTORS = Refusal(
    "unsupported", "this worker's model makes vectors (`task` in its configuration); ask it with `input`"
)
LONGEST_INLINE_CHARS = 4096
"""As for prompts."""

_POOLING = ("dimensions", "use_activation")
_TOKENIZING = frozenset({"add_special_tokens", "truncate_prompt_tokens"})


@dataclass(frozen=True, slots=True)
class VectorRequest:
    """What `AsyncLLM.encode` is given, once for each of `prompts`, and the parameters for the record.

    `prompts`, `pooling`, `lora`: vLLM's own types. `labels`: names of the classes.
    """

    task: Task
    prompts: Sequence[Any]
    pooling: Any
    lora: Any
    params: JsonObject
    labels: Mapping[int, str]


class VectorRequests:
    """Makes requests for one running engine.

    Args:
        tasks: Those that vLLM says the model does.
    """

    def __init__(self, llm: Any, adapters: Mapping[str, Any], tasks: Collection[str]) -> None:  # noqa: ANN401
        self._llm = llm
        self._renderer = llm.renderer
        self._adapters = adapters
        self._tasks = tasks
        usual = self._renderer.default_cmpl_tok_params
        # Nothing is cut off or refused for its length here: the refusal is to say how long the text is.
        self._usual = dataclasses.replace(usual, max_total_tokens=None)
        self._is_lower_case = usual.do_lower_case
        self._shared = SharedTokenizer(self._renderer.get_tokenizer(), adds_special_tokens=usual.add_special_tokens)
        config = llm.vllm_config.model_config
        self._limit = int(config.max_model_len)
        self._labels = dict(getattr(config.hf_config, "id2label", None) or {})

    async def request_for(self, question: Question) -> VectorRequest | Refusal:
        """The request, or why the engine would not serve it."""
        params = vector_params(question)
        if isinstance(params, Refusal):
            return params
        adapter = params.get("lora")
        # A model that compares two texts is one that classifies pairs; others compare embeddings.
        task = question.task if question.task != "score" else "classify" if "classify" in self._tasks else "embed"
        if (refusal := self._unknown(task, params)) is not None:
            return refusal
        try:
            prompts = await self._rendered(question, params, is_pairs=question.task == "score" and task == "classify")
            if isinstance(prompts, Refusal):
                return prompts
            pooling = library.pooling_params(task=task, **{name: params[name] for name in _POOLING if name in params})
            pooling.verify(self._llm.vllm_config.model_config)
        except library.request_errors() as error:
            return refusals.refusal_of(str(error), params, chat=False)
        lora = self._adapters[adapter] if isinstance(adapter, str) else None
        return VectorRequest(question.task, prompts, pooling, lora, params, self._labels)

    def _unknown(self, task: Task, params: JsonObject) -> Refusal | None:
        """What is asked that this engine does not have."""
        if "extra_body" in params:
            return untaken("extra_body", "vLLM in this process")
        adapter = params.get("lora")
        if isinstance(adapter, str) and adapter not in self._adapters:
            return refusals.unknown_adapter(adapter, self._adapters)
        if task not in self._tasks:
            known = ", ".join(sorted(self._tasks))
            return Refusal("unsupported", f"this model does not {task}; vLLM says that it does {known}")
        return None

    async def _rendered(self, question: Question, params: JsonObject, *, is_pairs: bool) -> list[Any] | Refusal:
        inputs = question.inputs or []
        if is_pairs:
            return self._pairs(question, params)
        texts = inputs if question.query is None else [question.query, *inputs]
        size = sum(map(len, texts))
        if size <= LONGEST_INLINE_CHARS and _TOKENIZING.isdisjoint(params) and _are_texts(texts):
            found = await self._shared.token_ids([one.lower() for one in texts] if self._is_lower_case else texts)
            prompts = self._renderer.render_cmpl([{"prompt_token_ids": ids} for ids in found], self._usual)
            return self._fitting(list(prompts), list(map(len, found)))
        tokenizing = self._tokenizing(params)
        asked = [{"prompt": one} if isinstance(one, str) else {"prompt_token_ids": one} for one in texts]
        if size > LONGEST_INLINE_CHARS:
            prompts = await self._renderer.render_cmpl_async(asked, tokenizing)
        else:
            prompts = self._renderer.render_cmpl(asked, tokenizing)
        return self._fitting(list(prompts), [len(prompt.get("prompt_token_ids") or ()) for prompt in prompts])

    def _pairs(self, question: Question, params: JsonObject) -> list[Any] | Refusal:
        """As vLLM's server puts a query and a document together for a cross-encoder without a template of its own."""
        tokenizer = self._renderer.get_tokenizer()
        cut = params.get("truncate_prompt_tokens")
        how = {} if cut is None else {"truncation": True, "max_length": self._limit if cut == -1 else cut}
        token_ids: list[list[int]] = []
        for document in question.inputs or []:
            if not isinstance(document, str):
                return refusals.bad_parameter("documents to score must be texts, not token ids")
            token_ids.append(tokenizer(text=question.query, text_pair=document, **how)["input_ids"])
        return self._fitting([{"prompt_token_ids": ids} for ids in token_ids], list(map(len, token_ids)))

    def _fitting(self, prompts: list[Any], lengths: Sequence[int]) -> list[Any] | Refusal:
        longest = max(lengths, default=0)
        if longest > self._limit:
            message = f"a text has {longest} tokens, and the model takes {self._limit} (max_model_len)"
            return Refusal("prompt_too_long", f"{message}; `truncate_prompt_tokens: -1` cuts it off")
        return refusals.EMPTY_PROMPT if 0 in lengths else prompts

    def _tokenizing(self, params: JsonObject) -> Any:  # noqa: ANN401
        changes: dict[str, Any] = {}
        if "add_special_tokens" in params:
            changes["add_special_tokens"] = params["add_special_tokens"]
        cut = params.get("truncate_prompt_tokens")
        if isinstance(cut, int):
            changes["truncate_prompt_tokens"] = self._limit if cut == -1 else cut
        return dataclasses.replace(self._usual, **changes)


def _are_texts(inputs: Sequence[str | list[int]]) -> TypeGuard[Sequence[str]]:
    return all(isinstance(one, str) for one in inputs)


def vectors_of(outputs: Sequence[Any], request: VectorRequest) -> Vectors:
    """From vLLM's PoolingRequestOutputs, in the order of the prompts."""
    usage = Usage(prompt_tokens=sum(len(one.prompt_token_ids) for one in outputs), completion_tokens=0)
    # On GPUs models often compute in 16 bits.
    found = [one.outputs.data.float().reshape(-1) for one in outputs]
    if request.task == "score":
        if request.pooling.task == "embed":
            query, *documents = (one / one.norm() for one in found)
            return Vectors([packed(float(query @ one) for one in documents)], usage, request.params)
        return Vectors([packed(float(one[-1]) for one in found)], usage, request.params)
    details: JsonObject | None = None
    if request.task == "classify":
        labels: list[JsonValue] = [request.labels.get(int(one.argmax())) for one in found]
        details = {"labels": labels}
    return Vectors([one.numpy().astype("<f4").tobytes() for one in found], usage, request.params, details)
