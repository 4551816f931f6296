"""Write params.schema.json, by which an editor completes, describes and checks params.yaml."""

import json
from typing import Any

from transfer import files
from transfer.params import SHARED, Params, Train


def schema() -> dict[str, Any]:
    """What Params takes, as JSON Schema; a recipe takes those settings of train that it may change.

    An editor cannot see what a schema cannot say, such as that grid.dataset names keys of datasets.
    """
    found = Params.model_json_schema()
    changed = [name for name in Train.model_fields if name not in SHARED]
    (recipe,) = found["properties"]["recipes"]["patternProperties"].values()
    recipe["properties"] = {name: {"$ref": f"#/$defs/Train/properties/{name}"} for name in changed}
    recipe["additionalProperties"] = False
    return {"$schema": "http://json-schema.org/draft-07/schema#"} | found


if __name__ == "__main__":
    # An editor would show the line breaks of docstrings as paragraphs.
    text = json.dumps(schema(), indent=2).replace(r"\n", " ")
    files.write_text("params.schema.json", text + "\n")
