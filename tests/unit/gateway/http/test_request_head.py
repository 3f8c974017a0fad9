from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openworks.gateway.http.request_head import HeadWriter, host_header
from openworks.ports.upstream import Headers, Origin, UpstreamError, UpstreamRequest

ORIGIN = Origin(scheme="https", host="provider.test", port=443)


def request(
    method: bytes = b"POST",
    target: bytes = b"/v1",
    headers: Headers | None = None,
    body: bytes = b"{}",
) -> UpstreamRequest:
    return UpstreamRequest(
        origin=ORIGIN, method=method, target=target, headers=headers or [], body=body
    )


class Seen:
    """What a server makes of some bytes."""

    def __init__(self, sent: bytes) -> None:
        self.url = b""
        self.headers: Headers = []
        self.body = b""
        self.messages = 0
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(sent)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.messages += 1


def test_head_is_one_request_with_our_framing() -> None:
    head = HeadWriter().write(request(headers=[(b"x-a", b"1"), (b"x-a", b"")]), b"provider.test")
    assert head == (
        b"POST /v1 HTTP/1.1\r\nhost: provider.test\r\nx-a: 1\r\nx-a: \r\ncontent-length: 2\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (Origin(scheme="https", host="a.test", port=443), b"a.test"),
        (Origin(scheme="http", host="a.test", port=443), b"a.test:443"),
        (Origin(scheme="http", host="::1", port=80), b"[::1]"),
        (Origin(scheme="http", host="::1", port=8080), b"[::1]:8080"),
    ],
)
def test_host_names_the_port_only_where_the_scheme_does_not(origin: Origin, host: bytes) -> None:
    assert host_header(origin) == host


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(UpstreamError, match=str(port)):
        host_header(Origin(scheme="http", host="a.test", port=port))


some_bytes = st.binary(max_size=12) | st.sampled_from(
    [b"x-a", b"\r\n", b"a\r\nb: c", b"a: b", b"host", b"Transfer-Encoding", b"GET", b"/a", b"a\0b"]
)


@given(
    method=st.sampled_from([b"GET", b"POST", b"DELETE"]) | some_bytes,
    target=st.just(b"/a?b=c") | some_bytes,
    headers=st.lists(st.tuples(some_bytes, some_bytes), max_size=4),
    body=st.binary(max_size=20),
)
def test_whatever_is_asked_a_server_sees_that_one_request_or_nothing(
    method: bytes, target: bytes, headers: Headers, body: bytes
) -> None:
    try:
        head = HeadWriter().write(request(method, target, headers, body), b"provider.test")
    except UpstreamError:
        return
    assert head.count(b"\r\n\r\n") == 1
    assert head.startswith(b"%b %b HTTP/1.1\r\n" % (method, target))
    lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert not any(b"\n" in line or b"\r" in line or b"\0" in line for line in lines)
    framing = [lines[1], *lines[2 + len(headers) :]]
    assert framing[0] == b"host: provider.test"
    assert framing[1:] in ([], [b"content-length: %d" % len(body)])
    assert lines[2 : 2 + len(headers)] == [name + b": " + value for name, value in headers]
    ours = {b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"}
    assert not ours & {name.lower() for name, _ in headers}


@given(values=st.lists(st.binary(min_size=1, max_size=20), max_size=4), body=st.binary(max_size=20))
def test_parser_reads_back_what_was_written(values: list[bytes], body: bytes) -> None:
    allowed = [bytes(c for c in value if c > 32 and c != 127) for value in values]
    headers = [(b"x-%d" % i, value) for i, value in enumerate(allowed) if value]
    head = HeadWriter().write(request(headers=headers, body=body), b"provider.test")
    seen = Seen(head + body)
    assert seen.messages == 1
    assert (seen.url, seen.body) == (b"/v1", body)
    assert [header for header in seen.headers if header[0].startswith(b"x-")] == headers


def test_names_remembered_are_bounded_and_checked_beyond() -> None:
    writer = HeadWriter()
    for i in range(3000):
        writer.write(request(headers=[(b"x-%d" % i, b"1")]), b"provider.test")
    with pytest.raises(UpstreamError):
        writer.write(request(headers=[(b"x 3000", b"1")]), b"provider.test")
    assert b"x-2999: 1" in writer.write(request(headers=[(b"x-2999", b"1")]), b"provider.test")
