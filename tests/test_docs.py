"""The generated pages are those that are committed."""

import pytest

from experiments import docs


@pytest.mark.parametrize("name", ["settings.md", "metrics.md", "parts.md"])
def test_a_generated_page_is_up_to_date(name: str):
    assert (docs.ROOT / "docs" / name).read_text() == docs.pages()[name], "make docs"
