"""Numbers as Postgres computes with them: exact, with a scale that is kept (1.50 is not 1.5 as a text), and its own rule for division."""

from __future__ import annotations

import re
from dataclasses import dataclass

SIGNIFICANT = 16  # digits that a quotient has at least
_FORM = re.compile(r"([+-]?)(\d*)\.?(\d*)(?:[eE]([+-]?\d+))?")


@dataclass(frozen=True, slots=True)
class Number:
    """digits / 10^scale. Two numbers of different scale may be worth the same: compare with `cmp`."""

    digits: int
    scale: int = 0

    @classmethod
    def read(cls, text: str) -> Number:
        """The number of a JSON literal. Raises ValueError for what is none, or has too many digits."""
        found = _FORM.fullmatch(text)
        if found is None or not (found[2] or found[3]):
            raise ValueError(f'"{text}" is not a number')
        sign, whole, part, power = found.groups()
        scale = len(part) - int(power or 0)
        if abs(scale) > 16_000:
            raise ValueError(f'"{text[:30]}" has too many digits')
        digits = int(f"{sign}{whole}{part}")
        return cls(digits, scale) if scale >= 0 else cls(digits * 10**-scale)

    def cmp(self, other: Number) -> int:
        """-1, 0 or 1."""
        a, b, _ = _aligned(self, other)
        return (a > b) - (a < b)

    def trunc(self) -> int:
        """Without what stands behind the point."""
        whole: int = abs(self.digits) // 10**self.scale
        return whole if self.digits >= 0 else -whole

    def floor(self) -> Number:
        return Number(self.digits // 10**self.scale)

    def ceiling(self) -> Number:
        return Number(-(-self.digits // 10**self.scale))

    def __abs__(self) -> Number:
        return Number(abs(self.digits), self.scale)

    def __neg__(self) -> Number:
        return Number(-self.digits, self.scale)

    def __add__(self, other: Number) -> Number:
        a, b, scale = _aligned(self, other)
        return Number(a + b, scale)

    def __sub__(self, other: Number) -> Number:
        return self + -other

    def __mul__(self, other: Number) -> Number:
        return Number(self.digits * other.digits, self.scale + other.scale)

    def __mod__(self, other: Number) -> Number:
        """The rest, with the sign of what is divided. Raises ZeroDivisionError."""
        a, b, scale = _aligned(self, other)
        rest = abs(a) % abs(b)
        return Number(rest if a >= 0 else -rest, scale)

    def __truediv__(self, other: Number) -> Number:
        """Rounded half away from zero to the scale that Postgres chooses. Raises ZeroDivisionError."""
        if other.digits == 0:
            raise ZeroDivisionError
        weight, first = _leading(self)
        weight_of_other, first_of_other = _leading(other)
        weight -= weight_of_other + (first <= first_of_other)
        scale = min(1000, max(SIGNIFICANT - weight * 4, self.scale, other.scale, 0))
        above = abs(self.digits) * 10 ** (other.scale + scale)
        below = abs(other.digits) * 10**self.scale
        rounded = (2 * above + below) // (2 * below)
        return Number(rounded if (self.digits < 0) == (other.digits < 0) else -rounded, scale)

    def __str__(self) -> str:
        text = str(abs(self.digits)).rjust(self.scale + 1, "0")
        if self.scale:
            text = f"{text[: -self.scale]}.{text[-self.scale :]}"
        return f"-{text}" if self.digits < 0 else text


def _aligned(a: Number, b: Number) -> tuple[int, int, int]:
    scale = max(a.scale, b.scale)
    return a.digits * 10 ** (scale - a.scale), b.digits * 10 ** (scale - b.scale), scale


def _leading(x: Number) -> tuple[int, int]:
    """Weight and value of the first digit to base 10000, as Postgres stores it; (0, 0) of zero."""
    if x.digits == 0:
        return 0, 0
    digits = abs(x.digits)
    weight = (len(str(digits)) - x.scale - 1) // 4
    power = x.scale + 4 * weight
    return weight, digits // 10**power if power >= 0 else digits * 10**-power
