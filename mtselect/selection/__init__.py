"""From benefits and gradient sketches to a set of pairs; numpy and scikit-learn only, no model in sight."""
