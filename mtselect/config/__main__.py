"""python -m mtselect.config > docs/sweep.schema.json: the JSON schema of sweep files, for editors."""

import json
import sys

from mtselect.config.schema import json_schema

sys.stdout.write(json.dumps(json_schema(), indent=1) + "\n")
