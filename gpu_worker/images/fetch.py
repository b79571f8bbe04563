"""One image over HTTP, from an address that was checked, within bounds."""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import urljoin

import httpx2 as httpx

from gpu_worker.images.addresses import allowed_addresses, checked_url
from gpu_worker.images.errors import ImageError, ImagesTooLargeError
from gpu_worker.images.options import ImageOptions

REDIRECTS = frozenset({301, 302, 303, 307, 308})
MAY_PASS = frozenset({408, 425, 429})
SERVER_ERRORS = 500
MOST_ADDRESSES = 4
"""Of a host, tried one after the other."""


class Fetcher:
    """Fetches images.

    A name is resolved once, and the very address that was checked is connected to: a name that stands for another
    address a moment later changes nothing. TLS still verifies the name. Proxies of the environment are not used, as
    they would resolve the name by themselves.

    Certificates are believed of the authorities that SSL_CERT_FILE or SSL_CERT_DIR names, else of the system's.

    Raises:
        ImageError: These authorities cannot be read.
    """

    def __init__(self, options: ImageOptions) -> None:
        self._options = options
        self._client = httpx.AsyncClient(
            verify=_authorities() if options.https else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            headers={"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "batchfleet"},
            # Connections are told apart by address, not by the name that their certificate was checked for.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            timeout=None,  # That of `fetch` is for all of it.
            trust_env=False,
        )

    async def fetch(self, url: str, max_bytes: int) -> bytes:
        """The image's bytes; one try.

        Raises:
            ImageError: There are none.
        """
        try:
            async with asyncio.timeout(self._options.timeout_s):
                for _ in range(self._options.max_redirects + 1):
                    found = await self._follow(url, max_bytes)
                    if isinstance(found, bytes):
                        return found
                    url = found
        except TimeoutError:
            raise ImageError(
                f"it did not come within {self._options.timeout_s:g} s (images.timeout_s)", may_pass=True
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise ImageError(
                f"its server cannot be asked ({type(error).__name__})", may_pass=not isinstance(error, httpx.InvalidURL)
            ) from None
        raise ImageError(f"it is behind more than {self._options.max_redirects} redirects (images.max_redirects)")

    async def close(self) -> None:
        await self._client.aclose()

    async def _follow(self, url: str, max_bytes: int) -> bytes | str:
        """The bytes, or the address they are redirected to."""
        host = checked_url(url, self._options)
        addresses = (await allowed_addresses(host, private=self._options.private_addresses))[:MOST_ADDRESSES]
        target = httpx.URL(url)
        for address in addresses:
            request = self._client.build_request(
                "GET",
                target.copy_with(host=address, fragment=None),
                headers={"Host": target.netloc.decode("ascii")},
                extensions={"sni_hostname": target.raw_host.decode("ascii")},
            )
            try:
                response = await self._client.send(request, stream=True, follow_redirects=False)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if address == addresses[-1]:
                    raise
                continue
            try:
                return await self._read(url, response, max_bytes)
            finally:
                await response.aclose()
        raise ImageError("the name of its host stands for no address")

    async def _read(self, url: str, response: httpx.Response, max_bytes: int) -> bytes | str:
        status, headers = response.status_code, response.headers
        if status in REDIRECTS and "location" in headers:
            return urljoin(url, headers["location"])
        if status != httpx.codes.OK:
            raise ImageError(
                f"its server answers with HTTP {status}", may_pass=status >= SERVER_ERRORS or status in MAY_PASS
            )
        if headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise ImageError("its server sends it in an encoding that was not asked for")
        length = headers.get("content-length", "")
        data = bytearray()
        if not (length.isdecimal() and int(length[:20]) > max_bytes):
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > max_bytes:
                    break
            else:
                return bytes(data)
        raise ImagesTooLargeError(max_bytes)


def _authorities() -> ssl.SSLContext:
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        raise ImageError(
            f"the authorities that SSL_CERT_FILE or SSL_CERT_DIR names to the worker cannot be read: {error}"
        ) from None
