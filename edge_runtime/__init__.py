"""Station stage, no torch: camera -> engine -> verdict -> store -> MQTT."""
