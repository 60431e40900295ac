"""The tables of a results folder, in every version that FedGuard has written."""

from __future__ import annotations

#: The version of the tables, in SQLite's ``user_version``.
SCHEMA_VERSION = 10

#: The metrics that a version added; runs of the versions before do not have them.
ADDED = {
    4: (
        *("adacc", "afpr", "afnr", "benign_excluded", "ap", "tpr_at_1"),
        *("rounds_to_detection", "caught", "aoi", "state_bytes"),
    ),
    5: ("fpr_low_skew", "fpr_mid_skew", "fpr_high_skew"),
    6: ("dacc_active", "fnr_active", "auroc_active", "aar_active", "tacc_best"),
    7: ("loss", "diverged"),
    8: ("sent_bytes",),
    9: ("leak_psnr", "leak_ssim", "leak_labels", "noise_psnr", "noise_ssim", "frechet"),
}

#: The columns of each table in order, and the version since which a group of them exists.
_COLUMNS: dict[str, tuple[tuple[int, str], ...]] = {
    "meta": ((3, "name TEXT PRIMARY KEY, value TEXT"),),
    "runs": (
        (1, "run INTEGER PRIMARY KEY, key TEXT"),
        (4, "point TEXT, mode TEXT"),
        (1, "attack TEXT, defense TEXT, seed INTEGER, status TEXT, error TEXT"),
        (1, "clients INTEGER, malicious INTEGER, assumed_malicious INTEGER, rounds INTEGER, basis TEXT"),
        (1, "dacc REAL, fpr REAL, fnr REAL, tp REAL, fp REAL, tn REAL, fn REAL"),
        (4, "adacc REAL, afpr REAL, afnr REAL"),
        (1, "aar REAL"),
        (4, "benign_excluded REAL"),
        (5, "fpr_low_skew REAL, fpr_mid_skew REAL, fpr_high_skew REAL"),
        (1, "auroc REAL"),
        (4, "ap REAL, tpr_at_1 REAL, rounds_to_detection REAL, caught REAL, aoi REAL, state_bytes REAL"),
        (1, "tacc REAL, asr REAL"),
        (6, ", ".join(f"{name} REAL" for name in ADDED[6])),
        (7, ", ".join(f"{name} REAL" for name in ADDED[7])),
        (8, ", ".join(f"{name} REAL" for name in ADDED[8])),
        (9, ", ".join(f"{name} REAL" for name in ADDED[9])),
        (1, "settings TEXT"),
    ),
    "clients": (
        (1, "run INTEGER REFERENCES runs, round INTEGER, client INTEGER"),
        (2, "id TEXT"),
        (1, "malicious INTEGER"),
        (2, "attacking INTEGER"),
        (1, "participated INTEGER, score REAL, suspect INTEGER, weight REAL, banned INTEGER, reason TEXT"),
        (1, "PRIMARY KEY (run, round, client)"),
    ),
    "rounds": (
        (1, "run INTEGER REFERENCES runs, round INTEGER, tacc REAL, loss REAL, asr REAL, note TEXT"),
        (1, "info TEXT, PRIMARY KEY (run, round)"),
    ),
    "timings": (
        (1, "run INTEGER REFERENCES runs, part TEXT, seconds REAL"),
        (10, "peak_memory REAL"),  # of the part "total"
        (1, "PRIMARY KEY (run, part)"),
    ),
}


def tables(version: int) -> str:
    """The script that makes the tables of a version; readers compare its text, spaces included."""
    statements = []
    for table, groups in _COLUMNS.items():
        columns = ", ".join(text for since, text in groups if since <= version)
        if columns:
            pad = "" if table == "meta" else " "
            end = "" if table == "runs" else " WITHOUT ROWID"
            statements.append(f"CREATE TABLE {table} ({pad}{columns}{pad}){end};")
    return "\n".join(["BEGIN;", f"PRAGMA user_version = {version};", *statements, "COMMIT;"])
