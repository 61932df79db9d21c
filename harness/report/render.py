"""Templates, and the scripts that draw their charts, as one text that loads nothing."""

from functools import cache
from typing import Any

import altair as alt
import jinja2
import vl_convert

# The version that altair writes, as vl-convert names it.
VEGA_LITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])


def rendered(template: str, **values: Any) -> str:
    """A template of this folder as HTML text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(values)


@cache
def javascript() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that loads nothing."""
    script: Any = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    assert "</script" not in script and "<!--" not in script
    return str(script)
