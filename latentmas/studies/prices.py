"""Prices of devices per hour, from a YAML file that users edit."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentmas.errors import DataError
from latentmas.safe_data import decode_text, parse_yaml, read_limited

__all__ = ["DEFAULT_PRICES", "Price", "PriceTable", "named_in"]

DEFAULT_PRICES = Path(__file__).parent / "prices.yaml"
"""The table that ships with latentmas, with a date and a source for each price."""
LARGEST = 2**16
EXAMPLE = "currency: USD, devices: {h100: 2.5}"


@dataclass(frozen=True)
class Price:
    """What a device costs."""

    device: str
    """Name in the table, such as `h100`."""
    per_hour: float
    """Price per hour."""
    source: str = ""
    """Where the price is from."""
    date: str = ""
    """When it was valid."""


@dataclass(frozen=True)
class PriceTable:
    """Prices by device."""

    currency: str
    """Currency of all prices."""
    prices: Mapping[str, Price]
    """Name → price."""

    @classmethod
    def load(cls, path: str | Path | None = None) -> PriceTable:
        """Read a table.

        Args:
            path: YAML file; None reads the table that ships with latentmas.

        Raises:
            DataError: The file cannot be read or is not a table of prices.
        """
        file = DEFAULT_PRICES if path is None else Path(path)
        try:
            found: Any = parse_yaml(decode_text(read_limited(file, LARGEST)))
            entries = found["devices"]
            if unknown := set(found) - {"currency", "devices"}:
                raise ValueError(f"the key {sorted(map(str, unknown))[0]!r} is unknown")
            prices = {str(name): _price(str(name), entry) for name, entry in entries.items()}
            return cls(str(found.get("currency", "USD")), prices)
        except OSError as error:
            raise DataError(f"cannot read prices from {str(file)!r}: {error}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(
                f"{str(file)!r} is not a table of prices: {error}; write it as in {EXAMPLE}"
            ) from error

    def find(self, device: str) -> Price | None:
        """The price of a device, by its full name (`NVIDIA H100 80GB HBM3`) or `cpu`."""
        return self.prices.get(named_in(device, self.prices) or "")


def named_in(device: str, names: Iterable[str]) -> str | None:
    """The longest of the names that a device's full name contains as a word.

    Spaces and hyphens do not count: `rtx4090` is contained in `NVIDIA GeForce RTX 4090`, but `l4`
    is not contained in `NVIDIA L40S`.
    """
    fitting = [name for name in names if _pattern(name).search(device)]
    return max(fitting, key=len, default=None)


def _pattern(name: str) -> re.Pattern[str]:
    parts = re.findall(r"[a-z]+|\d+", name.lower())
    inside = r"[\s_-]*".join(parts) or r"(?!)"
    return re.compile(rf"(?<![a-z0-9]){inside}(?![a-z0-9])", re.IGNORECASE)


def _price(name: str, entry: Any) -> Price:
    """A price from a number, or from a mapping with `per_hour`."""
    fields = dict(entry) if isinstance(entry, Mapping) else {"per_hour": entry}
    amount = fields.pop("per_hour", None)
    if unknown := set(fields) - {"source", "date"}:
        raise ValueError(f"{name} has the unknown key {sorted(map(str, unknown))[0]!r}")
    number = isinstance(amount, int | float) and not isinstance(amount, bool)
    if not number or not math.isfinite(amount) or amount < 0:
        raise ValueError(f"the price of {name} is {amount!r}, not a number of 0 or more")
    return Price(name, float(amount), **{key: str(value) for key, value in fields.items()})
