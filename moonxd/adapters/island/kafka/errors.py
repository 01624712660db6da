"""aiokafka's errors as ours."""

from __future__ import annotations

import os
import ssl

from aiokafka import errors

from ....domain.errors import ConfigError, MoonxdError, SinkBroken, Transient

#: The producer that met one of these lost its place in the sequence: the broker takes nothing more from it.
FATAL = (
    errors.ProducerFenced,
    errors.InvalidProducerEpoch,
    errors.OutOfOrderSequenceNumber,
    errors.UnknownProducerId,
    errors.InvalidProducerIdMapping,
    errors.ProducerClosed,
)
TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError, errors.RecordTooLargeError)
_REFUSED = (
    errors.AuthenticationFailedError,
    errors.SaslAuthenticationFailed,
    errors.AuthenticationMethodNotSupported,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
)
_FORBIDDEN = (
    errors.TopicAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
    errors.TransactionalIdAuthorizationFailed,
)


def mapped(error: BaseException, where: str) -> MoonxdError:
    """The error of ours that says what `error` means to whoever asked `where`; never a part of the credentials."""
    if isinstance(error, MoonxdError):
        return error
    if isinstance(error, TimeoutError):
        return Transient(f"{where} does not answer")
    if isinstance(error, _REFUSED):
        return ConfigError(
            f"{where} refuses the login ({type(error).__name__}): check kafka.username, kafka.password and "
            "kafka.sasl_mechanism"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConfigError(f"{where}: its certificate is not valid ({error.verify_message}): check kafka.tls_ca")
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno is not None:
        said = os.strerror(error.errno) if error.errno > 0 else error.strerror
        return Transient(f"{where} cannot be reached: {said}")
    if isinstance(error, FATAL):
        return SinkBroken(f"{where} takes nothing more from this producer ({type(error).__name__})")
    if isinstance(error, _FORBIDDEN):
        return Transient(f"{where} does not allow it ({_words(error)}): give the user the right to")
    if isinstance(error, errors.UnknownTopicOrPartitionError):
        return Transient(f"{where}: no word of this topic: create it, unless the brokers are away ({_words(error)})")
    return Transient(f"{where}: {_words(error)}")


def _words(error: BaseException) -> str:
    text, name = str(error), type(error).__name__
    return text if text.startswith(name) else f"{name}: {text}" if text else name
