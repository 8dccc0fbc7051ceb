"""Requests and answers of the service: what is parsed, what is sent, and what OpenAPI says."""

import json
from typing import (
    Annotated,
    Any,
    NotRequired,  # pydantic asks for these before Python 3.12
)

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from typing_extensions import TypedDict

_THRESHOLD = {
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": 1},
        {"type": "array", "items": {"type": "number"}},
        {"type": "object", "additionalProperties": {"type": "number"}},
        {"type": "null"},
    ]
}


class ClassifyOptions(BaseModel):
    """Options of a request."""

    model_config = ConfigDict(extra="forbid", strict=True)

    threshold: Annotated[Any, WithJsonSchema(_THRESHOLD)] = Field(
        None,
        description="score above which a label is reported: a number; one per label; or numbers by"
        ' class id or label, with "default" for all others. Null: the model\'s',
    )
    visualize: bool | None = Field(None, description="answer with a picture too")
    explain: bool | None = Field(
        None,
        description="say for each label where the model looked, or what it hangs on, by masking",
    )


class _Image(BaseModel):
    image: str = Field(description="base64 of an image file, a data: URI, or a URL if allowed")


class ClassifyRequest(ClassifyOptions, _Image):  # fields of the last base come first
    """A request in JSON."""


class ClassifyRequests(ClassifyOptions):
    """A request in JSON about several images."""

    images: list[str] = Field(description="several in the place of `image`, each as it is there")


class Category(TypedDict):  # a dict: an answer may hold thousands, and objects take twice as long
    """A label found."""

    id: int
    name: str
    score: float
    evidence: NotRequired[list[list[float]]]  # if asked for: how far each place spoke for it


class ClassifyResult(BaseModel):
    """The labels found in an image, by falling score."""

    categories: list[Category]
    image: str | None = Field(description="if asked for: a JPEG with the labels, in base64")


class ClassifyResults(BaseModel):
    """The labels found in each of several images, in their order."""

    images: list[ClassifyResult]


class Status(BaseModel):
    """An answer without a result: an error, or that all is well."""

    logId: str = Field(description="by which the server's log names the request")  # noqa: N815
    errorCode: int = Field(description="0, or the HTTP status of an error")  # noqa: N815
    errorMsg: str  # noqa: N815 - these three as in PaddleX


class Health(Status):
    """The server lives."""

    status: str  # as Label Studio knows it


class Answer(Status):
    """A result."""

    result: ClassifyResult | ClassifyResults


ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": Status, "description": "The server has a key, and this request has another"},
    408: {"model": Status, "description": "The body did not arrive in time"},
    413: {"model": Status, "description": "The body is too large"},
    422: {"model": Status, "description": "The request is at fault; errorMsg says how"},
    500: {"model": Status, "description": "A fault of the server; its log has the logId"},
    503: {"model": Status, "description": "Full, draining or not warm: see Retry-After"},
    504: {"model": Status, "description": "No answer in time"},
}

ADDRESS = "http://localhost:8080/"  # of the server in examples
ENDPOINT = "/multilabel-image-classification"

_EXAMPLE = {  # a yellow square on blue
    "image": "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQAQMAAAAlPW0iAAAABlBMVEU8eMjwtCisXKNoAAAA"
    "FElEQVR42mNgQAL8H5gYGDARMgAAI20BDofI/jkAAAAASUVORK5CYII=",
    "threshold": 0.3,
}
_EXAMPLE_ANSWER = Answer(
    logId="6519207c-d8ba-4673-b4cb-fb4fba51e5d4",
    errorCode=0,
    errorMsg="Success",
    result=ClassifyResult(categories=[Category(id=5, name="cat", score=0.99428)], image=None),
)
_URL = ADDRESS.removesuffix("/") + ENDPOINT
_COMMANDS = {
    "application/json": f"curl {_URL} -H 'Content-Type: application/json' \\\n"
    f"  -d '{json.dumps(_EXAMPLE)}'",
    "multipart/form-data": f"curl {_URL} -F file=@cat.jpg -F threshold=0.3",
    "image/*": f"curl '{_URL}?threshold=0.3' -H 'Content-Type: image/jpeg' \\\n"
    "  --data-binary @cat.jpg",
}


def describe_classify() -> dict[str, Any]:
    """Return OpenAPI's description of `ENDPOINT`: the forms of a request, and examples."""
    options = ClassifyOptions.model_json_schema()["properties"]
    file = {"type": "string", "format": "binary", "description": "an image file"}
    form = {"type": "object", "required": ["file"], "properties": {"file": file, **options}}
    question = ClassifyRequest.model_json_schema()
    question["properties"] |= ClassifyRequests.model_json_schema()["properties"]
    question["oneOf"] = [{"required": [name]} for name in ("image", "images")]
    question["required"] = []
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": question,
                    "example": _EXAMPLE,
                },
                "multipart/form-data": {"schema": form},
                "image/*": {"schema": file},
            },
        },
        "parameters": [
            {"name": name, "in": "query", "schema": schema, "description": "with image/* only"}
            for name, schema in options.items()
        ],
        "x-codeSamples": [
            *(
                {"lang": "Shell", "label": kind, "source": command}
                for kind, command in _COMMANDS.items()
            ),
            {"lang": "JSON", "label": "200", "source": _EXAMPLE_ANSWER.model_dump_json(indent=2)},
        ],
    }
