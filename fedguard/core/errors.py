"""Every error that FedGuard raises on purpose: what was wrong, where, and what to do."""

from __future__ import annotations


class FedGuardError(Exception):
    """Base class; the command line prints its message without a traceback.

    Attributes:
        key: the setting of a suite that the error is about, where that is known.
    """

    key: str | None = None


class RoundError(FedGuardError, ValueError):
    """A round is malformed: shapes, ids or counts do not fit together."""


class TooFewClientsError(RoundError):
    """A method needs more clients than this round has."""


class StreamedError(RoundError):
    """A method asks for all updates at once, but they are streamed from disk."""


class ParameterError(FedGuardError, ValueError):
    """A parameter of a detector, attack, policy or aggregator is unknown or out of range."""


class NeedError(FedGuardError, ValueError):
    """A method needs something that the server does not have (say, validation data)."""


class RegistryError(FedGuardError, ValueError):
    """A name is unknown, taken twice, or names a class that breaks its contract."""


class ContractError(FedGuardError, RuntimeError):
    """A method returned something that breaks its contract."""


class DetectorError(ContractError):
    """A detector returned scores that break the contract."""


class KnowledgeError(FedGuardError, RuntimeError):
    """An attack reached for knowledge that it does not declare."""


class ConfigError(FedGuardError, ValueError):
    """A suite or an override is wrong; the message names the file, line and key path."""


class DataError(FedGuardError, OSError):
    """A data set cannot be read."""


class ResultsError(FedGuardError, OSError):
    """A results folder is missing, taken or of another version."""


class LedgerError(FedGuardError, OSError):
    """A ledger's file cannot be read or written, or is no ledger; the message says what to do."""


class SecureAggregationError(FedGuardError, RuntimeError):
    """Secure aggregation hides the individual updates: there is nothing that a guard could judge."""
