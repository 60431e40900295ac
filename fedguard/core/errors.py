"""The exceptions of FedGuard. Their messages say what was wrong, where, and what to do."""

from __future__ import annotations


class FedGuardError(Exception):
    """Base class; the command line prints its message without a traceback.

    Attributes:
        key: the setting of a suite that caused the error, if known.
    """

    key: str | None = None


class RoundError(FedGuardError, ValueError):
    """A round is malformed: shapes, ids or counts do not match."""


class TooFewClientsError(RoundError):
    """A method needs more clients than this round has."""


class StreamedError(RoundError):
    """A method needs all updates at once, but they are streamed from disk."""


class ParameterError(FedGuardError, ValueError):
    """A parameter of a detector, attack, policy or aggregator is unknown or out of range."""


class NeedError(FedGuardError, ValueError):
    """A method needs something that the server does not have (for example validation data)."""


class RegistryError(FedGuardError, ValueError):
    """A name is unknown, registered twice, or names a class that breaks its contract."""


class ContractError(FedGuardError, RuntimeError):
    """A method returned something that breaks its contract."""


class DetectorError(ContractError):
    """A detector returned scores that break the contract."""


class KnowledgeError(FedGuardError, RuntimeError):
    """An attack used knowledge that it does not declare."""


class ConfigError(FedGuardError, ValueError):
    """A suite or an override is wrong; the message names the file, line and key path."""


class DataError(FedGuardError, OSError):
    """A data set cannot be read."""


class ResultsError(FedGuardError, OSError):
    """A results folder is missing, already in use or of another version."""


class WorkerError(FedGuardError, RuntimeError):
    """A worker or a node died; the same command resumes from the last checkpoints."""


class LedgerError(FedGuardError, OSError):
    """A ledger's file cannot be read or written, or is not a ledger."""


class SecureAggregationError(FedGuardError, RuntimeError):
    """Secure aggregation hides the individual updates, so a guard cannot judge them."""


class RunsFailed(FedGuardError, RuntimeError):  # noqa: N818 - what happened, as KeyboardInterrupt
    """Runs of a suite failed; the others are finished and stored.

    Attributes:
        results: the results of all runs, the failed ones in ``results.failures``.
    """

    results: object = None
