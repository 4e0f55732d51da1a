"""Units: lengths, masses, volumes, times, speeds, data and more as exact factors; temperatures by their formulas."""

from __future__ import annotations

from fractions import Fraction

from pagoda.core.errors import ToolError

_KINDS: dict[str, dict[str, str]] = {
    "length": {
        "m metre meter 米 公尺": "1",
        "km kilometre kilometer 千米 公里": "1000",
        "cm centimetre centimeter 厘米": "0.01",
        "mm millimetre millimeter 毫米": "0.001",
        "in inch 英寸": "0.0254",
        "ft foot feet 英尺": "0.3048",
        "yd yard 码": "0.9144",
        "mi mile 英里": "1609.344",
        "nmi nautical_mile 海里": "1852",
        "li 里 市里": "500",
        "chi 尺 市尺": "1/3",
    },
    "mass": {
        "kg kilogram 千克 公斤": "1",
        "g gram 克": "0.001",
        "mg milligram 毫克": "0.000001",
        "t tonne 吨": "1000",
        "lb pound 磅": "0.45359237",
        "oz ounce 盎司": "0.028349523125",
        "jin 斤 市斤": "0.5",
        "liang 两": "0.05",
    },
    "volume": {
        "l litre liter 升": "1",
        "ml millilitre milliliter 毫升": "0.001",
        "m3 cubic_metre cubic_meter 立方米": "1000",
        "gal gallon 加仑": "3.785411784",
        "cup 杯": "0.2365882365",
        "floz fluid_ounce": "0.0295735295625",
    },
    "area": {
        "m2 square_metre square_meter 平方米": "1",
        "km2 square_kilometre square_kilometer 平方公里": "1000000",
        "ha hectare 公顷": "10000",
        "acre 英亩": "4046.8564224",
        "ft2 square_foot square_feet 平方英尺": "0.09290304",
        "mu 亩": "2000/3",
    },
    "time": {
        "s second sec 秒": "1",
        "ms millisecond 毫秒": "0.001",
        "min minute 分钟": "60",
        "h hour 小时": "3600",
        "d day 天": "86400",
        "week 周 星期": "604800",
    },
    "speed": {
        "m/s mps 米每秒": "1",
        "km/h kmh kph 公里每小时": "5/18",
        "mph 英里每小时": "0.44704",
        "kn knot 节": "1852/3600",
    },
    "data": {
        "b byte 字节": "1",
        "bit 比特": "1/8",
        "kb": "1000",
        "mb": "1000000",
        "gb": "1000000000",
        "tb": "1000000000000",
        "kib": "1024",
        "mib": "1048576",
        "gib": "1073741824",
        "tib": "1099511627776",
    },
    "energy": {
        "j joule 焦耳": "1",
        "kj kilojoule 千焦": "1000",
        "cal calorie 卡": "4.184",
        "kcal 千卡 大卡": "4184",
        "kwh 千瓦时 度电": "3600000",
    },
    "pressure": {
        "pa pascal 帕": "1",
        "kpa 千帕": "1000",
        "bar 巴": "100000",
        "atm 大气压": "101325",
        "psi": "6894.757293168",
    },
}
_FACTORS = {
    name: (kind, Fraction(factor))
    for kind, units in _KINDS.items()
    for names, factor in units.items()
    for name in names.split()
}
_TEMPERATURES = {
    name: unit
    for unit, names in {
        "c": "c celsius °c ℃ 摄氏度",
        "f": "f fahrenheit °f ℉ 华氏度",
        "k": "k kelvin 开尔文",
    }.items()
    for name in names.split()
}
_ZERO_C = Fraction("273.15")


def convert(value: float, unit: str, into: str) -> str:
    """The value in another unit of the same kind. Raises ``ToolError`` for units that are unknown or of two kinds."""
    if _TEMPERATURES.get(_key(unit)) and _TEMPERATURES.get(_key(into)):
        found = _from_kelvin(_kelvin(Fraction(repr(value)), _TEMPERATURES[_key(unit)]), _TEMPERATURES[_key(into)])
    else:
        (kind, factor), (other, divisor) = _unit(unit), _unit(into)
        if kind != other:
            raise ToolError(f"{unit} is a unit of {kind} and {into} one of {other}; they cannot be converted")
        found = Fraction(repr(value)) * factor / divisor
    return f"{float(found):.12g} {into}"


def _key(unit: str) -> str:
    return unit.strip().lower().replace(" ", "_").replace("²", "2").replace("³", "3")


def _unit(unit: str) -> tuple[str, Fraction]:
    key = _key(unit)
    found = _FACTORS.get(key) or _FACTORS.get(key.removesuffix("s")) or _FACTORS.get(key.removesuffix("es"))
    if found is None:
        raise ToolError(f"the unit {unit[:50]!r} is not known")
    return found


def _kelvin(value: Fraction, unit: str) -> Fraction:
    return {"k": value, "c": value + _ZERO_C, "f": (value - 32) * 5 / 9 + _ZERO_C}[unit]


def _from_kelvin(value: Fraction, unit: str) -> Fraction:
    return {"k": value, "c": value - _ZERO_C, "f": (value - _ZERO_C) * 9 / 5 + 32}[unit]
