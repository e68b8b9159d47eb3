"""How features were made: two sets that were made differently are not compared."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Protocol:
    """Everything about features that must agree.

    Attributes:
      features: name of the extractor.
      weights: SHA-256 of its parameters, or "none".
      resize: how pictures are resized, or "none".
      values: what its input is: "uint8 0..255" or "float32".
      shape: of one example, where the extractor takes only that; "any" otherwise.
    """

    features: str
    weights: str
    resize: str
    values: str
    shape: str

    @classmethod
    def of(cls, saved: Mapping[str, object]) -> "Protocol":
        """From the dictionary of a file.

        Raises:
          ValueError: it is not a protocol.
        """
        try:
            return cls(**{name: str(saved[name]) for name in cls.__dataclass_fields__})
        except (KeyError, TypeError) as error:
            raise ValueError(f"holds no complete protocol: {error} is missing") from error


def check_comparable(one: Protocol, one_is: str, other: Protocol, other_is: str) -> None:
    """Refuse to compare what was made differently.

    Raises:
      ValueError: names each field that differs, on both sides.
    """
    a, b = asdict(one), asdict(other)
    differing = [f"{key} = {a[key]!r} against {b[key]!r}" for key in a if a[key] != b[key]]
    if differing:
        raise ValueError(f"{one_is} and {other_is} cannot be compared: " + "; ".join(differing))
