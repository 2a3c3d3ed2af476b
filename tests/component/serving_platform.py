"""Prints, as JSON, what `gateway.serving` needs of Daphne and Twisted, name by name, and whether each tuning took effect.

A process of its own: which loop Twisted runs on is decided once, at its first import.
"""

import gc
import inspect
import json
import time

from gateway.serving.server import Factory, Server, reactor

# isort: split
# What follows imports Twisted; the line above must be the first to.
import daphne.http_protocol
import daphne.server
import twisted.internet.abstract
import twisted.internet.tcp
import twisted.web.http

from gateway.serving import tuning
from gateway.serving.connection import Connection
from gateway.serving.request import Request

NEEDED = {
    twisted.web.http.HTTPChannel: (
        "connectionMade dataReceived lineReceived rawDataReceived allHeadersReceived allContentReceived requestDone"
        " loseConnection connectionLost resumeProducing lineLengthExceeded clearLineBuffer timeOut"
        " _respondToBadRequestAndDisconnect _finishRequestBody"
        " _optimisticEagerReadSize _waitingForTransport _receivedHeaderSize _receivedHeaderCount"
        " totalHeadersSize maxHeaders persistent length requestFactory"
    ),
    twisted.web.http.Request: "gotLength handleContentChunk process write finish finished _disconnected setResponseCode",
    twisted.web.http.HTTPFactory: "buildProtocol log startFactory stopFactory",
    daphne.http_protocol.WebRequest: "process basic_error send_disconnect finish connectionLost",
    daphne.server.Server: "create_application protocol_connected protocol_disconnected",
    twisted.internet.tcp.Port: "doRead stopListening transport",
    twisted.internet.tcp.Server: "doRead abortConnection dataBuffer loseWriteConnection resumeProducing loseConnection",
}
OURS = {
    Connection: twisted.web.http.HTTPChannel,
    Request: daphne.http_protocol.WebRequest,
    Factory: twisted.web.http.HTTPFactory,
}


def facts() -> dict[str, bool]:
    found = {
        f"{owner.__module__}.{owner.__name__}.{name}": hasattr(owner, name)
        for owner, names in NEEDED.items()
        for name in names.split()
    }
    found |= {f"{ours.__name__} extends {theirs.__module__}": issubclass(ours, theirs) for ours, theirs in OURS.items()}
    source = inspect.getsource
    found["a channel keeps its producer in _networkProducer"] = "_networkProducer" in source(
        twisted.web.http.HTTPChannel
    )
    found["a channel keeps the version in _version"] = "self._version =" in source(twisted.web.http.HTTPChannel)
    found["a transport counts what it has not joined yet in _tempDataLen"] = "self._tempDataLen +=" in source(
        twisted.internet.abstract.FileDescriptor
    )
    found["a malformed chunk is an exception that ends the reading"] = "except _MalformedChunkedDataError" in source(
        twisted.web.http.HTTPChannel.rawDataReceived
    )
    found["what comes ahead of its turn waits in _dataBuffer while _handlingRequest"] = all(
        name in source(twisted.web.http.HTTPChannel.requestDone) for name in ("_dataBuffer", "_handlingRequest")
    )
    found["a port accepts up to numberAccepts"] = "self.numberAccepts" in source(twisted.internet.tcp.Port.doRead)
    found["a finished request calls factory.log"] = "factory.log(" in source(twisted.web.http.Request.finish)
    found["the access log is off"] = Factory.log is not twisted.web.http.HTTPFactory.log
    found["forms can be left alone"] = (
        "parsePOSTFormSubmission" in inspect.signature(twisted.web.http.Request).parameters
    )
    found["Daphne reads the body in pieces of request_buffer_size"] = "request_buffer_size" in source(
        daphne.http_protocol.WebRequest
    )
    found["Daphne's sweep of finished requests is never started"] = "application_checker" not in source(Server)
    found["Daphne takes its application's messages from create_application"] = "put_nowait" in source(
        daphne.http_protocol.WebRequest
    )
    tuning.use_monotonic_time(reactor)
    call = reactor.callLater(3600, print)
    found["timers run on monotonic time"] = abs(call.getTime() - time.monotonic() - 3600) < 60
    call.cancel()
    tuning.relax_garbage_collection()
    found["the garbage collector rests"] = gc.get_threshold() == (50_000, 20, 20) and gc.get_freeze_count() > 10_000
    found["the loop is uvloop"] = type(tuning.loop_of(reactor)).__module__.startswith("uvloop")
    return found


if __name__ == "__main__":
    print(json.dumps(facts()))
