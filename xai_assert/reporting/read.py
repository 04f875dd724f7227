"""Reading results.json: what is wrong with a file is said in a sentence that names it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xai_assert.errors import DataError, GatesError
from xai_assert.reporting.results import SCHEMA


def read_results(path: str | Path) -> dict[str, Any]:
    """The content of a results.json, of an interrupted run too.

    Raises:
        DataError: the file cannot be read, is cut off, or is of another schema.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"results {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise DataError(f"results {path} is no JSON: {error}") from None
    return check_results(content, path)


def check_results(content: Any, name: str | Path) -> dict[str, Any]:
    """The same content, if it is that of a results.json; `name` is for the error.

    >>> check_results({"schema": 1, "complete": True, "cells": []}, "results.json")["cells"]
    []
    """
    if (
        not isinstance(content, Mapping)
        or content.get("schema") != SCHEMA
        or not isinstance(content.get("cells"), list)
    ):
        found = f" but {content['schema']!r}" if isinstance(content, Mapping) and "schema" in content else ""
        raise DataError(f"results {name}: not a results.json of schema {SCHEMA}{found}")
    return dict(content)


def check_complete(content: Mapping[str, Any], name: str | Path, use: str) -> None:
    """Refuse an interrupted run.

    Raises:
        DataError: `complete` is not true.
    """
    with as_written(name):
        if not content["complete"]:
            raise DataError(f"results {name} is of an interrupted run; {use} a complete one")


@contextmanager
def as_written(*names: str | Path) -> Iterator[None]:
    """Say which file it is, where something inside stumbles over an entry that the suites do not write.

    Raises:
        DataError: in place of what Python says of a missing key or a wrong type.
    """
    files = ", ".join(map(str, names))
    try:
        yield
    except (GatesError, DataError):
        raise
    except KeyError as error:
        raise DataError(f"results {files}: an entry lacks {error}; run the suites again") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"results {files}: not as the suites write them ({error})") from None
