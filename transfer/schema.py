"""Write params.schema.json, with which an editor completes, describes and checks params.yaml."""

import json
from typing import Any

from transfer import files
from transfer.params import SHARED, Params, Train


def schema() -> dict[str, Any]:
    """The JSON Schema of Params; in a recipe only the settings of train that it may change.

    Rules across settings, such as that grid.dataset names keys of datasets, are not in it.
    """
    schema = Params.model_json_schema()
    changed = [name for name in Train.model_fields if name not in SHARED]
    (recipe,) = schema["properties"]["recipes"]["patternProperties"].values()
    recipe["properties"] = {name: {"$ref": f"#/$defs/Train/properties/{name}"} for name in changed}
    recipe["additionalProperties"] = False
    return {"$schema": "http://json-schema.org/draft-07/schema#"} | schema


if __name__ == "__main__":
    # An editor would show the line breaks of docstrings as paragraphs.
    text = json.dumps(schema(), indent=2).replace(r"\n", " ")
    files.write_text("params.schema.json", text + "\n")
