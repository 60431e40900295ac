"""Sorting networks over the clients as machine code, for order statistics of every coordinate.

A network sorts n values by a fixed list of comparisons, whatever the values are. So sixteen coordinates can
be sorted at a time, without a branch. Only comparisons that the wanted values depend on are kept. The sums
are formed in the order in which NumPy forms them, so the results have the same bits.

The rows are as many streams of memory, more than a processor foresees: the code asks for what comes next.

Source: Batcher, Sorting networks and their applications, AFIPS 1968; Knuth, The Art of Computer Programming,
volume 3, Algorithm 5.2.2M (any n).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

#: Coordinates per vector.
WIDTH = 16
#: NumPy adds up to this many values with eight running sums, and splits longer lists.
PAIRWISE = 128
#: How many columns ahead the code asks for a row's values. They wait in the second-level cache.
AHEAD = 128
#: What llvm.is.fpclass calls NaN (of two kinds), −Inf and +Inf.
NOT_FINITE = 0x1 | 0x2 | 0x4 | 0x200


def comparisons(n: int) -> Iterator[tuple[int, int]]:
    """Pairs (i, j), i < j, in order: each puts the smaller of two values at i, and all of them sort n values.

    Example:
        >>> from fedguard.geometry.networks import comparisons
        >>> list(comparisons(3))
        [(0, 2), (0, 1), (1, 2)]
    """
    top = 1 << max(0, (n - 1).bit_length() - 1)
    p = top
    while p and n > 1:
        q, r, d = top, 0, p
        while d:
            yield from ((i, i + d) for i in range(n - d) if i & p == r)
            d, q, r = q - p, q >> 1, p
        p >>= 1


def module_of_means(llvm: Any, n: int, low: int, high: int) -> str:
    """LLVM IR of ``means(rows, start, stop, out) -> int``.

    For every column j in [start, stop), whose number is a multiple of ``WIDTH``, out[j − start] is the mean
    of the values at positions low … high − 1 of the sorted column, summed in float64, rounded to float32.
    ``rows`` points to the n rows' addresses (float32). Returns 1 at the first NaN or Inf, and 0 otherwise.

    Args:
        llvm: the module ``llvmlite.ir``.
        n: the number of rows.
        low: the first position.
        high: the position after the last one.
    """
    return str(_Network(llvm, n, low, high).module)


class _Network:
    """The code for one n and one range of positions."""

    def __init__(self, llvm: Any, n: int, low: int, high: int) -> None:
        self.ir = llvm
        self.single = llvm.VectorType(llvm.FloatType(), WIDTH)
        self.double = llvm.VectorType(llvm.DoubleType(), WIDTH)
        self.word = llvm.IntType(64)
        self.module = llvm.Module(name=f"means_{n}_{low}_{high}")
        self._odd: Any = None  # per column: whether a value is NaN or Inf
        self._ask, self._not_finite = self._intrinsics()
        self._known: dict[tuple[str, int], Any] = {}
        self._smaller: dict[int, Any] = {}
        self._inputs: list[tuple[tuple[str, int], tuple[str, int]]] = []
        self._write(n, low, high)

    def _write(self, n: int, low: int, high: int) -> None:
        ir = self.ir
        row, out_type = ir.FloatType().as_pointer(), ir.FloatType().as_pointer()
        kind = ir.FunctionType(ir.IntType(32), [row.as_pointer(), self.word, self.word, out_type])
        function = ir.Function(self.module, kind, "means")
        rows, start, stop, out = function.args
        entry, loop, following, odd, end = (
            function.append_basic_block(name) for name in ("entry", "loop", "next", "odd", "end")
        )
        build = ir.IRBuilder(entry)
        pointers = [build.load(build.gep(rows, [self.word(i)])) for i in range(n)]
        build.branch(loop)
        build.position_at_end(loop)
        column = build.phi(self.word)
        column.add_incoming(start, entry)
        wires = self._wires(n)
        places = [build.gep(pointer, [column]) for pointer in pointers]
        kept = [build.fpext(self._value(build, places, wires[k]), self.double) for k in range(low, high)]
        for i in range(n):  # every value is tested, also where no mean depends on it
            self._value(build, places, ("in", i))
        total = build.fadd(self._constant(0.0), self._sum(build, kept))
        mean = build.fptrunc(build.fdiv(total, self._constant(float(high - low))), self.single)
        target = build.gep(out, [build.sub(column, start)])
        build.store(mean, build.bitcast(target, self.single.as_pointer()), align=4)
        bits = ir.IntType(WIDTH)
        build.cbranch(build.icmp_signed("!=", build.bitcast(self._odd, bits), bits(0)), odd, following)
        build.position_at_end(following)
        after = build.add(column, self.word(WIDTH))
        column.add_incoming(after, following)
        build.cbranch(build.icmp_signed("<", after, stop), loop, end)
        for block, status in ((odd, 1), (end, 0)):
            build.position_at_end(block)
            build.ret(ir.IntType(32)(status))

    def _wires(self, n: int) -> list[tuple[str, int]]:
        """What holds each position's value in the end: an input, or one side of a comparison."""
        now = [("in", i) for i in range(n)]
        for k, (i, j) in enumerate(comparisons(n)):
            self._inputs.append((now[i], now[j]))
            now[i], now[j] = ("min", k), ("max", k)
        return now

    def _value(self, build: Any, places: Sequence[Any], wire: tuple[str, int]) -> Any:
        """Code for a wire, after the code for all that it depends on: few values are alive at a time."""
        if wire in self._known:
            return self._known[wire]
        side, k = wire
        if side == "in":
            value = self._input(build, places[k])
        else:
            one, other = (self._value(build, places, before) for before in self._inputs[k])
            if k not in self._smaller:
                self._smaller[k] = build.fcmp_ordered("olt", one, other)
            pair = (one, other) if side == "min" else (other, one)
            value = build.select(self._smaller[k], *pair)
        self._known[wire] = value
        return value

    def _input(self, build: Any, place: Any) -> Any:
        """Code that loads a row's values, tests them, and asks for those that come later."""
        word, value = self.ir.IntType(32), build.load(build.bitcast(place, self.single.as_pointer()), align=4)
        later = build.bitcast(build.gep(place, [self.word(AHEAD)]), self.ir.IntType(8).as_pointer())
        build.call(self._ask, [later, word(0), word(2), word(1)])  # to read; second level; data
        odd = build.call(self._not_finite, [value, word(NOT_FINITE)])
        self._odd = odd if self._odd is None else build.or_(self._odd, odd)
        return value

    def _intrinsics(self) -> tuple[Any, Any]:
        ir, word = self.ir, self.ir.IntType(32)
        ask = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), word, word, word])
        mask = ir.FunctionType(ir.VectorType(ir.IntType(1), WIDTH), [self.single, word])
        return (
            ir.Function(self.module, ask, "llvm.prefetch"),
            ir.Function(self.module, mask, f"llvm.is.fpclass.v{WIDTH}f32"),
        )

    def _sum(self, build: Any, values: Sequence[Any]) -> Any:
        """The sum in the order of NumPy's pairwise summation."""
        count = len(values)
        if count < 8:
            return self._in_turn(build, self._constant(-0.0), values)
        if count <= PAIRWISE:
            sums, whole = list(values[:8]), count - count % 8
            for k in range(8, whole, 8):
                sums = [build.fadd(sums[i], values[k + i]) for i in range(8)]
            while len(sums) > 1:
                sums = [build.fadd(a, b) for a, b in zip(sums[::2], sums[1::2], strict=True)]
            return self._in_turn(build, sums[0], values[whole:])
        half = count // 2 - count // 2 % 8
        return build.fadd(self._sum(build, values[:half]), self._sum(build, values[half:]))

    @staticmethod
    def _in_turn(build: Any, total: Any, values: Sequence[Any]) -> Any:
        for value in values:
            total = build.fadd(total, value)
        return total

    def _constant(self, value: float) -> Any:
        return self.ir.Constant(self.double, [value] * WIDTH)
