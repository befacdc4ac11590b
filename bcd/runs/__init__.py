"""What a run is: asked for, resolved to a spec, stored, recorded and judged."""
