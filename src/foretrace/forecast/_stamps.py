"""Time stamps in every usual form: read exactly, and written as the file writes its own."""

import contextlib
import datetime
import itertools
import re
from collections.abc import Sequence
from decimal import Decimal

from foretrace.forecast._spacing import DAY, EPOCH, Stamp, spacing_of, split, stamp_of

_MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july"),
    *("august", "september", "october", "november", "december"),
)
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

_WEEKDAY, _NAME = r"(?:(?P<a>[A-Za-z]{3,9}),?\s+)?", r"(?P<b>[A-Za-z]{3,9})\.?"
_YEAR, _CENTURY = r"(?P<Y>\d{4}|\d\d)", r"(?P<Y>(?:19|20)\d\d)"
_CLOCK = (
    r"(?P<H>\d{1,2})(?::(?P<M>\d\d)(?::(?P<S>\d\d)(?:[.,](?P<f>\d+))?)?)?(?:\s?(?P<p>[AaPp])\.?[Mm]\.?)?"
)
_ZONE = r"(?:\s?(?P<z>[Zz]|UTC|GMT|[+-]\d\d(?::?\d\d)?))?"
_THEN = rf"(?:(?:[T_:]|,?\s+){_CLOCK}{_ZONE})?"
# By name, in the order in which they are tried. Letters are those of `strftime`, q a quarter, e an epoch.
FORMS = {
    name: re.compile(pattern)
    for name, pattern in {
        "year/month/day": rf"(?P<Y>\d{{4}})(?P<s>[-/. ])(?P<m>\d{{1,2}})(?P=s)(?P<d>\d{{1,2}}){_THEN}",
        "yearmonthday": rf"{_CENTURY}(?P<m>\d\d)(?P<d>\d\d)"
        rf"(?:[T_ ]?(?P<H>\d\d)(?:(?P<M>\d\d)(?:(?P<S>\d\d)(?:[.,](?P<f>\d+))?)?)?{_ZONE})?",
        "yearmonthday, time": rf"{_CENTURY}(?P<m>\d\d)(?P<d>\d\d){_THEN}",
        "month/day/year": rf"(?P<m>\d{{1,2}})(?P<s>[-/])(?P<d>\d{{1,2}})(?P=s){_YEAR}{_THEN}",
        "day/month/year": rf"(?P<d>\d{{1,2}})(?P<s>[-/. ])(?P<m>\d{{1,2}})(?P=s){_YEAR}{_THEN}",
        "day, name of month, year": rf"\[?{_WEEKDAY}(?P<d>\d{{1,2}})[-/ .]\s?{_NAME}[-/ ,]\s?{_YEAR}"
        rf"{_THEN}\]?",
        "name of month, day, year": rf"{_WEEKDAY}{_NAME}\s(?P<d>\d{{1,2}}),?\s(?P<Y>\d{{4}}){_THEN}",
        "name of month, day, time, year": rf"{_WEEKDAY}{_NAME}\s+(?P<d>\d{{1,2}})\s{_CLOCK}{_ZONE}"
        r"\s(?P<Y>\d{4})",
        "week": r"(?P<G>\d{4})-?W(?P<V>\d\d)(?:-?(?P<u>[1-7]))?",
        "day of year": r"(?P<Y>\d{4})-(?P<j>\d{3})",
        "year, quarter": r"(?P<Y>\d{4})[-/ ]?[Qq](?P<q>[1-4])",
        "quarter, year": r"[Qq](?P<q>[1-4])[-/ ]?(?P<Y>\d{4})",
        "year/month": r"(?P<Y>\d{4})[-/](?P<m>\d{1,2})",
        "yearmonth": rf"{_CENTURY}(?P<m>\d\d)",
        "month/year": r"(?P<m>\d{1,2})[-/](?P<Y>\d{4})",
        "name of month, year": rf"{_NAME}[-/ ]{_YEAR}",
        "year, name of month": rf"(?P<Y>\d{{4}})[-/ ]{_NAME}",
        "epoch": r"(?P<e>[12](?:\d{9}|\d{12}|\d{15}|\d{18}))(?:[.,](?P<f>\d+))?",
        "month.year": rf"(?P<m>\d\d)\.{_CENTURY}",
        "number": r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?",
        "short year/month/day": rf"(?P<Y>\d\d)(?P<s>[-/.])(?P<m>\d\d)(?P=s)(?P<d>\d\d){_THEN}",
    }.items()
}
_TWINS = ("month/day/year", "day/month/year")


class StampReader:
    """Reads the stamps of one column, all of the same form, which the stamps decide.

    Attributes:
        form: the name of the form, empty before there was a stamp.
    """

    def __init__(self, form: str = ""):
        self.form = form
        self._possible = list(FORMS)  # forms of all stamps so far

    def look_ahead(self, texts: Sequence[str]) -> None:
        """Chooses the form that most of the texts have, and under which they go on most evenly."""

        def disorder(form):
            stamps = [stamp for text in texts if (stamp := read(text, form))]
            spacing = spacing_of(stamps, is_dated(form))
            uneven = sum(
                b.when <= a.when or round(spacing.slots(a, b)) != 1
                for a, b in itertools.pairwise(stamps)
                if spacing
            )
            # Of two even readings of 24-01-30, 24-01-31, that of years is the wrong one.
            in_years = spacing is not None and spacing.unit == "months" and spacing.step >= 12
            return len(texts) - len(stamps), uneven, in_years

        self.form = self.form or min(FORMS, key=disorder)

    def __call__(self, text: str) -> Stamp | None:
        """The stamp of a text; None if it is none."""
        if len(self._possible) > 1:
            self._possible = [form for form in self._possible if read(text, form)] or self._possible
        if self.form and (stamp := read(text, self.form)):
            return stamp
        for form in (*self._possible, *FORMS):
            if stamp := read(text, form):
                self.form = form
                return stamp
        return None

    @property
    def is_ambiguous(self) -> bool:
        """Whether the stamps do not say which of two numbers is the month."""
        return self.form in _TWINS and set(_TWINS) <= set(self._possible)


def is_dated(form: str) -> bool:
    """Whether stamps of that form are dates."""
    return form not in ("", "number")


def read(text: str, form: str) -> Stamp | None:
    """The stamp of a text that has a form; None if it does not."""
    if form == "year/month/day" and len(text) in (10, 16, 19) and text[10:11] in ("", " ", "T"):
        # Nearly always, and four times as fast as the pattern.
        with contextlib.suppress(ValueError):
            moment = datetime.datetime.fromisoformat(text)
            if text[4:8:3] == "--" and moment.tzinfo is None:
                return stamp_of(moment)
    match = FORMS[form].fullmatch(text)
    if not match:
        return None
    if form == "number":
        return Stamp(Decimal(text.replace(",", ".")), None)
    parts = {name: part for name, part in match.groupdict().items() if part is not None}
    fraction = Decimal("0." + parts["f"]) if "f" in parts else Decimal(0)
    if form == "epoch":
        digits = parts["e"]
        return Stamp((int(digits) + fraction).scaleb(10 - len(digits)), 0)
    try:
        days = _date(parts).toordinal() - EPOCH
    except ValueError:
        return None
    hour, minute, second = (int(parts.get(name, 0)) for name in "HMS")
    if "p" in parts:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + 12 * (parts["p"] in "Pp")
    if hour > 24 or minute > 59 or second > 60:
        return None
    wall = DAY * days + 3600 * hour + 60 * minute + second + fraction
    if "z" not in parts:
        return Stamp(wall, None)
    zone = parts["z"].replace(":", "")
    offset = 0
    if zone[0] in "+-":
        offset = (3600 * int(zone[1:3]) + 60 * int(zone[3:] or 0)) * (-1 if zone[0] == "-" else 1)
    return Stamp(wall - offset, offset)


def write(stamp: Stamp, form: str, like: Sequence[str]) -> str:
    """The stamp in the form of others, which also show its digits; empty if there is no such date."""
    matches = [match for text in like if (match := FORMS[form].fullmatch(text))]
    template = max(matches, key=lambda match: len(match[0]))
    if form == "number":
        digits = max(-int(Decimal(text.replace(",", ".")).as_tuple().exponent) for text in like)
        text = f"{stamp.when:.{max(0, digits)}f}"
        return text.replace(".", ",") if "," in template[0] else text
    parts = {name: part for name, part in template.groupdict().items() if part is not None}
    wall = stamp.when + (stamp.offset or 0)
    values: dict[str, str] = {}
    if form == "epoch":
        wall = wall.scaleb(len(parts["e"]) - 10)
        unit = Decimal(1).scaleb(-len(parts.get("f", "")))
    else:
        units = {"f": Decimal(1).scaleb(-len(parts.get("f", ""))), "S": 1, "M": 60, "H": 3600}
        unit = Decimal(next((units[name] for name in units if name in parts), DAY))
    wall = (wall / unit).to_integral_value() * unit
    values["f"] = f"{split(wall, 1)[1]:f}".partition(".")[2].ljust(len(parts.get("f", "")), "0")
    if form == "epoch":
        values["e"] = str(int(wall))
    else:
        try:
            days, seconds = split(wall, DAY)
            date = datetime.date.fromordinal(EPOCH + days)
        except (ValueError, OverflowError):
            return ""
        values |= _date_values(date, parts) | _clock_values(int(seconds), parts)
        values |= _zone_values(stamp, parts)
    short = _short_parts(matches)
    text = template[0]
    for name in sorted(parts.keys() & values.keys(), key=template.start, reverse=True):
        value = values[name]
        if name in "mdHV" and name not in short:
            value = value.zfill(2)
        text = text[: template.start(name)] + value + text[template.end(name) :]
    return text


def _date(parts: dict[str, str]) -> datetime.date:
    if "G" in parts:
        return datetime.date.fromisocalendar(int(parts["G"]), int(parts["V"]), int(parts.get("u", 1)))
    if "a" in parts and not any(day.startswith(parts["a"].lower()) for day in _DAYS):
        raise ValueError
    year = int(parts["Y"])
    if len(parts["Y"]) == 2:
        year += 2000 if year < 69 else 1900
    if "j" in parts:
        return datetime.date(year, 1, 1) + datetime.timedelta(int(parts["j"]) - 1)
    month = int(parts.get("m", 3 * int(parts.get("q", 1)) - 2))
    if "b" in parts:
        names = [name.startswith(parts["b"].lower().replace("sept", "sep")) for name in _MONTHS]
        month = names.index(True) + 1 if any(names) else 0
    return datetime.date(year, month, int(parts.get("d", 1)))


def _date_values(date: datetime.date, parts: dict[str, str]) -> dict[str, str]:
    week = date.isocalendar()
    year = str(date.year).zfill(4)
    return {
        "Y": year[-len(parts.get("Y", year)) :],
        "m": str(date.month),
        "d": str(date.day),
        "b": _as(_MONTHS[date.month - 1], parts.get("b", ""), _MONTHS),
        "a": _as(_DAYS[date.weekday()], parts.get("a", ""), _DAYS),
        "j": f"{date.timetuple().tm_yday:03d}",
        "q": str((date.month + 2) // 3),
        "G": str(week.year),
        "V": str(week.week),
        "u": str(week.weekday),
    }


def _clock_values(seconds: int, parts: dict[str, str]) -> dict[str, str]:
    hour, minute = seconds // 3600, seconds // 60 % 60
    values = {"H": str(hour), "M": f"{minute:02d}", "S": f"{seconds % 60:02d}"}
    if "p" in parts:
        half = "p" if hour >= 12 else "a"
        values["p"] = half.upper() if parts["p"].isupper() else half
        values["H"] = str((hour - 1) % 12 + 1)
    return values


def _zone_values(stamp: Stamp, parts: dict[str, str]) -> dict[str, str]:
    if parts.get("z", "Z")[0] not in "+-":
        return {}
    hours, minutes = divmod(abs(stamp.offset or 0) // 60, 60)
    end = (":" * (":" in parts["z"]) + f"{minutes:02d}") if len(parts["z"]) > 3 else ""
    return {"z": f"{'-' if (stamp.offset or 0) < 0 else '+'}{hours:02d}{end}"}


def _short_parts(matches: Sequence[re.Match]) -> set[str]:
    """Parts of stamps that are written without a zero before them."""
    seen = {name: {match.groupdict().get(name) or "" for match in matches} for name in "mdH"}
    is_short = any(len(text) == 1 for texts in seen.values() for text in texts)
    if not is_short and not matches[0].groupdict().get("p"):
        return set()
    return {name for name, texts in seen.items() if not any(text[:1] == "0" < text[1:] for text in texts)}


def _as(name: str, like: str, names: Sequence[str]) -> str:
    """A name in full or in short, in capitals or not, as another one is written."""
    text = name if like.lower() in names and like.lower() != "may" else name[:3]
    return text.upper() if like.isupper() else text.capitalize() if like[:1].isupper() else text
