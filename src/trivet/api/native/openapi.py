"""The OpenAPI 3.1 document, made from the route tables and the shapes themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from trivet.api.native.route import Route
from trivet.client.schema import Problem, Progress

REF = "#/components/schemas/{name}"


def document(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """Describe every route; shapes become components."""
    routes = list(routes)
    shapes = [shape for route in routes for shape in (route.body, route.answer) if shape is not None]
    schemas, components = msgspec.json.schema_components([Problem, Progress, *shapes], ref_template=REF)
    by_shape = dict(zip(map(repr, [Problem, Progress, *shapes]), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_shape)
    return {
        "openapi": "3.1.0",
        "info": {"title": "trivet", "version": version},
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(route: Route, by_shape: dict[str, dict[str, Any]]) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": route.summary, "responses": _responses(route, by_shape)}
    parameters = [_parameter(name, "path", True) for name in re.findall(r"{(\w+)}", route.path)]
    parameters += [_parameter(name, "query", False) for name in route.query]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        content = {"application/json": {"schema": by_shape[repr(route.body)]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameter(name: str, place: str, required: bool) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "schema": {"type": "string"}}


def _responses(route: Route, by_shape: dict[str, dict[str, Any]]) -> dict[str, Any]:
    schema = by_shape[repr(route.answer)] if route.answer is not None else {}
    if route.stream == "trivet-stream":
        good: dict[str, Any] = {"101": {"description": "frames, see docs/launch.md"}}
    elif route.answer is not None or route.stream:
        good = {"200": {"description": "done", "content": {route.stream or "application/json": {"schema": schema}}}}
    else:
        good = {"204": {"description": "done"}}
    problem = {"application/problem+json": {"schema": by_shape[repr(Problem)]}}
    return {**good, "default": {"description": "what went wrong", "content": problem}}
