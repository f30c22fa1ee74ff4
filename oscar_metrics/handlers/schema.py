"""Serves the OpenAPI document, and a page to browse it that loads nothing from elsewhere."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import msgspec
import yaml
from litestar import Request, Response
from litestar.exceptions import NotFoundException
from litestar.response import File

from oscar_metrics.handlers.accept import preferred
from oscar_metrics.handlers.openapi import document

AnyRequest = Request[Any, Any, Any]

_JSON, _YAML, _PAGE = "application/json", "application/yaml", "text/html"

# Our name of each file of the page, its name in the package that ships it, its type.
_SHIPPED = {
    "swagger-ui.js": ("swagger_bundle.js", "text/javascript"),
    "swagger-ui.css": ("swagger_style.css", "text/css"),
}
_START_SCRIPT = "start.js"
_START = b"""SwaggerUIBundle({
  url: "/schema/openapi.json",
  dom_id: "#page",
  deepLinking: true,
  validatorUrl: null,
});
"""
_HTML = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>OSCAR Metrics API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/schema/page/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="/schema/page/swagger-ui.js"></script>
<script src="/schema/page/start.js"></script>
</body>
</html>
"""
# The browser itself keeps the page from loading anything from elsewhere.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_CACHED = {"Cache-Control": "max-age=3600"}


class SchemaRoutes:
    """Answers /schema: JSON, YAML or the page, by address or by `Accept`."""

    def __init__(self, version: str) -> None:
        self._document = document(version)
        self._json = msgspec.json.encode(self._document)
        self._yaml: bytes | None = None

    async def negotiated(self, request: AnyRequest) -> Response[bytes]:
        """The page for a browser, YAML for who prefers it, JSON for everyone else."""
        wanted = preferred(request, [_JSON, _YAML, _PAGE])
        if wanted == _PAGE:
            headers = {"Content-Security-Policy": _POLICY, "Vary": "Accept"}
            return Response(content=_HTML, media_type=_PAGE, headers=headers)
        answer = self.as_yaml if wanted == _YAML else self.as_json
        response = await answer()
        response.headers["Vary"] = "Accept"
        return response

    async def as_json(self) -> Response[bytes]:
        """The document as JSON."""
        return Response(content=self._json, media_type=_JSON)

    async def as_yaml(self) -> Response[bytes]:
        """The document as YAML, written when it is first asked for."""
        if self._yaml is None:
            self._yaml = yaml.safe_dump(self._document, sort_keys=False).encode()
        return Response(content=self._yaml, media_type=_YAML)

    async def asset(self, request: AnyRequest) -> File | Response[bytes]:
        """A file the page is made of."""
        name = request.path_params["asset"]
        if name == _START_SCRIPT:
            return Response(content=_START, media_type="text/javascript", headers=_CACHED)
        if name not in _SHIPPED:
            raise NotFoundException
        file_name, media_type = _SHIPPED[name]
        return File(
            path=_package_directory() / file_name,
            media_type=media_type,
            content_disposition_type="inline",
            headers=_CACHED,
        )


def _package_directory() -> Path:
    """Where offapi's files are; it is not imported, which would read all nine megabytes."""
    spec = importlib.util.find_spec("offapi")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the package offapi is not installed")
    return Path(spec.submodule_search_locations[0])
