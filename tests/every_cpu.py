"""Run tests as on other CPUs: every OpenBLAS core type, and every instruction set of torch and NumPy.

``make test-cpus`` runs the golden and contract tests; ``python3 dev.py test-cpus PYTEST-ARGUMENTS`` any
others. The linear algebra library is forced to one type at a time, then the instruction set; combinations
that this CPU cannot run are left out. One line each; the exit status is 1 if any is red.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUBSET = ["tests/aggregators", "tests/attacks", "tests/detectors", "tests/geometry", "tests/stages"]
SUBSET += ["tests/testing/test_checks.py"]

AVX512 = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}
#: OpenBLAS core type → the flags of /proc/cpuinfo that it needs.
CORES: dict[str, set[str]] = {
    "Prescott": {"pni"},
    "Core2": {"ssse3"},
    "Nehalem": {"sse4_2"},
    "Sandybridge": {"avx"},
    "Haswell": {"avx2", "fma"},
    "Zen": {"avx2", "fma"},
    "SkylakeX": AVX512,
    "Cooperlake": AVX512 | {"avx512_bf16"},
    "SapphireRapids": AVX512 | {"avx512_bf16", "avx512_fp16", "amx_tile"},
}
#: What ATEN_CPU_CAPABILITY may be → the flags it needs, and the names of oneDNN and MKL for it.
SETS: dict[str, tuple[set[str], str, str]] = {
    "default": (set(), "SSE41", "SSE4_2"),
    "avx2": ({"avx2", "fma"}, "AVX2", "AVX2"),
    "avx512": (AVX512, "AVX512_CORE", "AVX512"),
}
PROBE = """
import json, warnings
import numpy, scipy.linalg, torch
from numpy._core import _multiarray_umath as umath
from threadpoolctl import threadpool_info
blas = sorted({p["architecture"] for p in threadpool_info() if p.get("internal_api") == "openblas"})
fast = [f for f in umath.__cpu_dispatch__ if umath.__cpu_features__.get(f)]
print(json.dumps([blas, torch.backends.cpu.get_cpu_capability().lower(), fast]))
"""


def flags() -> set[str]:
    """What this CPU can do, as Linux names it; nothing is known elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return {flag for line in lines if line.startswith("flags") for flag in line.partition(":")[2].split()}


def probe(env: dict[str, str]) -> tuple[list[str], str, list[str]]:
    """The core types that OpenBLAS took, torch's capability, NumPy's instruction sets beyond the baseline."""
    command = [sys.executable, "-c", PROBE]
    found = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    blas, capability, features = json.loads(found)
    return blas, capability, features


def machines(usual: dict[str, str], able: set[str]) -> list[tuple[str, dict[str, str]]]:
    """Names and environments of the CPUs that this one can pretend to be."""
    found = [("as it is", usual)]
    found += [
        (f"OpenBLAS {core}", {**usual, "OPENBLAS_CORETYPE": core})
        for core, needed in CORES.items()
        if needed <= able
    ]
    fast = probe(usual)[2]
    for name, (needed, onednn, mkl) in SETS.items():
        if needed <= able:
            slower = [f for f in fast if name == "default" or (name == "avx2" and _beyond_avx2(f))]
            env = {"ATEN_CPU_CAPABILITY": name, "ONEDNN_MAX_CPU_ISA": onednn, "MKL_ENABLE_INSTRUCTIONS": mkl}
            if slower:
                env["NPY_DISABLE_CPU_FEATURES"] = " ".join(slower)
            found.append((f"torch and NumPy {name}", {**usual, **env}))
    return found


def _beyond_avx2(feature: str) -> bool:
    return feature.startswith("AVX512") or feature == "X86_V4"


def left_out(env: dict[str, str], seen: set[str]) -> str:
    """Why not to run this one: a library took another type than it was told, which had its turn."""
    blas, capability, _ = probe(env)
    core, wanted = env.get("OPENBLAS_CORETYPE"), env.get("ATEN_CPU_CAPABILITY")
    if wanted and capability != wanted:
        return f"left out: torch takes {capability}"
    taken = ", ".join(blas)
    if core and taken in seen:
        return f"left out: this OpenBLAS has no kernels for it and takes {taken}"
    seen |= {taken} if core else set()
    return ""


def main(args: list[str]) -> int:
    """Run the tests on every machine; 1 if anything fails."""
    usual = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    paths = args if any(not arg.startswith("-") for arg in args) else [*SUBSET, *args]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths]
    red, seen = False, set[str]()
    for name, env in machines(usual, flags()):
        problem = left_out(env, seen)
        if problem:
            print(f"{name:24} {problem}", flush=True)
            continue
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no output"]
        print(f"{name:24} {lines[-1]}", flush=True)
        for line in lines:
            if line.startswith(("FAILED", "ERROR")):
                print(f"    {line}", flush=True)
        red = red or done.returncode != 0
    return int(red)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
