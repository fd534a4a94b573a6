"""Any JSON that an API server could send, and fields in any spelling."""

from typing import Any

from hypothesis import strategies as st

# Go's JSON knows no lone surrogates, and turns numbers beyond 64 bits into floats.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)


def spellings(name: str) -> st.SearchStrategy[str]:
    """A field's name with any letters in upper case."""
    return st.lists(st.booleans(), min_size=len(name), max_size=len(name)).map(
        lambda upper: "".join(c.upper() if up else c for c, up in zip(name, upper, strict=True))
    )


def objects(*fields: str) -> st.SearchStrategy[dict[str, Any]]:
    """Objects in which these fields are likely, of any type and in any spelling."""
    names = st.one_of(texts, *(spellings(field) for field in fields))
    return st.dictionaries(names, anything, max_size=8)
