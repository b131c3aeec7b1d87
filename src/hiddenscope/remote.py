"""Runs in object stores: there are no folders to walk through, so the store is asked for what begins alike."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from hiddenscope.locations import Location, open_repository, run_name

_DEEPEST = 6  # parts of an address below the one that is asked for
_MOST_PREFIXES = 5_000


def remote_candidates(place: Location) -> Iterator[tuple[Location, str]]:
    """Every run at an address, right below it, and, where boto3 is installed to list it, anywhere below.

    Yields:
        The run's own address, and a name for it.
    """
    for location in (place, place / "hiddenscope"):
        if open_repository(location / "snapshots") is not None:
            yield location, run_name(location)
            return
    if place.scheme == "s3":
        bucket, _, prefix = place.path.partition("/")
        for found in _runs_below(place, bucket, prefix.strip("/")):
            location = Location(place.scheme, f"{bucket}/{found}", place.options)
            if open_repository(location / "snapshots") is not None:
                named = found.removesuffix("/hiddenscope").removeprefix(prefix.strip("/")).strip("/")
                yield location, named or run_name(location)


def can_list() -> bool:
    """Whether what lists object stores is installed."""
    try:
        import boto3  # noqa: F401
    except ImportError:
        return False
    return True


def _runs_below(place: Location, bucket: str, prefix: str) -> Iterator[str]:
    """Prefixes that have ``snapshots/`` below, breadth first."""
    if not can_list():
        return
    client = _client(place)
    waiting, asked = [f"{prefix}/" if prefix else ""], 0
    for _ in range(_DEEPEST):
        below: list[str] = []
        for start in waiting:
            asked += 1
            if asked > _MOST_PREFIXES:
                return
            parts = _parts_below(client, bucket, start)
            if f"{start}snapshots/" in parts:
                yield start.rstrip("/")
            else:
                below += parts
        waiting = below


def _parts_below(client: Any, bucket: str, start: str) -> list[str]:
    from botocore.exceptions import BotoCoreError, ClientError

    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start, Delimiter="/")
    try:
        return [str(part["Prefix"]) for page in pages for part in page.get("CommonPrefixes", [])]
    except (BotoCoreError, ClientError) as error:
        raise OSError(f"s3://{bucket}/{start} cannot be listed ({error})") from error


def _client(place: Location) -> Any:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    options = place.options
    endpoint = options.get("endpoint_url") or os.environ.get("AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL"))
    style = {"addressing_style": "path"} if endpoint or options.get("force_path_style") else {}
    config = Config(s3=style, signature_version=UNSIGNED) if options.get("anonymous") else Config(s3=style)
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=options.get("region"),
        aws_access_key_id=options.get("access_key_id"),
        aws_secret_access_key=options.get("secret_access_key"),
        aws_session_token=options.get("session_token"),
        config=config,
    )
