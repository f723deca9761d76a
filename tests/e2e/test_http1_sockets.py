"""The HTTP/1.1 client over real sockets and TLS: what a scripted peer in memory cannot show. No descriptor is left."""

from __future__ import annotations

import datetime
import ipaddress
import math
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.conftest import open_descriptors
from vmcp_actors.transports.http1 import HttpConnection
from vmcp_actors.transports.http1_messages import ConnectFailed, ConnectionBroken
from vmcp_actors.transports.origin import Origin, parse_url
from vmcp_actors.transports.pool import HttpPool, PoolStatistics

pytestmark = pytest.mark.e2e

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


async def fetch(pool: HttpPool) -> bytes:
    response = await pool.request("GET", "/")
    return await response.read(1 << 20)


@asynccontextmanager
async def loopback() -> AsyncIterator[tuple[trio.SocketListener, HttpPool]]:
    """A listening socket that nobody serves, and a pool for it."""
    descriptors = open_descriptors()
    with trio.fail_after(20):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        async with listener, HttpPool(parse_url(f"http://127.0.0.1:{port}/")[0]) as pool:
            yield listener, pool
    assert open_descriptors() <= descriptors


async def serve_one(listener: trio.SocketListener, answer: bytes = OK) -> trio.SocketStream:
    stream = await listener.accept()
    await stream.receive_some()
    await stream.send_all(answer)
    return stream


async def first_exchange(listener: trio.SocketListener, pool: HttpPool) -> trio.SocketStream:
    server: list[trio.SocketStream] = []

    async def serve() -> None:
        server.append(await serve_one(listener))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        assert await fetch(pool) == b"hi"
    return server[0]


async def test_kept_connection_that_the_peer_closed_is_replaced_silently() -> None:
    async with loopback() as (listener, pool):
        server = await first_exchange(listener, pool)
        await server.aclose()
        server = await first_exchange(listener, pool)
        assert pool.statistics() == PoolStatistics(opened=2, reused=0, idle=1, active=0)
        await server.aclose()
        assert pool.prune() == 1


async def test_kept_connection_with_unsolicited_bytes_is_replaced_silently() -> None:
    async with loopback() as (listener, pool):
        async with await first_exchange(listener, pool) as server:
            await server.send_all(OK)
            async with await first_exchange(listener, pool):
                assert pool.statistics() == PoolStatistics(opened=2, reused=0, idle=1, active=0)


async def test_kept_connection_is_used_again_over_tcp() -> None:
    async with loopback() as (listener, pool), await first_exchange(listener, pool) as server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_again, server)
            assert await fetch(pool) == b"hi"
        assert pool.statistics() == PoolStatistics(opened=1, reused=1, idle=1, active=0)


async def answer_again(server: trio.SocketStream) -> None:
    await server.receive_some()
    await server.send_all(OK)


async def test_kept_connection_that_accepts_nothing_is_replaced_after_the_send_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with loopback() as (listener, pool):
        server = await first_exchange(listener, pool)
        reset(server)
        # As if the reset came between the check and the send.
        monkeypatch.setattr(HttpConnection, "is_stale", lambda self: False)
        async with await first_exchange(listener, pool):
            assert pool.statistics().opened == 2


def reset(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def test_connection_that_breaks_after_the_request_is_not_retried() -> None:
    async with loopback() as (listener, pool), trio.open_nursery() as nursery:

        async def serve() -> None:
            stream = await listener.accept()
            await stream.receive_some()
            reset(stream)

        nursery.start_soon(serve)
        with pytest.raises(ConnectionBroken, match="connection reset by peer") as caught:
            await fetch(pool)
        assert caught.value.request_sent
        assert pool.statistics() == PoolStatistics(opened=1, reused=0, idle=0, active=0)


async def test_kept_connection_that_breaks_after_the_request_is_not_retried() -> None:
    async with loopback() as (listener, pool):
        server = await first_exchange(listener, pool)
        async with trio.open_nursery() as nursery:

            async def hang_up() -> None:
                await server.receive_some()
                await server.aclose()

            nursery.start_soon(hang_up)
            with pytest.raises(ConnectionBroken, match="closed without an answer") as caught:
                await fetch(pool)
        assert caught.value.request_sent
        assert pool.statistics() == PoolStatistics(opened=1, reused=1, idle=0, active=0)


async def test_large_request_and_answer_over_tcp() -> None:
    body = b"x" * 5_000_000
    async with loopback() as (listener, pool), trio.open_nursery() as nursery:

        async def echo_length() -> None:
            async with await listener.accept() as stream:
                received = b""
                while not received.endswith(b"x" * 10) or len(received) < len(body):
                    received += await stream.receive_some()
                await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

        nursery.start_soon(echo_length)
        response = await pool.request("POST", "/", body=body)
        assert await response.read(len(body)) == body


async def test_cancelling_while_sending_a_large_request() -> None:
    async with loopback() as (_, pool):
        with trio.move_on_after(0.05) as scope:
            await pool.request("POST", "/", body=b"x" * 50_000_000)
        assert scope.cancelled_caught
        assert pool.statistics().active == 0


async def test_closing_the_pool_ends_a_request_over_tcp() -> None:
    async with loopback() as (_, pool), trio.open_nursery() as nursery:

        async def expect_end() -> None:
            with pytest.raises(ConnectionBroken, match="closed on our side"):
                await pool.request("GET", "/")

        nursery.start_soon(expect_end)
        while not pool.statistics().active:  # what happens in the kernel sets no event
            await trio.sleep(0.001)
        await trio.testing.wait_all_tasks_blocked()
        pool.close()


async def test_connection_refused() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port
        async with HttpPool(Origin("http", "127.0.0.1", reserved.getsockname()[1])) as pool:
            with pytest.raises(ConnectFailed, match=r"^connection refused$"):
                await pool.request("GET", "/")


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PEM file with a key and its self-signed certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "loopback.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return str(path)


async def tls_pool_and_listener(
    certificate: str, *, trusted: bool
) -> tuple[HttpPool, trio.SSLListener[trio.SocketStream]]:
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(certificate)
    (listener,) = await trio.open_ssl_over_tcp_listeners(0, server_side, host="127.0.0.1", https_compatible=True)
    assert isinstance(listener.transport_listener, trio.SocketListener)
    origin = Origin("https", "127.0.0.1", listener.transport_listener.socket.getsockname()[1])
    context = ssl.create_default_context(cafile=certificate) if trusted else None
    return HttpPool(origin, ssl_context=context), listener


async def test_kept_connection_over_tls(certificate: str) -> None:
    pool, listener = await tls_pool_and_listener(certificate, trusted=True)

    async def serve() -> None:
        stream = await listener.accept()
        for _ in range(2):
            await stream.receive_some()
            await stream.send_all(OK)
        await stream.aclose()
        await listener.aclose()

    with trio.fail_after(20):
        async with pool, trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            assert await fetch(pool) == b"hi"
            assert await fetch(pool) == b"hi"
            assert pool.statistics() == PoolStatistics(opened=1, reused=1, idle=1, active=0)
            while not pool.prune():  # what happens in the kernel sets no event
                await trio.sleep(0.01)


async def test_certificate_that_nobody_signed(certificate: str) -> None:
    pool, listener = await tls_pool_and_listener(certificate, trusted=False)

    async def serve() -> None:
        stream = await listener.accept()
        with pytest.raises(trio.BrokenResourceError):
            await stream.do_handshake()
        await trio.aclose_forcefully(stream)
        await listener.aclose()

    with trio.fail_after(20):
        async with pool, trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            with pytest.raises(ConnectFailed, match=r"^certificate not trusted: self-signed certificate$"):
                await pool.request("GET", "/")


async def test_server_that_does_not_speak_tls() -> None:
    with trio.fail_after(20):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener, trio.open_nursery() as nursery:

            async def serve() -> None:
                async with await serve_one(listener, b"HTTP/1.1 400 Bad Request\r\n\r\n"):
                    pass

            nursery.start_soon(serve)
            origin = Origin("https", "127.0.0.1", listener.socket.getsockname()[1])
            async with HttpPool(origin, connect_timeout=math.inf) as pool:
                with pytest.raises(ConnectFailed, match=r"^TLS failed: "):
                    await pool.request("GET", "/")
