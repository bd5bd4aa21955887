"""Another S3 server behind the bucket of the tests, named by REPRISE_TEST_S3_URL.

The tests watch and spoil requests on their way, so they speak to a front on loopback; it hands them on as
they came, Host included, because that is what the client signed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

URL_VARIABLE = "REPRISE_TEST_S3_URL"
_OWN_TO_A_CONNECTION = {"connection", "keep-alive", "transfer-encoding"}


def forwarding_to(url: str) -> Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]:
    """A WSGI app that passes every request on."""
    place = urlsplit(url)

    def forward(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        connection = HTTPConnection(place.hostname or "", place.port or 80, timeout=30)
        try:
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            verb, target = environ["REQUEST_METHOD"], environ["REQUEST_URI"]
            connection.putrequest(verb, target, skip_host=True, skip_accept_encoding=True)
            for name, value in environ.items():
                if name.startswith("HTTP_"):
                    connection.putheader(name.removeprefix("HTTP_").replace("_", "-"), value)
            if environ.get("CONTENT_TYPE"):
                connection.putheader("Content-Type", environ["CONTENT_TYPE"])
            if "CONTENT_LENGTH" in environ:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            answer = connection.getresponse()
            headers = [pair for pair in answer.getheaders() if pair[0].lower() not in _OWN_TO_A_CONNECTION]
            content = answer.read()
        finally:
            connection.close()
        start(f"{answer.status} {answer.reason}", headers)
        return [content]

    return forward


def emptied_bucket(url: str, name: str, *, key: str, secret: str) -> Any:
    """A client of the server, with an empty bucket of that name there."""
    import boto3

    client = boto3.client(
        "s3", endpoint_url=url, aws_access_key_id=key, aws_secret_access_key=secret, region_name="eu-west-1"
    )
    with suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
        client.create_bucket(Bucket=name)
    for each in client.list_objects_v2(Bucket=name).get("Contents", []):
        client.delete_object(Bucket=name, Key=each["Key"])
    return client
