"""Exact arithmetic on a parsed expression: integers and fractions are never rounded. Nothing is ever evaluated as code.

Whole numbers and decimals are fractions; functions whose results are none (``sqrt(2)``, ``sin``) give decimals of 50
digits. Bounds: ``_MOST_CHARACTERS`` of expression, ``_MOST_STEPS`` operations, ``_MOST_BITS`` of a number, so that no
expression takes long. Full-width digits and signs, ``×``, ``÷``, ``^`` and ``π`` are understood.
"""

from __future__ import annotations

import ast
import math
import unicodedata
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_EVEN, Decimal, DecimalException, localcontext
from fractions import Fraction
from typing import TypeAlias

from pagoda.core.errors import ToolError

Number: TypeAlias = Fraction | Decimal

_MOST_CHARACTERS = 1000
_MOST_STEPS = 500
_MOST_DEPTH = 120
_MOST_BITS = 20_000
_DIGITS = 50
_SHOWN_DIGITS = 15
_LARGEST_FACTORIAL = 1000
_SIGNS = str.maketrans({"×": "*", "÷": "/", "−": "-", "–": "-", "π": "pi", "，": ",", "＾": "^"})
_CONSTANTS: Mapping[str, Decimal] = {
    "pi": Decimal("3.14159265358979323846264338327950288419716939937510"),
    "e": Decimal("2.71828182845904523536028747135266249775724709369995"),
}


def calculate(expression: str) -> str:
    """The value of an expression: whole, as a fraction's decimals where these end, else to 15 digits.

    Raises ``ToolError`` for what is no arithmetic, has no value, or is too large.
    """
    if len(expression) > _MOST_CHARACTERS:
        raise ToolError(f"the expression has {len(expression)} characters; {_MOST_CHARACTERS} is the most")
    text = unicodedata.normalize("NFKC", expression).translate(_SIGNS).replace("^", "**").strip().rstrip("=?;, ")
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ToolError(f"{expression[:100]!r} is not an arithmetic expression") from error
    with localcontext() as context:
        context.prec = _DIGITS
        try:
            return _shown(_Evaluation().value(tree.body))
        except ZeroDivisionError as error:
            raise ToolError("division by zero has no value") from error
        except (DecimalException, OverflowError, ValueError) as error:
            raise ToolError(f"{expression[:100]!r} has no value that can be written") from error


class _Evaluation:
    """One walk through a parsed expression, counting its steps."""

    def __init__(self) -> None:
        self._steps = 0
        self._depth = 0

    def value(self, node: ast.expr) -> Number:
        """The value of a part."""
        self._steps += 1
        if self._steps > _MOST_STEPS or self._depth >= _MOST_DEPTH:
            raise ToolError(f"the expression is too long: {_MOST_STEPS} steps and {_MOST_DEPTH} levels are the most")
        self._depth += 1
        try:
            return _bounded(self._part(node))
        finally:
            self._depth -= 1

    def _part(self, node: ast.expr) -> Number:
        match node:
            case ast.Constant(value=bool() | complex() | str() | bytes() | None):
                raise ToolError("only numbers can be calculated with")
            case ast.Constant(value=int(number)):
                return Fraction(number)
            case ast.Constant(value=float(number)):
                return Fraction(repr(number))
            case ast.Name(id=name) if name.lower() in _CONSTANTS:
                return _CONSTANTS[name.lower()]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self.value(operand)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.value(operand)
            case ast.BinOp(left=left, op=op, right=right):
                return _binary(op, self.value(left), self.value(right))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                function = _FUNCTIONS.get(name.lower())
                if function is None:
                    raise ToolError(f"there is no function {name[:50]!r}; known are {', '.join(sorted(_FUNCTIONS))}")
                values = [self.value(arg) for arg in args]
                try:
                    return function(*values)
                except TypeError as error:
                    raise ToolError(f"{name} does not take {len(values)} numbers") from error
        raise ToolError("only numbers, + - * / // % **, parentheses and functions can be calculated with")


def _binary(op: ast.operator, left: Number, right: Number) -> Number:
    if isinstance(op, ast.Pow):
        return _power(left, right)
    if isinstance(left, Fraction) != isinstance(right, Fraction):
        left, right = _decimal(left), _decimal(right)
    match op:
        case ast.Add():
            return left + right  # type: ignore[operator]
        case ast.Sub():
            return left - right  # type: ignore[operator]
        case ast.Mult():
            return left * right  # type: ignore[operator]
        case ast.Div():
            return left / right  # type: ignore[operator]
        case ast.FloorDiv():
            return Fraction(math.floor(left / right))  # type: ignore[operator]
        case ast.Mod():
            return left - right * math.floor(left / right)  # type: ignore[operator]
    raise ToolError("only + - * / // % and ** can be calculated with")


def _power(base: Number, exponent: Number) -> Number:
    if not (isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1):
        return _decimal(base) ** _decimal(exponent)
    times = abs(int(exponent))
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if size > 1 and size * times > _MOST_BITS:  # known before it is computed
        raise ToolError(f"the power is too large: a number may have {_MOST_BITS} bits")
    return base ** int(exponent)


def _bounded(number: Number) -> Number:
    if isinstance(number, Fraction):
        if max(number.numerator.bit_length(), number.denominator.bit_length()) > _MOST_BITS:
            raise ToolError(f"a number grew too large: {_MOST_BITS} bits are the most")
    elif not number.is_finite():
        raise ToolError("the value is not a finite number")
    return number


def _decimal(number: Number) -> Decimal:
    return number if isinstance(number, Decimal) else Decimal(number.numerator) / Decimal(number.denominator)


def _sqrt(number: Number) -> Number:
    if _decimal(number) < 0:
        raise ToolError("the square root of a negative number is not real")
    if isinstance(number, Fraction):
        roots = math.isqrt(number.numerator), math.isqrt(number.denominator)
        if roots[0] ** 2 == number.numerator and roots[1] ** 2 == number.denominator:
            return Fraction(*roots)
    return _decimal(number).sqrt()


def _factorial(number: Number) -> Number:
    if number != int(number) or not 0 <= number <= _LARGEST_FACTORIAL:
        raise ToolError(f"factorial needs a whole number from 0 to {_LARGEST_FACTORIAL}")
    return Fraction(math.factorial(int(number)))


def _round(number: Number, digits: Number = Fraction(0)) -> Number:
    if abs(_decimal(digits)) > _DIGITS:
        raise ToolError(f"round takes at most {_DIGITS} digits")
    return Fraction(_decimal(number).quantize(Decimal(1).scaleb(-int(digits)), rounding=ROUND_HALF_EVEN))


def _log(number: Number, base: Number | None = None) -> Number:
    if number <= 0:
        raise ToolError("the logarithm needs a number above 0")
    return _decimal(number).ln() if base is None else _decimal(number).ln() / _decimal(base).ln()


def _sum(*numbers: Number) -> Number:
    total: Number = Fraction(0)
    for number in numbers:
        total = _binary(ast.Add(), total, number)
    return total


def _rounded(function: Callable[[float], float]) -> Callable[[Number], Number]:
    """A function of the C library: 15 digits are as good as it is."""
    return lambda number: Decimal(repr(function(float(number))))


def _whole(function: Callable[..., int]) -> Callable[..., Number]:
    def of(*numbers: Number) -> Number:
        if any(number != int(number) for number in numbers):
            raise ToolError(f"{function.__name__} needs whole numbers")
        return Fraction(function(*(int(number) for number in numbers)))

    return of


_FUNCTIONS: Mapping[str, Callable[..., Number]] = {
    "sqrt": _sqrt,
    "abs": abs,
    "round": _round,
    "floor": lambda number: Fraction(math.floor(number)),
    "ceil": lambda number: Fraction(math.ceil(number)),
    "min": lambda *numbers: min(numbers, key=_decimal),
    "max": lambda *numbers: max(numbers, key=_decimal),
    "sum": _sum,
    "factorial": _factorial,
    "gcd": _whole(math.gcd),
    "lcm": _whole(math.lcm),
    "exp": lambda number: _decimal(number).exp(),
    "ln": _log,
    "log": _log,
    "log10": lambda number: _log(number, Fraction(10)),
    "log2": lambda number: _log(number, Fraction(2)),
    "sin": _rounded(math.sin),
    "cos": _rounded(math.cos),
    "tan": _rounded(math.tan),
    "pow": _power,
}


def _shown(number: Number) -> str:
    if isinstance(number, Fraction):
        if number.denominator == 1:
            return str(number.numerator)
        rest = number.denominator
        for prime in (2, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:  # its decimals end
            exact = _decimal(number)
            if Fraction(exact) == number:
                return f"{exact.normalize():f}"
    with localcontext() as context:
        context.prec = _SHOWN_DIGITS
        rounded = +_decimal(number)
    return f"{rounded.normalize():f}" if Decimal("1e-6") <= abs(rounded) < Decimal("1e21") else str(rounded.normalize())
