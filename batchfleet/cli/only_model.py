"""Which model a server serves, where nobody has said it."""

from __future__ import annotations

import asyncio

from wire.errors import UsageError

_MOST_NAMED = 20


def only_model(url: str, api_key: str | None) -> str:
    """Ask a server that speaks OpenAI's API.

    Raises:
        UsageError: It serves several models or none, or does not say.
    """
    models = asyncio.run(_listed(url, api_key))
    if len(models) == 1:
        return models[0]
    named = ", ".join(map(repr, models[:_MOST_NAMED])) + (", ..." if len(models) > _MOST_NAMED else "")
    raise UsageError(
        f"{url} serves {len(models)} models ({named}): say which with --model" if models else f"{url} serves no model"
    )


async def _listed(url: str, api_key: str | None) -> list[str]:
    # Only here: commands that ask no server start without an HTTP client.
    from gpu_worker.engines.openai.client import FaultError, Server, base_url_of  # noqa: PLC0415
    from wire.errors import EngineBootError  # noqa: PLC0415

    try:
        server = Server(base_url_of(url, None), api_key, most_open=1, request_timeout_s=10.0, stall_s=10.0)
        try:
            return [str(model["id"]) for model in await server.models() if model.get("id")]
        finally:
            await server.close()
    except (FaultError, EngineBootError) as error:
        told = error.fault.told if isinstance(error, FaultError) else str(error)
        raise UsageError(
            f"{url} does not say which models it serves ({told}): check --server, or say which with --model"
        ) from None
